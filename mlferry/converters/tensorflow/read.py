"""TensorFlow graphs to a `Graph`: SavedModels, frozen graphs, functions.

TensorFlow itself loads the model, freezes its variables and inlines its functions; what is read
here are the operations that are left.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mlferry import limits
from mlferry.converters.graph import Attributes, Graph, Node, Value, distinct_names
from mlferry.converters.isolated import over_memory
from mlferry.converters.tensorflow import frames, freezing, unknown_ops, untrusted
from mlferry.converters.types import EnumeratedShapes, RangeDim
from mlferry.errors import (
    ConversionError,
    LimitError,
    MissingDependencyError,
    MlferryError,
    ModelFileError,
)
from mlferry.numerics.shapes import Shape
from mlferry.registry import did_you_mean

_SAVED_MODELS = ("saved_model.pb", "saved_model.pbtxt")
_TEXT = re.compile(rb"(\s|#[^\n]*\n)*(node|library|versions)\s*:?\s*\{")  # of a GraphDef
_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_LARGE = 256 << 20  # bytes of variables
DEFAULT_SIGNATURE = "serving_default"
_SILENT = {"NoOp", "Assert", "Placeholder", "Const", "PlaceholderWithDefault"}
_TOO_LARGE = ("Failed to serialize proto", "maximum protobuf size", "larger than 2GB")
_ASSIGNS = re.compile(r"Assign|ResourceApply|ResourceScatter|ResourceStridedSliceAssign|^Scatter")
_UNREAD = {
    "container", "shared_name", "use_cudnn_on_gpu", "cudnn_off", "_output_shapes", "validate_shape",
    "parallel_iterations", "allowed_devices", "message", "incompatible_shape_error",
    "validate_indices", "output_shapes", "use_locking", "debug_name",
}  # fmt: skip


def claims(source: Any) -> bool:
    """Whether a source is for this frontend: by its type, or by what the file or folder holds."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return _is_saved_model(path) or _looks_like_graph(path)
    if _is_subclassed(source):
        return True
    module = type(source).__module__
    return module.startswith("tensorflow.") and (
        hasattr(source, "get_concrete_function")
        or hasattr(source, "structured_outputs")
        or hasattr(source, "signatures")
        or type(source).__name__ == "GraphDef"
    )


def _is_saved_model(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).exists() for name in _SAVED_MODELS)
    return path.name in _SAVED_MODELS


def _looks_like_graph(path: Path) -> bool:
    """A GraphDef starts with a node, field 1, which starts with its name, field 1 as well.

    As text, it starts with one of its fields.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError:
        return False
    if _TEXT.match(start):
        return True
    if start[:1] != b"\x0a":
        return False
    index = 1
    while index < len(start) and start[index] & 0x80:
        index += 1
    return start[index + 1 : index + 2] == b"\x0a"


def _is_subclassed(source: Any) -> bool:
    """Whether an object is a Keras model that is no graph of layers."""
    names = [cls.__name__ for cls in type(source).__mro__]
    modules = {cls.__module__.split(".")[0] for cls in type(source).__mro__}
    return (
        "Model" in names
        and not {"Functional", "Sequential"} & set(names)
        and bool(modules & {"keras", "tf_keras", "tensorflow"})
    )


@dataclass(frozen=True)
class Read:
    """A model, and what the user says of it by the names of features.

    Attributes:
        graph: the model.
        inputs: the types that the user gives, each with the name of an input of the graph.
        outputs: the outputs wanted, likewise.
        input_feature: what the graph calls an input that the user names.
    """

    graph: Graph
    inputs: list[Any] | None
    outputs: list[Any] | None
    input_feature: Callable[[str], str]


def read(
    source: Any,
    *,
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    signature: str | None = None,
) -> Read:
    """A TensorFlow model as a graph.

    Args:
        source: folder of a SavedModel, path or message of a frozen GraphDef, `tf.function`,
            concrete function, loaded SavedModel, or subclassed Keras model.
        inputs: the types that the user gives; names of a frozen graph, shapes of a function.
        outputs: the outputs wanted; names of a frozen graph.
        signature: of a SavedModel.

    Raises:
        ModelFileError: the file is damaged, or no model of TensorFlow.
        ConversionError: inputs, outputs or a signature that do not exist; a function without
            shapes.
        MissingDependencyError: TensorFlow is not installed.
    """
    is_file = isinstance(source, str | os.PathLike)
    name = str(source) if is_file else f"the {_kind(source)}"
    arguments: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "signature": signature}
    if is_file and limits.current().isolated and importlib.util.find_spec("tensorflow"):
        function, names = _imported(_frozen_apart(Path(source), name, arguments), name)
    else:
        function, names = frozen(source, name, **arguments)
    with _as_our_errors(name):
        reader = _Reader(_tensorflow(), function, name, names, is_file)
        feature_of, shown = (
            functools.partial(_feature_of, dict(zip(map(_tensor_name, names), found, strict=True)))
            for names, found in (
                (reader.inputs, reader.input_features), (reader.outputs, reader.output_features)
            )
        )  # fmt: skip
        return Read(
            reader.graph(), _renamed(inputs, feature_of), _renamed(outputs, shown), feature_of
        )


def traced(call: Any, inputs: Sequence[tuple[Shape, str]], name: str) -> Graph:
    """What a function computes.

    Args:
        call: takes and gives tensors.
        inputs: shape and type of each; None in a shape varies.
        name: for messages.

    Raises:
        ConversionError: the function branches on values, or cannot be frozen.
        MissingDependencyError: TensorFlow is not installed.
    """
    tf = _tensorflow()
    specs = [tf.TensorSpec(shape, getattr(tf, dtype)) for shape, dtype in inputs]
    with _as_our_errors(name):
        try:
            function = tf.function(call, autograph=False).get_concrete_function(*specs)
        except Exception as error:
            line = str(error).strip().partition("\n")[0]
            raise ConversionError(
                f"{name}: its call cannot be traced by TensorFlow: {type(error).__name__}: {line}"
            ) from error
        return _Reader(tf, _frozen(function), name, ([], []), is_file=False).graph()


def frozen(
    source: Any, name: str, *, inputs: Sequence[Any] | None, outputs: Sequence[Any] | None,
    signature: str | None,
) -> tuple[Any, Names]:  # fmt: skip
    """The function of a model, with its variables as constants; arguments are those of `read`."""
    tf = _tensorflow()
    with _as_our_errors(name):
        function, names = _function(tf, source, name, inputs, outputs, signature)
        with _telling_of_states(function, name):
            return _frozen(function), names


def frozen_message(path: str, name: str, **arguments: Any) -> freezing.Frozen:
    """The same of a file, as a message for another process; arguments are those of `frozen`.

    Raises:
        LimitError: it is larger than a message of protobuf can be.
    """
    tf = _tensorflow()
    with _as_our_errors(name):
        function, names = _function(tf, path, name, **arguments)
        with _telling_of_states(function, name):
            graph, inputs = _frozen_graph(function)
        shapes = [(t.name, None if t.shape.rank is None else t.shape.as_list()) for t in inputs]
        outputs = [t.name for t in function.outputs]
        return freezing.Frozen(graph.SerializeToString(), shapes, outputs, names)


def _function(
    tf: Any, source: Any, name: str, inputs: Sequence[Any] | None, outputs: Sequence[Any] | None,
    signature: str | None,
) -> tuple[Any, Names]:  # fmt: skip
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if _is_saved_model(path):
            return _from_saved_model(tf, _folder(path), name, signature)
        return _from_graph(tf, _graph_def(tf, path, name), name, inputs, outputs)
    if type(source).__name__ == "GraphDef":
        return _from_graph(tf, source, name, inputs, outputs)
    return _from_object(tf, source, inputs, signature)


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _frozen_apart(path: Path, name: str, arguments: dict[str, Any]) -> freezing.Frozen:
    if not _is_saved_model(path):
        return freezing.frozen(path, path, name, arguments)
    folder = _folder(path)
    messages = [folder / name for name in _SAVED_MODELS]
    message = next(message for message in messages if message.exists())
    limits.check_plain(message)
    return freezing.frozen(folder, message, name, arguments)


def _imported(made: freezing.Frozen, name: str) -> tuple[Any, Names]:
    """The function that another process froze."""
    tf = _tensorflow()
    with _as_our_errors(name), tf.Graph().as_default() as graph:
        message = tf.compat.v1.GraphDef()
        message.ParseFromString(made.graph)
        tf.import_graph_def(message, name="")
        inputs = [graph.get_tensor_by_name(tensor) for tensor, _ in made.inputs]
        outputs = [graph.get_tensor_by_name(tensor) for tensor in made.outputs]
        for tensor, (_, shape) in zip(inputs, made.inputs, strict=True):
            tensor.set_shape(shape)  # scalars lose theirs
    return SimpleNamespace(graph=graph, inputs=inputs, outputs=outputs), made.names


def _pruned(tf: Any, graph: Any, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    """The function of a GraphDef from some tensors to others, by name."""

    def imported() -> None:
        tf.import_graph_def(graph, name="")

    wrapped = tf.compat.v1.wrap_function(imported, [])
    feeds, fetches = (
        [wrapped.graph.get_tensor_by_name(name) for name in names] for names in (inputs, outputs)
    )
    return wrapped.prune(feeds, fetches)


@contextmanager
def _quiet() -> Any:
    """While TensorFlow is loaded: its log goes nowhere, unless somebody has chosen a level."""
    if "tensorflow" in sys.modules or _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = "3"  # read when the first message comes, which may be later
    with open(os.devnull, "wb") as nothing, ExitStack() as stack:  # noqa: PTH123 # no file of the user's
        with suppress(OSError):  # a process without a standard error
            before = os.dup(2)
            stack.callback(os.close, before)
            stack.callback(os.dup2, before, 2)
            os.dup2(nothing.fileno(), 2)  # some of it is written before the level is read
        yield


def _tensorflow() -> Any:
    try:
        with _quiet():
            import tensorflow as tf
    except ImportError as error:
        raise MissingDependencyError(
            "reading TensorFlow models needs TensorFlow: pip install 'mlferry[tensorflow]'"
        ) from error
    return tf


def _kind(source: Any) -> str:
    return "model" if hasattr(source, "get_config") else type(source).__name__


@contextmanager
def _as_our_errors(name: str) -> Any:
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
                "graph of TensorFlow, and a Core ML model, can have", "MODEL_BYTES",
            ) from error  # fmt: skip
        raise ModelFileError(
            f"{name} cannot be read by TensorFlow: {type(error).__name__}: {text}"
        ) from error


# ---- to a function ---------------------------------------------------------------------

Names = tuple[list[str], list[str]]  # of inputs and of outputs; none for those of the tensors


def _from_saved_model(tf: Any, folder: Path, name: str, signature: str | None) -> tuple[Any, Names]:
    message = untrusted.check_saved_model(folder, name)
    with unknown_ops.readable(folder, message) as known:
        loaded = tf.saved_model.load(str(known))
    return _signature(loaded, name, signature)


def _signature(loaded: Any, name: str, signature: str | None) -> tuple[Any, Names]:
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
    function._mlferry_owner = loaded  # the variables live as long as what holds them
    return function, (_input_keys(function), _keys(function))


def _input_keys(function: Any) -> list[str]:
    """The keys of a signature's inputs, in the order of the tensors."""
    positional, named = function.structured_input_signature
    count = len(function.inputs) - len(function.captured_inputs)
    return sorted(named) if not positional and len(named) == count else []


def _keys(function: Any) -> list[str]:
    """The keys of outputs in a dictionary, in the order of the tensors; nothing for others.

    TensorFlow orders tensors by their sorted keys; the dictionary of a loaded signature has
    another order in every process.
    """
    structure = function.structured_outputs
    if not isinstance(structure, Mapping) or len(structure) != len(function.outputs):
        return []
    nested = any(v is None or isinstance(v, Mapping | list | tuple) for v in structure.values())
    return [] if nested else [str(key) for key in sorted(structure)]


def _graph_def(tf: Any, path: Path, name: str) -> Any:
    """The message of a file, binary or text."""
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError

    data = limits.read_message(path)
    graph = tf.compat.v1.GraphDef()
    try:
        if _TEXT.match(data[:4096]):
            text_format.Parse(data, graph)
        else:
            graph.ParseFromString(data)
    except (DecodeError, text_format.ParseError, RecursionError, ValueError) as error:
        raise ModelFileError(f"{name} is cut off, damaged, or no GraphDef: {error}") from error
    if not graph.node:
        raise ModelFileError(f"{name} is no frozen graph: it has no nodes")
    return graph


def _from_graph(
    tf: Any, graph_def: Any, name: str, inputs: Sequence[Any] | None, outputs: Sequence[Any] | None
) -> tuple[Any, Names]:
    """A function of a frozen graph, from its placeholders, or what is named, to its ends."""
    untrusted.check_graph(graph_def, name)
    nodes = {node.name: node for node in graph_def.node}
    wanted = [t.name for t in inputs or () if getattr(t, "name", None)]
    found = [node.name for node in graph_def.node if node.op == "Placeholder"]
    given = [n for n in wanted if n is not None] if set(wanted) - set(found) else found
    if not given:
        raise ConversionError(_explain_inputs(graph_def, name))
    ends = [getattr(t, "name", t) for t in outputs or ()] or _ends(graph_def)
    for kind, names in (("input", given), ("output", ends)):
        missing = [n for n in names if _node_name(n) not in nodes]
        if missing:
            close = did_you_mean(_node_name(missing[0]), list(nodes))
            raise ConversionError(f"{name} has no node {missing[0]!r} for an {kind}.{close}")
        twice = [n for n, count in Counter(map(_tensor_name, names)).items() if count > 1]
        if twice:
            raise ConversionError(f"{kind} {', '.join(map(repr, twice))} is named twice")
    shapes = {t.name: _fixed(t.shape) for t in inputs or () if getattr(t, "shape", None)}
    for placeholder in (nodes[n] for n in found if n in shapes):
        placeholder.attr["shape"].shape.CopyFrom(
            tf.TensorShape(shapes[placeholder.name]).as_proto()
        )
    feeds, fetches = ([_tensor_name(n) for n in names] for names in (given, ends))
    function = _pruned(tf, unknown_ops.replaced(graph_def, fetches), feeds, fetches)
    return function, (list(given), list(ends))


_CANDIDATES = ("PlaceholderWithDefault", "Variable", "VariableV2", "VarHandleOp", "Const")
_SHOWN, _FLOAT = 5, 1  # of the candidates; of TensorFlow's enum DataType


def _explain_inputs(graph_def: Any, name: str) -> str:
    """What to do about a graph without placeholders: which nodes may have been its inputs."""
    by_op = {op: [n for n in graph_def.node if n.op == op] for op in _CANDIDATES}
    found = next((nodes for nodes in by_op.values() if nodes), list(graph_def.node))
    found = sorted(found, key=_is_unlikely)
    shown = [f"{node.name!r} ({', '.join(_told_of(node))})" for node in found[:_SHOWN]]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    shape = _shape_of(found[0])
    example = "(1, ...)" if shape is None else repr(tuple(n or 1 for n in shape))
    return (
        f"{name} has no placeholder, so that nothing tells its inputs: they may have been "
        f"variables, which became constants. It has {', '.join(shown)}{more}. Name the inputs: "
        f"mlferry.convert(..., inputs=[mlferry.TensorType(name={found[0].name!r}, "
        f"shape={example})])"
    )


def _is_unlikely(node: Any) -> tuple[bool, bool]:
    """Whether a node is a single number, and whether it holds integers."""
    kind = node.attr["dtype"].type if "dtype" in node.attr else _FLOAT
    return not _shape_of(node), kind != _FLOAT


def _told_of(node: Any) -> list[str]:
    shape = _shape_of(node)
    return [node.op] if shape is None else [node.op, f"shape {tuple(shape)}"]


def _shape_of(node: Any) -> list[int | None] | None:
    """The shape that a node's attributes tell."""
    if "value" in node.attr:
        return _extents(node.attr["value"].tensor.tensor_shape)
    return _extents(node.attr["shape"].shape) if "shape" in node.attr else None


def _ends(graph_def: Any) -> list[str]:
    """The nodes that none reads."""
    read = {_node_name(name) for node in graph_def.node for name in node.input}
    return [n.name for n in graph_def.node if n.name not in read and n.op not in _SILENT]


def _node_name(name: str) -> str:
    return name.lstrip("^").split(":")[0]


def _tensor_name(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _from_object(
    tf: Any, source: Any, inputs: Sequence[Any] | None, signature: str | None
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


def _inference(model: Any) -> Any:
    """A call of a model that is not training."""
    takes = "training" in inspect.signature(model.call).parameters

    def call(*arguments: Any) -> Any:
        return model(*arguments, training=False) if takes else model(*arguments)

    return call


def _arguments(function: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    required = [p.name for p in found if p.kind in kinds and p.default is p.empty]
    return [name for name in required if name != "self"]


def _specs(tf: Any, source: Any, inputs: Sequence[Any] | None, names: Sequence[str]) -> list[Any]:
    """A `TensorSpec` an argument, from what the user gives."""
    given = list(inputs or ())
    if not given or any(t.shape is None for t in given):
        example = ", ".join(
            f"mlferry.TensorType(name={name!r}, shape=(1, ...))" for name in names or ["x"]
        )
        raise ConversionError(
            f"{_kind(source)} does not tell the shapes of its inputs; give them: "
            f"mlferry.convert(..., inputs=[{example}])"
        )
    by_name = {t.name: t for t in given}
    if set(names) <= set(by_name):
        given = [by_name[name] for name in names]
    return [
        tf.TensorSpec(
            _fixed(kind.shape),
            getattr(tf, getattr(kind, "dtype", None) or "float32"),
            name=kind.name or (names[index] if index < len(names) else f"input_{index}"),
        )
        for index, kind in enumerate(given)
    ]


def _fixed(shape: Any) -> list[int | None]:
    """A shape for TensorFlow: what may vary is None."""
    if isinstance(shape, EnumeratedShapes):
        columns = zip(*shape.ordered(), strict=True)
        return [column[0] if len(set(column)) == 1 else None for column in columns]
    return [None if isinstance(n, RangeDim) else n for n in shape]


def _frozen(function: Any) -> Any:
    """The function with its variables as constants, and the functions that it calls inlined."""
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    return convert_variables_to_constants_v2(
        function, lower_control_flow=False, aggressive_inlining=True
    )


def _frozen_graph(function: Any) -> tuple[Any, list[Any]]:
    """As `_frozen`: the GraphDef, and the tensors of the function that are its inputs.

    A large graph is not imported once more, which takes eight times its size: that is left to the
    process that reads it.
    """
    from tensorflow.python.framework import convert_to_constants

    size = sum(v.shape.num_elements() * v.dtype.size for v in function.graph.variables)
    if size < _LARGE or not hasattr(convert_to_constants, "_replace_variables_by_constants"):
        made = _frozen(function)
        return made.graph.as_graph_def(), made.inputs
    data = convert_to_constants._FunctionConverterDataInEager(
        func=function, lower_control_flow=False, aggressive_inlining=True
    )
    graph, converted = convert_to_constants._replace_variables_by_constants(converter_data=data)
    variables = {function.graph.internal_captures[place].name for place in converted}
    return graph, [tensor for tensor in function.inputs if tensor.name not in variables]


@contextmanager
def _telling_of_states(function: Any, name: str) -> Any:
    """Say so where a function cannot be frozen because it changes variables."""
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


def _assigning(graph: Any) -> list[tuple[str, str]]:
    """Op and name of the nodes that change a variable."""
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    return [(node.op, node.name) for nodes in bodies for node in nodes if _ASSIGNS.search(node.op)]


# ---- to a graph ------------------------------------------------------------------------


class _Reader:
    """Reads the operations of a function.

    Attributes:
        inputs: what the source calls its inputs.
        outputs: what it calls its outputs.
        input_features: the names of the features for them.
        output_features: likewise.
    """

    def __init__(self, tf: Any, frozen: Any, source: str, names: Names, is_file: bool) -> None:
        self.tf, self.frozen, self.source, self.is_file = tf, frozen, source, is_file
        self.inputs, self.outputs = (
            list(known) if len(known) == len(tensors) else [tensor_name(t) for t in tensors]
            for known, tensors in zip(names, (frozen.inputs, frozen.outputs), strict=True)
        )
        self.input_features = feature_names(self.inputs)
        self.output_features = feature_names(self.outputs)

    def graph(self) -> Graph:
        tensors, made = self.frozen.inputs, self.frozen.outputs
        given = dict(zip([t.name for t in tensors], self.input_features, strict=True))
        naming = Naming(given)
        nodes, constants = operations(made, naming, self.source)
        return Graph(
            source=self.source,
            framework="TensorFlow",
            version=2,
            inputs=[naming.value(t) for t in tensors],
            outputs=[
                (name, naming.value(t)) for name, t in zip(self.output_features, made, strict=True)
            ],
            nodes=nodes,
            release=self.tf.__version__,
            is_file=self.is_file,
            constants=constants,
            functions={("", f.signature.name): f for f in _library(self.frozen.graph)},
        )


def _library(graph: Any) -> Sequence[Any]:
    """The functions that operations of a graph call; the message of a graph copies its weights."""
    kinds = {attr.type for op in graph.get_operations() for attr in op.op_def.attr}
    if not kinds & {"func", "list(func)"}:
        return []
    found: Sequence[Any] = graph.as_graph_def().library.function
    return found


def shown_name(name: str) -> str:
    """A name as that of a feature: no slash, no colon."""
    plain = re.sub(r"^(serving_default_|import/)|:0$", "", name)
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", plain)


def feature_names(names: Sequence[str]) -> list[str]:
    """A feature's name for each name of the source, no two the same.

    What can be the name of a feature as it is stays so, whatever the others are called.
    """
    shown = [shown_name(name) for name in names]
    order = sorted(range(len(names)), key=lambda place: shown[place] != names[place])
    made = distinct_names([shown[place] for place in order])
    by_place = dict(zip(order, made, strict=True))
    return [by_place[place] for place in range(len(names))]


def _feature_of(features: Mapping[str, str], name: str) -> str:
    """The feature that a user means: by the source's name, the feature's, or one that is close.

    Args:
        features: by the source's names, as those of tensors.
        name: what the user writes.
    """
    near = name if name in features.values() else shown_name(name)
    return features.get(_tensor_name(name), near)


def _renamed(types: Sequence[Any] | None, feature_of: Callable[[str], str]) -> list[Any] | None:
    """What the user says of inputs or outputs, by the names of features."""
    if types is None:
        return None
    return [
        feature_of(t) if isinstance(t, str)
        else replace(t, name=feature_of(t.name)) if getattr(t, "name", None) else t
        for t in types
    ]  # fmt: skip


class Naming:
    """What the values of a graph of TensorFlow are called.

    Args:
        inputs: names of the tensors that are inputs, by TensorFlow's name.
        prefix: of the names of all values and nodes but these.
    """

    def __init__(self, inputs: Mapping[str, str], prefix: str = "") -> None:
        self.inputs, self.prefix = inputs, prefix
        self._taken = set(inputs.values())

    def is_input(self, tensor: Any) -> bool:
        """Whether a tensor is an input."""
        return tensor.name in self.inputs

    def name(self, tensor: Any) -> str:
        """The name of the value that a tensor is."""
        if tensor.name in self.inputs:
            return self.inputs[tensor.name]
        found = f"{self.prefix}{tensor_name(tensor)}"
        return f"{found}:0" if found in self._taken else found  # no feature has a colon

    def value(self, tensor: Any) -> Value:
        """A tensor as a `Value`."""
        shape = tensor.shape
        known = None if shape.rank is None else tuple(shape.as_list())
        return Value(self.name(tensor), known, tensor.dtype.base_dtype.name)


def tensor_name(tensor: Any) -> str:
    """The name of a value: its operation's, with the number of the output where it is not 0."""
    name, _, index = tensor.name.rpartition(":")
    return name if index == "0" else f"{name}:{index}"


def operations(
    outputs: Iterable[Any], naming: Naming, source: str
) -> tuple[list[Node], dict[str, Any]]:
    """The nodes that some tensors need, in order, and the constants by name.

    Args:
        outputs: the tensors.
        naming: the inputs, and what all values are called.
        source: for messages.
    """
    import tensorflow as tf

    nodes: list[Node] = []
    constants: dict[str, Any] = {}
    done: set[str] = set()
    size = 0
    legacy = frames.Frames(source)
    stack = [(t.op, False) for t in outputs if not naming.is_input(t)][::-1]
    while stack:
        op, ready = stack.pop()
        whole = legacy.whole(op)
        step = op if whole is None else whole
        if step.name in done:
            continue
        if not ready:
            stack.append((op, True))
            stack += [
                (t.op, False)
                for t in reversed(step.inputs)
                if not naming.is_input(t) and t.op.name not in done
            ]
            continue
        done.add(step.name)
        if whole is not None:
            nodes.append(_node_of_whole(whole, naming))
        elif op.type == "Const":
            message = op.get_attr("value")
            size += _bytes(tf, message)
            limits.check("weights", size, f"{source}: its constants take bytes:")
            constants[naming.name(op.outputs[0])] = tf.make_ndarray(message)
        elif op.type == "Placeholder":
            raise ConversionError(f"{source}: nothing gives a value to the placeholder {op.name!r}")
        else:
            nodes.append(node(op, naming))
    return nodes, constants


def _bytes(tf: Any, tensor: Any) -> int:
    """What the values of a TensorProto take, of which one may stand for all."""
    count: int = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    return max(0, count) * int(tf.as_dtype(tensor.dtype).size or 1)


def node(op: Any, naming: Naming) -> Node:
    """An operation with its attributes as Python values."""
    unknown = unknown_ops.original(op)
    kind = op.type if unknown is None else unknown.op
    found = attributes(op) if unknown is None else _attributes_of_message(unknown)
    return Node(
        op=kind,
        name=naming.prefix + op.name,
        inputs=tuple(map(naming.value, op.inputs)),
        outputs=tuple(map(naming.value, op.outputs)),
        attrs=Attributes(found),
        keys=(op.name, kind),
        proto=op if unknown is None else unknown,
    )


def _node_of_whole(whole: frames.Whole, naming: Naming) -> Node:
    """A condition or a loop of TensorFlow 1, as one of TensorFlow 2."""
    nothing = Value("", None, "")
    return Node(
        op=whole.op,
        name=naming.prefix + whole.name,
        inputs=tuple(map(naming.value, whole.inputs)),
        outputs=tuple(nothing if t is None else naming.value(t) for t in whole.outputs),
        attrs=Attributes(whole.parts),
        keys=(whole.name, whole.op),
    )


def attributes(op: Any) -> dict[str, Any]:
    """The attributes of an operation, but for types and what only matters to TensorFlow."""
    return {
        item.name: _plain(op.get_attr(item.name))
        for item in op.op_def.attr
        if _matters(item.name) and "type" not in item.type
    }


def _matters(name: str) -> bool:
    return not name.startswith("_") and name not in _UNREAD


def _attributes_of_message(node: Any) -> dict[str, Any]:
    """The same of an op that TensorFlow does not know."""
    return {
        name: _plain(_value(node.attr[name]))
        for name in sorted(node.attr)
        if _matters(name) and not node.attr[name].type and not node.attr[name].list.type
    }


def _value(attr: Any) -> Any:
    """What an AttrValue holds."""
    kind = attr.WhichOneof("value")
    if kind != "list":
        return None if kind is None else getattr(attr, kind)
    return next((list(items) for _, items in attr.list.ListFields()), [])


def _plain(given: Any) -> Any:
    if isinstance(given, bytes):
        return given.decode("utf-8", "replace")
    if isinstance(given, list | tuple):
        return [_plain(item) for item in given]
    read = _MESSAGES.get(type(given).__name__)
    return given if read is None else read(given)


def _extents(shape: Any) -> list[int | None] | None:
    """A shape as a list, with None for what may vary; None where the rank is unknown."""
    if shape.unknown_rank:
        return None
    return [None if dim.size < 0 else dim.size for dim in shape.dim]


def _array(tensor: Any) -> Any:
    import tensorflow as tf

    return tf.make_ndarray(tensor)


_MESSAGES: dict[str, Callable[[Any], Any]] = {
    "NameAttrList": lambda given: given.name,
    "TensorShapeProto": _extents,
    "TensorProto": _array,
}


def body(graph: Graph, name: str) -> Any:
    """A function of the model, as TensorFlow's own graph.

    Raises:
        ConversionError: the model has no such function.
    """
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    key = ("", name)
    if key not in graph.functions:
        raise ConversionError(f"{graph.source} has no function {name!r}")
    return function_def_to_graph(graph.functions[key])
