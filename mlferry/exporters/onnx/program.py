"""The operations of a program as the nodes of a graph.

Floats of any size are computed in float32, integers of any size in int32. In the precision "half" a
value of type float16 is rounded to float16 and then used as float32 again, so that sums accumulate
as they do on devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.errors import MlferryError, SpecError, UnsupportedOperationsError, context
from mlferry.numerics.shapes import Array
from mlferry.onnx_graph import rounds
from mlferry.onnx_graph.emitter import FLOAT, INT32, Emitter
from mlferry.onnx_graph.graph import Graph, Node
from mlferry.onnx_graph.simplify import simplified
from mlferry.programs.arguments import Argument, arguments_of, name_of
from mlferry.programs.contents import operations_of
from mlferry.programs.definitions import OPSETS, Definition, Operand, Operands, definition_of
from mlferry.programs.exports import EXPORTS, Call, carrier, carrier_of, shape_of
from mlferry.programs.kernels import KERNELS, Call as KernelCall
from mlferry.programs.types import DTYPES, StateType, TensorType, ValueType, type_of
from mlferry.programs.values import Weights, value_of
from mlferry.refusals import CannotExpressError, RankHiddenError, refuse
from mlferry.registry import Entry
from mlferry.spec.proto import mil_pb2 as mil
from mlferry.text import paragraph

NUMBERS = {"fp16": 10, "int8": 3, "int16": 5, "uint8": 2, "uint16": 4}  # of TensorProto
_ROUNDS = "rounds of loops"  # names of values have no spaces, so none is called this
_STORED_LEAST = 64  # smaller constants are stored in the type in which they are used
_FOLDED_MOST = 1 << 10  # values of up to so many elements are computed in advance
_HALF = np.dtype(np.float16)
_NAMES = {dtype.array: name for name, dtype in reversed(DTYPES.items())}
_KEPT = frozenset({"read_state", "write_state", "classify", "cond", "while_loop"})  # never folded


@dataclass(frozen=True)
class OperationRefusal:
    """An operation that ONNX cannot express; `follows` if only an earlier refusal is the cause."""

    operation: mil.Operation
    reason: str
    follows: bool = False

    def __str__(self) -> str:
        return f"{self.operation.type} {name_of(self.operation)!r}: {self.reason}"


def block_of(function: mil.Function) -> mil.Block:
    """The block of a function for its opset.

    Raises:
        SpecError: there is no such block, or the opset is unknown.
    """
    if function.opset not in OPSETS or function.opset not in function.block_specializations:
        raise SpecError(f"the function has no block for its opset {function.opset!r}")
    return function.block_specializations[function.opset]


class ProgramTranslation:
    """Walks over operations and writes their nodes.

    Args:
        opset: the name of the function's opset.
        weights: the files of its constants.
        precision: "half" rounds values of float16, "exact" does not.
        taken: names which no value inside may have.
        most_rounds: the limit of the rounds of all loops; None if they are not counted.

    Attributes:
        e: what writes.
        values: the graph's name of every value of the program that is not a constant.
        types: their types, as the program declares them.
        refusals: the operations that cannot be expressed.
        written: the states that have a new value now.
        known: the values that are constants.
        compressed: the operations that decompress constants, by the value that they return.
    """

    def __init__(
        self,
        opset: str,
        weights: Weights,
        precision: str = "half",
        names: Sequence[str] = (),
        most_rounds: int | None = None,
    ) -> None:
        self.e = Emitter(names)
        self.values: dict[str, str] = {}
        self.types: dict[str, ValueType] = {}
        self.refusals: list[OperationRefusal] = []
        self.written: set[str] = set()
        self._opset, self._weights, self._half = OPSETS[opset], weights, precision == "half"
        self.known: dict[str, Any] = {}
        self.compressed: dict[str, mil.Operation] = {}
        self._stored: dict[int, tuple[Any, str]] = {}
        self._rounds = most_rounds
        if most_rounds is not None:
            self.values[_ROUNDS] = self.e.constant(np.int64(0))

    # ---- values ------------------------------------------------------------------------------

    def add_input(self, name: str, kind: ValueType, value: str) -> None:
        """Add a value that comes from outside, in the type in which the graph computes it."""
        self.values[name], self.types[name] = value, kind
        inner = kind.wrapped if isinstance(kind, StateType) else kind
        self.e.shapes[value] = shape_of(inner)

    def read(self, name: str) -> str:
        """The current value of a state."""
        return self.values[name]

    def write(self, name: str, value: str) -> None:
        """Give a state a new value."""
        if name != _ROUNDS and not isinstance(self.types.get(name), StateType):
            raise refuse(f"{name!r} is not a state of the function")
        self.values[name] = value
        if name != _ROUNDS:
            self.written.add(name)

    def round(self) -> None:
        """Count a round of a loop as it begins, if rounds are counted."""
        if self._rounds is not None:
            before = self.values[_ROUNDS]
            self.values[_ROUNDS] = rounds.counted(self.e, before, self._rounds, "int64")

    def _cells(self, message: mil.Operation) -> dict[str, str]:
        """The states that the blocks of an operation may write, and the count of rounds."""
        cells: dict[str, str] = {}
        inside = list(operations_of(mil.Block(operations=[message])))
        for inner in inside if message.blocks else ():
            if inner.type == "write_state":
                for binding in inner.inputs["input"].arguments:
                    kind = self.types.get(binding.name)
                    if not isinstance(kind, StateType):
                        raise refuse(f"{binding.name!r} is not a state of the function")
                    cells[binding.name] = carrier_of(kind)
        if self._rounds is not None and any(inner.type == "while_loop" for inner in inside):
            cells[_ROUNDS] = "int64"
        return cells

    def value(self, name: str) -> str:
        """The graph's name of a value of the program, which may be a constant."""
        return self.tensor(self.known[name]) if name in self.known else self.values[name]

    def tensor(self, constant: object) -> Any:
        """A constant as a value; labels and symbols stay as they are."""
        if not isinstance(constant, np.ndarray | np.generic | bool | int | float | tuple):
            return constant
        array = np.asarray(constant)
        if array.dtype.kind in "OUS":
            return constant
        key = id(constant)
        if key not in self._stored:
            self._stored[key] = constant, self._constant(array)
        return self._stored[key][1]

    def _constant(self, array: Array) -> str:
        if array.dtype == _HALF and array.size >= _STORED_LEAST:
            with self._outside():
                return self.e.node("Cast", self.e.constant(array), to=FLOAT)
        return self.e.constant(array.astype(carrier(_NAMES.get(array.dtype, "fp32"))))

    @contextmanager
    def _outside(self) -> Iterator[None]:
        """Nodes before the branch or loop that is being written."""
        with self.e.inside() as nodes:
            yield
        self.e.graph.nodes.extend(nodes)

    def rounded(self, value: str, dtype: str) -> str:
        """A value of the program, in the type in which the graph computes."""
        if dtype not in NUMBERS or (dtype == "fp16" and not self._half):
            return value
        narrow = self.e.node("Cast", value, to=NUMBERS[dtype])
        return self.e.node("Cast", narrow, to=FLOAT if dtype == "fp16" else INT32)

    # ---- operations --------------------------------------------------------------------------

    def run(self, operations: Sequence[mil.Operation]) -> None:
        """Write operations."""
        for operation in operations:
            self.operation(operation)

    def operation(self, message: mil.Operation) -> None:
        """Write one operation."""
        if message.type == "const":
            name = message.outputs[0].name
            self.types[name] = type_of(message.outputs[0].type)
            self.known[name] = value_of(message.attributes["val"], self._weights)
            return
        self.e.layer = name_of(message)
        types = tuple(type_of(value.type) for value in message.outputs)
        for value, kind in zip(message.outputs, types, strict=True):
            self.types[value.name] = kind
        states = {
            name: value
            for name, value in self.values.items()
            if name == _ROUNDS or isinstance(self.types.get(name), StateType)
        }
        try:
            with context(f"exporting {message.type} {name_of(message)!r}"):
                self._operation(message, types)
        except CannotExpressError as error:
            self.values |= states
            follows = isinstance(error, RankHiddenError) and bool(self.refusals)
            self.refusals.append(OperationRefusal(message, str(error), follows))
            for value, kind in zip(message.outputs, types, strict=True):
                self.add_input(value.name, kind, self.e.fresh(value.name))

    def _operation(self, message: mil.Operation, types: tuple[ValueType, ...]) -> None:
        definition = definition_of(message.type, self._opset)
        entry = EXPORTS.find(message.type, self._opset)
        stored_names = entry.options.get("stored", ()) if entry is not None else ()
        self._need_constants(message, definition, stored_names)
        arguments = arguments_of(message, definition.parameters, self.known, self._decoded)
        if message.type.startswith("constexpr_"):
            for value in message.outputs:
                self.compressed[value.name] = message
            if entry is None:
                self._fold(message, definition, arguments, types)
                return
        elif self._is_known(message, arguments, types):
            self._fold(message, definition, arguments, types)
            return
        if entry is None:
            raise refuse("ONNX has no nodes for it here")
        raw = message.type.startswith("constexpr_")
        operands = self._operands(definition, arguments, stored_names, raw=raw)
        call = Call(
            message.type,
            name_of(message),
            self._opset,
            types,
            {name: self._types_of(argument) for name, argument in arguments.items()},
            {n: v for n, v in operands.items() if definition.parameters[n].constant},
            lambda name: self._operand(arguments[name])[0] if name in arguments else "",
            [self._block(block) for block in message.blocks],
            self,
            self._cells(message),
        )
        try:
            output = entry.value(self.e, call, **operands)
        except (CannotExpressError, MlferryError):
            raise
        except Exception as error:  # an operation whose parameters validate would refuse
            raise SpecError(f"its parameters do not fit: {error!r:.300}") from error
        results = output if isinstance(output, tuple) else (output,)
        if len(results) < len(message.outputs):
            raise SpecError(f"it makes {len(results)} values; {len(message.outputs)} are named")
        refined = self._refined(definition, arguments, types)
        for value, kind, result in zip(message.outputs, refined, results, strict=False):
            self._assign(value.name, kind, result, entry)

    def _assign(self, name: str, kind: ValueType, value: str, entry: Entry[Any]) -> None:
        if isinstance(kind, TensorType) and not entry.options.get("moves"):
            value = self.rounded(value, kind.dtype)
        self.values[name], self.types[name] = value, kind
        known, described = self.e.shapes.get(value), shape_of(kind)
        if known is None or None in known:
            self.e.shapes[value] = described if described is not None else known

    def _refined(
        self,
        definition: Definition,
        arguments: Mapping[str, Argument],
        types: tuple[ValueType, ...],
    ) -> tuple[ValueType, ...]:
        """Types in which known shapes fill the extents that the program leaves open."""
        if definition.blocks or all(
            not isinstance(kind, TensorType) or _is_fixed(kind) for kind in types
        ):
            return types
        operands: dict[str, Any] = dict.fromkeys(definition.parameters)
        for name, parameter in definition.parameters.items():
            if name in arguments:
                listed = [
                    Operand(kind, self._value_at(arguments[name], index))
                    for index, kind in enumerate(self._types_of(arguments[name]))
                ]
                operands[name] = listed if parameter.many else listed[0]
            elif parameter.default is not None:
                array = np.asarray(parameter.default)
                kind = TensorType(_NAMES.get(array.dtype, "fp32"), array.shape)
                operands[name] = Operand(kind, array)
        try:
            output = definition.rule(Operands(operands))
        except Exception:  # an open type stays open; errors show when the graph runs
            return types
        results = output if isinstance(output, tuple) else (output,)
        return tuple(
            TensorType(kind.dtype, result.shape)
            if isinstance(kind, TensorType) and isinstance(result, TensorType) and result.shape
            else kind
            for kind, result in zip(types, results, strict=False)
        )

    def _value_at(self, argument: Argument, index: int) -> Any:
        name = argument.names[index]
        return argument.constants[index] if name is None else self.e.known(self.values[name])

    # ---- constants ---------------------------------------------------------------------------

    def _decoded(self, message: mil.Value) -> Any:
        return value_of(message, self._weights)

    def _need_constants(
        self, message: mil.Operation, definition: Definition, stored_names: Sequence[str] = ()
    ) -> None:
        """Decompress the constants whose values an operation needs in advance."""
        for name, argument in message.inputs.items():
            parameter = definition.parameters.get(name)
            for binding in argument.arguments:
                maker = self.compressed.get(binding.name)
                known = parameter is not None and parameter.constant and name not in stored_names
                if maker is not None and known:
                    self._whole(binding.name, maker)

    def _whole(self, name: str, message: mil.Operation) -> None:
        if name in self.known:
            return
        definition = definition_of(message.type, self._opset)
        self._need_constants(message, definition)
        arguments = arguments_of(message, definition.parameters, self.known, self._decoded)
        types = tuple(type_of(value.type) for value in message.outputs)
        self._fold(message, definition, arguments, types)

    def _is_known(
        self,
        message: mil.Operation,
        arguments: Mapping[str, Argument],
        types: tuple[ValueType, ...],
    ) -> bool:
        """Whether an operation of small constants, or of a known shape, gives a constant."""
        if message.type in _KEPT or message.type.startswith(("random_", "list_", "make_list")):
            return False
        if message.type == "shape" and arguments["x"].names[0] is not None:
            shape = self.e.shapes.get(self.values[arguments["x"].names[0]])
            if shape is not None and None not in shape:
                self.known[message.outputs[0].name] = np.array(shape, np.int32)
                return True
        small = all(
            np.size(constant) <= _FOLDED_MOST
            for argument in arguments.values()
            for constant in argument.constants
        )
        tensors = all(isinstance(kind, TensorType) and kind.dtype != "string" for kind in types)
        return small and tensors and all(argument.is_constant for argument in arguments.values())

    def _fold(
        self,
        message: mil.Operation,
        definition: Definition,
        arguments: Mapping[str, Argument],
        types: tuple[ValueType, ...],
    ) -> None:
        """The results of an operation of constants, computed by its kernel."""
        if all(value.name in self.known for value in message.outputs):
            return
        entry = KERNELS.find(message.type, self._opset)
        if entry is None:
            raise refuse("there is no kernel for it")
        raw = bool(entry.options.get("raw") or entry.options.get("moves"))
        operands: dict[str, Any] = {
            name: parameter.default for name, parameter in definition.parameters.items()
        }
        for name, argument in arguments.items():
            values = [value if raw else _widened(value) for value in argument.constants]
            operands[name] = values if argument.many else values[0]
        call = KernelCall(message.type, name_of(message), self._opset, types)
        with np.errstate(all="ignore"):
            output = entry.value(call, **operands)
        results = output if isinstance(output, tuple) else (output,)
        for value, kind, result in zip(message.outputs, types, results, strict=False):
            array = np.asarray(result)
            if isinstance(kind, TensorType):
                dtype = DTYPES[kind.dtype].array
                exact = np.dtype(np.float32) if dtype == _HALF and not self._half else dtype
                array = array.astype(exact)
            self.known[value.name] = array

    # ---- operands ----------------------------------------------------------------------------

    def _operands(
        self,
        definition: Definition,
        arguments: Mapping[str, Argument],
        stored_names: Sequence[str],
        *,
        raw: bool,
    ) -> dict[str, Any]:
        operands: dict[str, Any] = {}
        for name, parameter in definition.parameters.items():
            argument = arguments.get(name)
            if argument is None:
                operands[name] = parameter.default
            elif name in stored_names:
                operands[name] = self._operand(argument)[0]
            elif parameter.constant:
                if not argument.is_constant:
                    raise SpecError(f"{name} is computed; it needs a constant")
                values = [value if raw else _widened(value) for value in argument.constants]
                operands[name] = values if parameter.many else values[0]
            else:
                names = self._operand(argument)
                operands[name] = names if parameter.many else names[0]
        return operands

    def _operand(self, argument: Argument) -> list[Any]:
        """The names of values; a state keeps its own."""
        pairs = zip(argument.names, argument.constants, strict=True)
        names = []
        for name, constant in pairs:
            if name is None:
                names.append(self.tensor(constant))
            elif isinstance(self.types.get(name), StateType):
                names.append(name)
            elif name not in self.values:
                raise SpecError(f"nothing before it makes the value {name!r}")
            else:
                names.append(self.values[name])
        return names

    def _types_of(self, argument: Argument) -> tuple[ValueType, ...]:
        pairs = zip(argument.names, argument.constants, strict=True)
        types: list[ValueType] = []
        for name, constant in pairs:
            if name is not None:
                types.append(self.type(name))
                continue
            array = np.asarray(constant) if not isinstance(constant, list | dict) else np.zeros(0)
            types.append(TensorType(_NAMES.get(array.dtype, "string"), array.shape))
        return tuple(types)

    def type(self, name: str) -> ValueType:
        """The type of a value, with everything that is known about its shape."""
        if name not in self.values:
            return self.types[name]
        kind = self.types[name]
        shape = self.e.shapes.get(self.values[name])
        if isinstance(kind, TensorType) and shape is not None:
            return TensorType(kind.dtype, shape)
        return kind

    def _block(self, block: mil.Block) -> Callable[..., list[str]]:
        def write(*arguments: str) -> list[str]:
            layer, known_before = self.e.layer, dict(self.known)
            for value, name in zip(block.inputs, arguments, strict=True):
                kind = type_of(value.type)
                self.values[value.name], self.types[value.name] = name, kind
                known = self.e.shapes.get(name)
                if known is None:
                    self.e.shapes[name] = shape_of(kind)
            try:
                self.run(block.operations)
                outputs = [self.value(name) for name in block.outputs]
            finally:
                self.known = known_before  # a shape in a loop may differ in the next round
            self.e.layer = layer
            return outputs

        return write

    # ---- the end -----------------------------------------------------------------------------

    def output(self, name: str, value: str) -> None:
        """Give a value the name by which it is known outside."""
        self.e.graph.nodes.append(
            Node("Identity", [value], [name], name=self.e.fresh(f"{name}/op"))
        )
        self.e.shapes[name] = self.e.shapes.get(value)

    def finish(self) -> Graph:
        """The graph without what computes nothing.

        Raises:
            UnsupportedOperationsError: ONNX cannot express some operations; all are named.
        """
        self.check()
        return simplified(self.e.graph, self.e.shapes)

    def check(self) -> None:
        """Raise an error that names every operation that cannot be expressed."""
        if not self.refusals:
            return
        first = {str(refusal): refusal for refusal in self.refusals if not refusal.follows}
        refusals = list(first.values())  # the condition of a loop is written twice
        count = len(refusals)
        raise UnsupportedOperationsError(
            paragraph(
                [
                    f"ONNX cannot express {count} operation{'s' if count > 1 else ''}:",
                    *(f"  - {refusal}" for refusal in refusals),
                    'mlferry.MLModel(model, engine="onnxruntime") runs these on NumPy and the '
                    "others with onnxruntime",
                ]
            ),
            [(name_of(r.operation), r.operation.type, r.reason) for r in refusals],
        )


def _widened(value: object) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == _HALF:
        return value.astype(np.float32)
    if isinstance(value, list):
        return [_widened(each) for each in value]
    return value


def _is_fixed(kind: TensorType) -> bool:
    return kind.shape is not None and None not in kind.shape


def is_outside(operation: mil.Operation) -> bool:
    """Whether an operation, or one inside it, draws random values or cannot be part of a graph."""
    block = mil.Block(operations=[operation])
    for inner in operations_of(block):
        entry = EXPORTS.find(inner.type)
        if entry is not None and (entry.options.get("random") or entry.options.get("outside")):
            return True
    return False
