"""TensorFlow graphs to a `Graph`: SavedModels, frozen graphs, functions.

TensorFlow itself loads the model, freezes its variables and inlines its functions; what is read
here are the operations that are left.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from mlferry import limits
from mlferry.converters.graph import Attributes, Graph, Node, Value, distinct_names
from mlferry.converters.tensorflow import frames, freezing, unknown_ops
from mlferry.converters.tensorflow.loading import (
    SAVED_MODELS,
    TEXT_GRAPH,
    Frozen,
    Names,
    as_our_errors,
    constant_function,
    extents_of,
    folder_of,
    frozen,
    import_tensorflow,
    is_saved_model,
    kind_of,
    with_index,
)
from mlferry.converters.tensorflow.objects import (
    AttributeMessage,
    ConcreteFunction,
    FunctionGraph,
    GraphOperation,
    GraphTensor,
    NodeDef,
    TensorMessage,
)
from mlferry.errors import (
    ConversionError,
)
from mlferry.numerics.shapes import Shape

_UNREAD = {
    "container",
    "shared_name",
    "use_cudnn_on_gpu",
    "cudnn_off",
    "_output_shapes",
    "validate_shape",
    "parallel_iterations",
    "allowed_devices",
    "message",
    "incompatible_shape_error",
    "validate_indices",
    "output_shapes",
    "use_locking",
    "debug_name",
}


def claims(source: object) -> bool:
    """Whether a source is for this frontend: by its type, or by what the file or folder holds."""
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return is_saved_model(path) or _looks_like_graph(path)
    if _is_subclassed(source):
        return True
    module = type(source).__module__
    return module.startswith("tensorflow.") and (
        hasattr(source, "get_concrete_function")
        or hasattr(source, "structured_outputs")
        or hasattr(source, "signatures")
        or type(source).__name__ == "GraphDef"
    )


def _looks_like_graph(path: Path) -> bool:
    """A GraphDef starts with a node, field 1, which starts with its name, field 1 as well.

    As text, it starts with one of its fields.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError:
        return False
    if TEXT_GRAPH.match(start):
        return True
    if start[:1] != b"\x0a":
        return False
    index = 1
    while index < len(start) and start[index] & 0x80:
        index += 1
    return start[index + 1 : index + 2] == b"\x0a"


def _is_subclassed(source: object) -> bool:
    """Whether an object is a Keras model that is not a graph of layers."""
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
    name = str(source) if is_file else f"the {kind_of(source)}"
    arguments: dict[str, Any] = {"inputs": inputs, "outputs": outputs, "signature": signature}
    if is_file and limits.current().isolated and importlib.util.find_spec("tensorflow"):
        with _beside(import_tensorflow):  # which takes seconds, here and there
            apart = _frozen_apart(Path(source), name, arguments)
        function, names = _imported(apart, name)
    else:
        function, names = frozen(source, name, **arguments)
    with as_our_errors(name):
        reader = _GraphReader(import_tensorflow(), function, name, names, is_file)
        feature_of, shown = (
            functools.partial(_feature_of, dict(zip(map(with_index, names), result, strict=True)))
            for names, result in (
                (reader.inputs, reader.input_features),
                (reader.outputs, reader.output_features),
            )
        )
        return Read(
            reader.graph(), _renamed(inputs, feature_of), _renamed(outputs, shown), feature_of
        )


def traced(call: Callable[..., Any], inputs: Sequence[tuple[Shape, str]], name: str) -> Graph:
    """What a function computes.

    Args:
        call: takes and gives tensors.
        inputs: shape and type of each; None in a shape varies.
        name: for messages.

    Raises:
        ConversionError: the function branches on values, or cannot be frozen.
        MissingDependencyError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    specs = [tf.TensorSpec(shape, getattr(tf, dtype)) for shape, dtype in inputs]
    with as_our_errors(name):
        try:
            function = tf.function(call, autograph=False).get_concrete_function(*specs)
        except Exception as error:
            line = str(error).strip().partition("\n")[0]
            raise ConversionError(
                f"{name}: its call cannot be traced by TensorFlow: {type(error).__name__}: {line}"
            ) from error
        return _GraphReader(tf, constant_function(function), name, ([], []), is_file=False).graph()


@contextmanager
def _beside(work: Callable[[], Any]) -> Iterator[None]:
    """While another thread works; what it raises shows when it is asked for again."""

    def run() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=run, name="mlferry: import")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _frozen_apart(path: Path, name: str, arguments: dict[str, Any]) -> Frozen:
    if not is_saved_model(path):
        return freezing.frozen(path, path, name, arguments)
    folder = folder_of(path)
    messages = [folder / name for name in SAVED_MODELS]
    message = next(message for message in messages if message.exists())
    limits.check_plain(message)
    return freezing.frozen(folder, message, name, arguments)


def _imported(made: Frozen, name: str) -> tuple[Any, Names]:
    """The function that another process froze."""
    tf = import_tensorflow()
    with as_our_errors(name), tf.Graph().as_default() as graph:
        message = tf.compat.v1.GraphDef()
        message.ParseFromString(made.graph)
        tf.import_graph_def(message, name="")
        inputs = [graph.get_tensor_by_name(tensor) for tensor, _ in made.inputs]
        outputs = [graph.get_tensor_by_name(tensor) for tensor in made.outputs]
        for tensor, (_, shape) in zip(inputs, made.inputs, strict=True):
            tensor.set_shape(shape)  # scalars lose theirs
    return SimpleNamespace(graph=graph, inputs=inputs, outputs=outputs), made.names


# ---- to a function ---------------------------------------------------------------------


# ---- to a graph ------------------------------------------------------------------------


class _GraphReader:
    """Reads the operations of a function.

    Attributes:
        inputs: what the source calls its inputs.
        outputs: what it calls its outputs.
        input_features: the names of the features for them.
        output_features: likewise.
    """

    def __init__(
        self, tf: ModuleType, frozen: ConcreteFunction, source: str, names: Names, is_file: bool
    ) -> None:
        self.tf, self.frozen, self.source, self.is_file = tf, frozen, source, is_file
        self.inputs, self.outputs = (
            list(known) if len(known) == len(tensors) else [tensor_name(t) for t in tensors]
            for known, tensors in zip(names, (frozen.inputs, frozen.outputs), strict=True)
        )
        self.input_features = feature_names(self.inputs)
        self.output_features = feature_names(self.outputs)

    def graph(self) -> Graph:
        tensors, result = self.frozen.inputs, self.frozen.outputs
        bindings = dict(zip([t.name for t in tensors], self.input_features, strict=True))
        naming = Naming(bindings)
        nodes, constants = operations(result, naming, self.source)
        return Graph(
            source=self.source,
            framework="TensorFlow",
            version=2,
            inputs=[naming.value(t) for t in tensors],
            outputs=[
                (name, naming.value(t))
                for name, t in zip(self.output_features, result, strict=True)
            ],
            nodes=nodes,
            release=self.tf.__version__,
            is_file=self.is_file,
            constants=constants,
            functions={("", f.signature.name): f for f in _library(self.frozen.graph)},
        )


def _library(graph: FunctionGraph) -> Sequence[Any]:
    """The functions that operations of a graph call; the message of a graph copies its weights."""
    kinds = {attr.type for op in graph.get_operations() for attr in op.op_def.attr}
    if not kinds & {"func", "list(func)"}:
        return []
    results: Sequence[Any] = graph.as_graph_def().library.function
    return results


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
    result = distinct_names([shown[place] for place in order])
    by_place = dict(zip(order, result, strict=True))
    return [by_place[place] for place in range(len(names))]


def _feature_of(features: Mapping[str, str], name: str) -> str:
    """The feature that a user means: by the source's name, the feature's, or one that is close.

    Args:
        features: by the source's names, as those of tensors.
        name: what the user writes.
    """
    near = name if name in features.values() else shown_name(name)
    return features.get(with_index(name), near)


def _renamed(types: Sequence[Any] | None, feature_of: Callable[[str], str]) -> list[Any] | None:
    """What the user says of inputs or outputs, by the names of features."""
    if types is None:
        return None
    return [
        feature_of(t)
        if isinstance(t, str)
        else replace(t, name=feature_of(t.name))
        if getattr(t, "name", None)
        else t
        for t in types
    ]


class Naming:
    """What the values of a graph of TensorFlow are called.

    Args:
        inputs: names of the tensors that are inputs, by TensorFlow's name.
        prefix: of the names of all values and nodes but these.
    """

    def __init__(self, inputs: Mapping[str, str], prefix: str = "") -> None:
        self.inputs, self.prefix = inputs, prefix
        self._taken = set(inputs.values())

    def is_input(self, tensor: GraphTensor) -> bool:
        """Whether a tensor is an input."""
        return tensor.name in self.inputs

    def name(self, tensor: GraphTensor) -> str:
        """The name of the value that a tensor is."""
        if tensor.name in self.inputs:
            return self.inputs[tensor.name]
        result = f"{self.prefix}{tensor_name(tensor)}"
        return f"{result}:0" if result in self._taken else result  # no feature has a colon

    def value(self, tensor: GraphTensor) -> Value:
        """A tensor as a `Value`."""
        shape = tensor.shape
        known = None if shape.rank is None else tuple(shape.as_list())
        return Value(self.name(tensor), known, tensor.dtype.base_dtype.name)


def tensor_name(tensor: GraphTensor) -> str:
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


def _bytes(tf: ModuleType, tensor: TensorMessage) -> int:
    """What the values of a TensorProto take, of which one may stand for all."""
    count: int = math.prod(dim.size for dim in tensor.tensor_shape.dim)
    return max(0, count) * int(tf.as_dtype(tensor.dtype).size or 1)


def node(op: GraphOperation, naming: Naming) -> Node:
    """An operation with its attributes as Python values."""
    unknown = unknown_ops.original(op)
    kind = op.type if unknown is None else unknown.op
    result = attributes(op) if unknown is None else _attributes_of_message(unknown)
    return Node(
        op=kind,
        name=naming.prefix + op.name,
        inputs=tuple(map(naming.value, op.inputs)),
        outputs=tuple(map(naming.value, op.outputs)),
        attrs=Attributes(result),
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


def attributes(op: GraphOperation) -> dict[str, Any]:
    """The attributes of an operation, but for types and what only matters to TensorFlow."""
    return {
        item.name: _plain(op.get_attr(item.name))
        for item in op.op_def.attr
        if _matters(item.name) and "type" not in item.type
    }


def _matters(name: str) -> bool:
    return not name.startswith("_") and name not in _UNREAD


def _attributes_of_message(node: NodeDef) -> dict[str, Any]:
    """The same of an op that TensorFlow does not know."""
    return {
        name: _plain(_value(node.attr[name]))
        for name in sorted(node.attr)
        if _matters(name) and not node.attr[name].type and not node.attr[name].list.type
    }


def _value(attr: AttributeMessage) -> Any:
    """What an AttrValue holds."""
    kind = attr.WhichOneof("value")
    if kind != "list":
        return None if kind is None else getattr(attr, kind)
    return next((list(items) for _, items in attr.list.ListFields()), [])


def _plain(given: object) -> Any:
    if isinstance(given, bytes):
        return given.decode("utf-8", "replace")
    if isinstance(given, list | tuple):
        return [_plain(item) for item in given]
    read = _MESSAGES.get(type(given).__name__)
    return given if read is None else read(given)


def _array(tensor: object) -> Any:
    import tensorflow as tf

    return tf.make_ndarray(tensor)


_MESSAGES: dict[str, Callable[[Any], Any]] = {
    "NameAttrList": lambda given: given.name,
    "TensorShapeProto": extents_of,
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
