"""Loads TensorFlow models with TensorFlow, as functions whose variables are constants."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

from mlferry import limits
from mlferry.converters.isolated import over_memory
from mlferry.converters.tensorflow import unknown_ops, untrusted
from mlferry.converters.tensorflow.objects import (
    ConcreteFunction,
    GraphDef,
    Model,
    NodeDef,
    SavedModel,
    TensorShapeMessage,
)
from mlferry.converters.types import extents
from mlferry.errors import (
    ConversionError,
    LimitError,
    MissingDependencyError,
    MlferryError,
    ModelFileError,
)
from mlferry.registry import did_you_mean


class Frozen(NamedTuple):
    """A function whose variables are constants.

    Attributes:
        graph: its GraphDef, as bytes.
        inputs: names and shapes of its tensors; a shape is None if the rank is unknown.
        outputs: names of its tensors.
        names: the names of inputs and outputs, see `Names`.
    """

    graph: bytes
    inputs: list[tuple[str, list[int | None] | None]]
    outputs: list[str]
    names: tuple[list[str], list[str]]


SAVED_MODELS = ("saved_model.pb", "saved_model.pbtxt")


TEXT_GRAPH = re.compile(rb"(\s|#[^\n]*\n)*(node|library|versions)\s*:?\s*\{")  # of a GraphDef


_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


_LARGE = 256 << 20  # bytes of variables


DEFAULT_SIGNATURE = "serving_default"


_SILENT = {"NoOp", "Assert", "Placeholder", "Const", "PlaceholderWithDefault"}


_TOO_LARGE = ("Failed to serialize proto", "maximum protobuf size", "larger than 2GB")


_ASSIGNS = re.compile(r"Assign|ResourceApply|ResourceScatter|ResourceStridedSliceAssign|^Scatter")


def is_saved_model(path: Path) -> bool:
    """Whether a path is a SavedModel: its folder, or the message in it."""
    if path.is_dir():
        return any((path / name).exists() for name in SAVED_MODELS)
    return path.name in SAVED_MODELS


def frozen(
    source: object,
    name: str,
    *,
    inputs: Sequence[Any] | None,
    outputs: Sequence[Any] | None,
    signature: str | None,
) -> tuple[Any, Names]:
    """The function of a model, with its variables as constants; arguments are those of `read`."""
    tf = import_tensorflow()
    with as_our_errors(name):
        function, names = _function(tf, source, name, inputs, outputs, signature)
        with _telling_of_states(function, name):
            return constant_function(function), names


def frozen_message(
    path: str,
    name: str,
    *,
    inputs: Sequence[Any] | None,
    outputs: Sequence[Any] | None,
    signature: str | None,
) -> Frozen:
    """The same for a file, as a message; arguments are those of `frozen`.

    Raises:
        LimitError: it is larger than a message of protobuf can be.
    """
    tf = import_tensorflow()
    with as_our_errors(name):
        function, names = _function(tf, path, name, inputs, outputs, signature)
        with _telling_of_states(function, name):
            graph, tensors = _frozen_graph(function)
        shapes = [(t.name, None if t.shape.rank is None else t.shape.as_list()) for t in tensors]
        results = [t.name for t in function.outputs]
        return Frozen(graph.SerializeToString(), shapes, results, names)


def imported(frozen: Frozen, name: str) -> Any:
    """The function in such a message, for the process that reads its operations."""
    tf = import_tensorflow()
    with as_our_errors(name), tf.Graph().as_default() as graph:
        message = tf.compat.v1.GraphDef()
        message.ParseFromString(frozen.graph)
        tf.import_graph_def(message, name="")
        inputs = [graph.get_tensor_by_name(tensor) for tensor, _ in frozen.inputs]
        outputs = [graph.get_tensor_by_name(tensor) for tensor in frozen.outputs]
        for tensor, (_, shape) in zip(inputs, frozen.inputs, strict=True):
            tensor.set_shape(shape)  # scalars lose their shape
    return SimpleNamespace(graph=graph, inputs=inputs, outputs=outputs)


def _function(
    tf: ModuleType,
    source: Any,
    name: str,
    inputs: Sequence[Any] | None,
    outputs: Sequence[Any] | None,
    signature: str | None,
) -> tuple[Any, Names]:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if is_saved_model(path):
            return _from_saved_model(tf, folder_of(path), name, signature)
        return _from_graph(tf, _graph_def(tf, path, name), name, inputs, outputs)
    if type(source).__name__ == "GraphDef":
        return _from_graph(tf, source, name, inputs, outputs)
    return _from_object(tf, source, inputs, signature)


def folder_of(path: Path) -> Path:
    """The folder of a SavedModel, given its path or that of its message."""
    return path if path.is_dir() else path.parent


def _pruned(tf: ModuleType, graph: GraphDef, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The function in a GraphDef between named tensors."""

    def imported() -> None:
        tf.import_graph_def(graph, name="")

    wrapped = tf.compat.v1.wrap_function(imported, [])
    feeds, fetches = (
        [wrapped.graph.get_tensor_by_name(name) for name in names] for names in (inputs, outputs)
    )
    return wrapped.prune(feeds, fetches)


@contextmanager
def _quiet() -> Any:
    """Suppress TensorFlow's log while it loads, unless a level is set."""
    if "tensorflow" in sys.modules or _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = "3"  # read at the first message, which may come later
    with open(os.devnull, "wb") as nothing, ExitStack() as stack:  # noqa: PTH123 # no file of the user's
        with suppress(OSError):  # a process without a standard error
            before = os.dup(2)
            stack.callback(os.close, before)
            stack.callback(os.dup2, before, 2)
            os.dup2(nothing.fileno(), 2)  # some messages are written before the level is read
        yield


def import_tensorflow() -> Any:
    """TensorFlow, loaded quietly.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        with _quiet():
            import tensorflow as tf
    except ImportError as error:
        raise MissingDependencyError(
            "reading TensorFlow models needs TensorFlow: pip install 'mlferry[tensorflow]'"
        ) from error
    return tf


def kind_of(source: object) -> str:
    """The name in messages of a source that is not a file."""
    return "model" if hasattr(source, "get_config") else type(source).__name__


@contextmanager
def as_our_errors(name: str) -> Any:
    """Turn errors of TensorFlow into ones that name the source."""
    try:
        yield
    except MlferryError:
        raise
    except MemoryError as error:
        raise over_memory(name, "TensorFlow") from error
    except Exception as error:
        text = str(error).strip().split("\n")[0][:300]
        if type(error).__name__ == "ResourceExhaustedError":
            raise over_memory(name, "TensorFlow") from error
        if any(sign in text for sign in _TOO_LARGE):
            raise LimitError(
                f"{name} with its weights is larger than the {limits.MODEL_BYTES:,} bytes that a "
                "graph of TensorFlow, and a Core ML model, can have",
                "MODEL_BYTES",
            ) from error
        raise ModelFileError(
            f"{name} cannot be read by TensorFlow: {type(error).__name__}: {text}"
        ) from error


# Names of inputs and of outputs; empty for those of the tensors.
Names = tuple[list[str], list[str]]


def _from_saved_model(
    tf: ModuleType, folder: Path, name: str, signature: str | None
) -> tuple[Any, Names]:
    message = untrusted.check_saved_model(folder, name)
    with unknown_ops.readable(folder, message) as known:
        loaded = tf.saved_model.load(str(known))
    return _signature(loaded, name, signature)


def _signature(loaded: SavedModel, name: str, signature: str | None) -> tuple[Any, Names]:
    known = list(loaded.signatures)
    chosen = signature or (DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in known else None)
    if chosen is None and len(known) == 1:
        chosen = known[0]
    if chosen not in known:
        listed = ", ".join(map(repr, known)) or "none"
        raise ConversionError(
            f"{name} has no signature {chosen or DEFAULT_SIGNATURE!r}; it has {listed}. Name one: "
            "mlferry.convert(..., signature='...')"
        )
    function = loaded.signatures[chosen]
    function._mlferry_owner = loaded  # the variables live as long as the object that holds them
    return function, (_input_keys(function), _keys(function))


def _input_keys(function: ConcreteFunction) -> list[str]:
    """The keys of a signature's inputs, in the order of the tensors."""
    positional, named = function.structured_input_signature
    count = len(function.inputs) - len(function.captured_inputs)
    return sorted(named) if not positional and len(named) == count else []


def _keys(function: ConcreteFunction) -> list[str]:
    """The keys of outputs in a dictionary, in the order of the tensors; empty for others.

    TensorFlow orders tensors by their sorted keys; the dictionary of a loaded signature has
    another order in every process.
    """
    structure = function.structured_outputs
    if not isinstance(structure, Mapping) or len(structure) != len(function.outputs):
        return []
    nested = any(v is None or isinstance(v, Mapping | list | tuple) for v in structure.values())
    return [] if nested else [str(key) for key in sorted(structure)]


def _graph_def(tf: ModuleType, path: Path, name: str) -> Any:
    """The message of a file, binary or text."""
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError

    data = limits.read_message(path)
    graph = tf.compat.v1.GraphDef()
    try:
        if TEXT_GRAPH.match(data[:4096]):
            text_format.Parse(data, graph)
        else:
            graph.ParseFromString(data)
    except (DecodeError, text_format.ParseError, RecursionError, ValueError) as error:
        raise ModelFileError(f"{name} is cut off, damaged, or not a GraphDef: {error}") from error
    if not graph.node:
        raise ModelFileError(f"{name} is not a frozen graph: it has no nodes")
    return graph


def _from_graph(
    tf: ModuleType,
    graph_def: GraphDef,
    name: str,
    inputs: Sequence[Any] | None,
    outputs: Sequence[Any] | None,
) -> tuple[Any, Names]:
    """The function of a frozen graph, from its placeholders or the named inputs to its ends."""
    untrusted.check_graph(graph_def, name)
    nodes = {node.name: node for node in graph_def.node}
    requested = [t.name for t in inputs or () if getattr(t, "name", None)]
    results = [node.name for node in graph_def.node if node.op == "Placeholder"]
    values = [n for n in requested if n is not None] if set(requested) - set(results) else results
    if not values:
        raise ConversionError(_explain_inputs(graph_def, name))
    ends = [getattr(t, "name", t) for t in outputs or ()] or _ends(graph_def)
    for kind, names in (("input", values), ("output", ends)):
        missing = [n for n in names if _node_name(n) not in nodes]
        if missing:
            close = did_you_mean(_node_name(missing[0]), list(nodes))
            raise ConversionError(f"{name} has no node {missing[0]!r} for an {kind}.{close}")
        twice = [n for n, count in Counter(map(with_index, names)).items() if count > 1]
        if twice:
            raise ConversionError(f"{kind} {', '.join(map(repr, twice))} is named twice")
    shapes = {t.name: extents(t.shape) for t in inputs or () if getattr(t, "shape", None)}
    for placeholder in (nodes[n] for n in results if n in shapes):
        placeholder.attr["shape"].shape.CopyFrom(
            tf.TensorShape(shapes[placeholder.name]).as_proto()
        )
    feeds, fetches = ([with_index(n) for n in names] for names in (values, ends))
    function = _pruned(tf, unknown_ops.replaced(graph_def, fetches), feeds, fetches)
    return function, (list(values), list(ends))


_CANDIDATES = ("PlaceholderWithDefault", "Variable", "VariableV2", "VarHandleOp", "Const")


_SHOWN, _FLOAT = 5, 1  # how many candidates to name; a number of TensorFlow's enum DataType


def _explain_inputs(graph_def: GraphDef, name: str) -> str:
    """Advice for a graph without placeholders: the nodes that may have been its inputs."""
    by_op = {op: [n for n in graph_def.node if n.op == op] for op in _CANDIDATES}
    match = next((nodes for nodes in by_op.values() if nodes), list(graph_def.node))
    match = sorted(match, key=_is_unlikely)
    shown = [f"{node.name!r} ({', '.join(_facts_of(node))})" for node in match[:_SHOWN]]
    more = f" and {len(match) - _SHOWN} more" if len(match) > _SHOWN else ""
    shape = _shape_of(match[0])
    example = "(1, ...)" if shape is None else repr(tuple(n or 1 for n in shape))
    return (
        f"{name} has no placeholder, so its inputs are unknown: they may have been "
        f"variables that became constants. It has {', '.join(shown)}{more}. Name the inputs: "
        f"mlferry.convert(..., inputs=[mlferry.TensorType(name={match[0].name!r}, "
        f"shape={example})])"
    )


def _is_unlikely(node: NodeDef) -> tuple[bool, bool]:
    """Whether a node is a single number, and whether it holds integers."""
    kind = node.attr["dtype"].type if "dtype" in node.attr else _FLOAT
    return not _shape_of(node), kind != _FLOAT


def _facts_of(node: NodeDef) -> list[str]:
    shape = _shape_of(node)
    return [node.op] if shape is None else [node.op, f"shape {tuple(shape)}"]


def _shape_of(node: NodeDef) -> list[int | None] | None:
    """The shape in a node's attributes."""
    if "value" in node.attr:
        return extents_of(node.attr["value"].tensor.tensor_shape)
    return extents_of(node.attr["shape"].shape) if "shape" in node.attr else None


def _ends(graph_def: GraphDef) -> list[str]:
    """The nodes that no other node reads."""
    names = {_node_name(name) for node in graph_def.node for name in node.input}
    return [n.name for n in graph_def.node if n.name not in names and n.op not in _SILENT]


def _node_name(name: str) -> str:
    return name.lstrip("^").split(":")[0]


def with_index(name: str) -> str:
    """The name of a tensor, whose index may be omitted."""
    return name if ":" in name else f"{name}:0"


def _from_object(
    tf: ModuleType, source: Any, inputs: Sequence[Any] | None, signature: str | None
) -> tuple[Any, Names]:
    if hasattr(source, "structured_outputs"):  # a concrete function
        return source, ([], _keys(source))
    if hasattr(source, "signatures") and not hasattr(source, "get_config"):
        return _signature(source, "the SavedModel", signature)
    called, names = source, None
    if hasattr(source, "get_config") or not hasattr(source, "get_concrete_function"):
        names = _arguments(source.call if hasattr(source, "call") else source)
        called = tf.function(_inference(source), autograph=False)
    elif source.input_signature is not None:
        function = source.get_concrete_function()
        return function, ([], _keys(function))
    else:
        names = _arguments(source.python_function)
    specs = _specs(tf, source, inputs, names)
    function = called.get_concrete_function(*specs)
    return function, ([], _keys(function))


def _inference(model: Model) -> Callable[..., Any]:
    """A call of a model for inference."""
    takes = "training" in inspect.signature(model.call).parameters

    def call(*arguments: object) -> Any:
        return model(*arguments, training=False) if takes else model(*arguments)

    return call


def _arguments(function: Callable[..., Any]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    result = inspect.signature(function).parameters.values()
    required = [p.name for p in result if p.kind in kinds and p.default is p.empty]
    return [name for name in required if name != "self"]


def _specs(
    tf: ModuleType, source: object, inputs: Sequence[Any] | None, names: Sequence[str]
) -> list[Any]:
    """A `TensorSpec` for each argument, from the user's types."""
    values = list(inputs or ())
    if not values or any(t.shape is None for t in values):
        example = ", ".join(
            f"mlferry.TensorType(name={name!r}, shape=(1, ...))" for name in names or ["x"]
        )
        raise ConversionError(
            f"{kind_of(source)} does not know the shapes of its inputs; give them: "
            f"mlferry.convert(..., inputs=[{example}])"
        )
    by_name = {t.name: t for t in values}
    if set(names) <= set(by_name):
        values = [by_name[name] for name in names]
    return [
        tf.TensorSpec(
            extents(kind.shape),
            getattr(tf, getattr(kind, "dtype", None) or "float32"),
            name=kind.name or (names[index] if index < len(names) else f"input_{index}"),
        )
        for index, kind in enumerate(values)
    ]


def constant_function(function: object) -> Any:
    """The function with its variables as constants, and with the functions it calls inlined."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    with _whole_cases():
        return convert_variables_to_constants_v2(
            function, lower_control_flow=False, aggressive_inlining=True
        )


@contextmanager
def _whole_cases() -> Iterator[None]:
    """Let TensorFlow leave `Case` in one piece, as it leaves `If` and `While`."""
    from tensorflow.python.framework import convert_to_constants

    left: set[str] = getattr(convert_to_constants, "_CONTROL_FLOW_OPS", set())
    added = {"Case", "StatelessCase"} - left
    left |= added
    try:
        yield
    finally:
        left -= added


def _frozen_graph(function: ConcreteFunction) -> tuple[Any, list[Any]]:
    """As `constant_function`, but returns the GraphDef, and the tensors that are its inputs.

    A large graph is not imported again, which would take eight times its size; that is left to the
    process that reads it.
    """
    from tensorflow.python.framework import convert_to_constants

    size = sum(v.shape.num_elements() * v.dtype.size for v in function.graph.variables)
    if size < _LARGE or not hasattr(convert_to_constants, "_replace_variables_by_constants"):
        result = constant_function(function)
        return result.graph.as_graph_def(), result.inputs
    with _whole_cases():
        data = convert_to_constants._FunctionConverterDataInEager(
            func=function, lower_control_flow=False, aggressive_inlining=True
        )
    graph, converted = convert_to_constants._replace_variables_by_constants(converter_data=data)
    variables = {function.graph.internal_captures[place].name for place in converted}
    return graph, [tensor for tensor in function.inputs if tensor.name not in variables]


@contextmanager
def _telling_of_states(function: ConcreteFunction, name: str) -> Any:
    """Explain that a function cannot be frozen because it changes variables."""
    try:
        yield
    except Exception as error:
        assigns = _assigning(function.graph.as_graph_def())
        if not assigns or isinstance(error, MemoryError):
            raise
        listed = ", ".join(f"{op} {node!r}" for op, node in assigns[:5])
        raise ConversionError(
            f"{name} keeps a state between its calls: {listed}. A Core ML network has none: export "
            "a function that takes the state as an input and returns the new one as an output"
        ) from error


def _assigning(graph: GraphDef) -> list[tuple[str, str]]:
    """Op and name of the nodes that change a variable."""
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    return [(node.op, node.name) for nodes in bodies for node in nodes if _ASSIGNS.search(node.op)]


def extents_of(shape: TensorShapeMessage) -> list[int | None] | None:
    """A shape as a list, with None for extents that may vary; None if the rank is unknown."""
    if shape.unknown_rank:
        return None
    return [None if dim.size < 0 else dim.size for dim in shape.dim]
