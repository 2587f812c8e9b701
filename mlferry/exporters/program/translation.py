"""The walk over the layers of a network, each of which becomes operations of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from mlferry.errors import MlferryError
from mlferry.exporters.refusals import Refusal, check_refusals
from mlferry.exporters.walk import Layer, LayerWalk, Special
from mlferry.layers.control.definition import TRUE_ABOVE
from mlferry.layers.definitions import infer
from mlferry.layers.params import Params
from mlferry.layers.programs import PROGRAM_OPS
from mlferry.numerics.shapes import Shape
from mlferry.programs.builder import NewerOpsetError, ProgramBuilder
from mlferry.programs.graph import Block, Value
from mlferry.programs.types import TensorType
from mlferry.refusals import CannotExpressError
from mlferry.spec import networks


class Translation(LayerWalk[Value, Block]):
    """Writes the operations of layers; see `LayerWalk`.

    Args:
        network: the network, which says how arrays map to blobs.
        builder: writes the operations.
        special: the functions that write layers of control flow, by kind.
    """

    functions = PROGRAM_OPS
    passed_on = (CannotExpressError, MlferryError, NewerOpsetError)
    no_function = "there are no ops of ML Programs for this kind"
    doing = "writing {} as a program"

    def __init__(
        self, network: networks.Network, builder: ProgramBuilder, special: Mapping[str, Special]
    ) -> None:
        super().__init__(network, special)
        self.builder = builder
        self._lost: set[str] = set()  # blobs of layers that were refused

    # ---- blobs -------------------------------------------------------------------------------

    def _without_sequence(self, value: Value) -> Value:
        if not self.rank5 or value.tensor.shape is None:
            return value
        if value.rank != 5 or value.shape[0] != 1:
            return value
        squeezed = self.builder.squeeze(value, [0])
        self._cut.add(squeezed)
        return squeezed

    def _with_sequence(self, value: Value) -> Value:
        return self.builder.expand(value, [0]) if value in self._cut else value

    # ---- layers ------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Name the operations from here on after a layer."""
        self.builder.layer = name

    def flag(self, value: bool) -> Value:
        """A constant scalar that is true or false."""
        return self.builder.constant(np.bool_(value))

    def truth(self, blob: str) -> Value:
        """A scalar that says whether a blob of one value is true."""
        builder = self.builder
        value = self.whole(blob)
        if value.dtype == "bool":
            flag = value
        elif value.dtype == "int32":
            flag = builder.op("not_equal", x=value, y=0)
        else:
            flag = builder.op("greater", x=builder.op("abs", x=value), y=np.float32(TRUE_ABOVE))
        return builder.reshape(flag, [])

    def choose(
        self,
        layer: Layer,
        condition: Value,
        bodies: Sequence[Block],
        results: Sequence[list[Value]],
    ) -> Sequence[Value]:
        """Write a `cond`, whose paths get results of the same types."""
        for place, pair in enumerate(zip(*results, strict=True)):
            dtypes = {value.dtype for value in pair}
            mixed = "int32" if "fp32" not in dtypes else "fp32"
            dtype = dtypes.pop() if len(dtypes) == 1 else mixed
            for way, value in enumerate(pair):
                results[way][place] = self.in_block(bodies[way], value, dtype)
        for block, values in zip(bodies, results, strict=True):
            block.outputs = values
        self.start(layer.name)
        return self.builder.ops("cond", pred=condition, blocks=list(bodies))

    def become(self, blob: str, value: Value) -> None:
        """Give a blob a value that has all of its axes."""
        self.values[blob] = self._without_sequence(value)

    def in_block(self, block: Block, value: Value, dtype: str) -> Value:
        """A value as the output of a block: of that type, and made by an operation of the block."""
        own = {output for operation in block.operations for output in operation.outputs}
        with self.builder.within(block):
            if value.dtype != dtype:
                value = self.builder.cast(value, dtype)
                own = {output for operation in block.operations for output in operation.outputs}
            if value not in own or value in block.outputs:
                value = self.builder.op("identity", x=value, folded=False)
        return value

    def _body(self) -> AbstractContextManager[Block]:
        return self.builder.inside()

    def _refuse(self, layer: Layer, error: Exception, live: set[str]) -> None:
        reads, writes = networks.touched(layer)
        self.refusals.append(Refusal(layer, str(error), bool(self._lost & reads)))
        for blob in writes & (live | set(layer.output)):
            self._lost.add(blob)
            self.values.pop(blob, None)

    def _write(
        self, layer: Layer, function: Callable[..., Any], params: Params, x: list[Value]
    ) -> None:
        is_cut = self._are_cut(x)
        results = self._results(layer, partial(function, self.builder, params, *x))
        shapes = infer(params, [value.tensor.shape for value in x])
        for index, blob in enumerate(layer.output):
            value = results[index]
            if shapes is not None and value not in x:
                refine(value, shapes[index])
            if is_cut:
                self._cut.add(value)
            self.values[blob] = value if is_cut else self._without_sequence(value)

    def check(self) -> None:
        """Raise an `UnsupportedLayersError` that names every layer that cannot be expressed."""
        advice = "the neural network itself runs wherever the program would"
        check_refusals(self.refusals, "an ML Program", [advice])


def refine(value: Value, shape: Shape | None) -> None:
    """Add extents to the type of a value which its operation alone does not know."""
    own_shape = value.tensor.shape
    if shape is None or own_shape is None or len(own_shape) != len(shape) or value.is_constant:
        return
    value.type = TensorType(
        value.dtype, tuple(b if a is None else a for a, b in zip(own_shape, shape, strict=True))
    )
