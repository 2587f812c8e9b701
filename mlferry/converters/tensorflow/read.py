"""Reads TensorFlow graphs as a `Graph`: SavedModels, frozen graphs, functions.

TensorFlow itself loads the model, freezes its variables and inlines its functions; the remaining
operations are read here.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from mlferry import limits
from mlferry.converters.graph import Graph, Node, distinct_names
from mlferry.converters.tensorflow import apart
from mlferry.converters.tensorflow.loading import (
    SAVED_MODELS,
    TEXT_GRAPH,
    Names,
    as_our_errors,
    constant_function,
    folder_of,
    frozen,
    import_tensorflow,
    is_saved_model,
    kind_of,
    with_index,
)
from mlferry.converters.tensorflow.objects import FrozenFunction, FunctionGraph
from mlferry.converters.tensorflow.operations import Naming, body_of, operations, tensor_name
from mlferry.converters.tensorflow.subgraphs import FeatureNames, Subgraph
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Shape


def claims(source: object) -> bool:
    """Whether a source belongs to this frontend, by its type or by the content of its files."""
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

    In text form it starts with one of its fields.
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
    """A model, with the user's types and outputs by the names of features.

    Attributes:
        graph: the model.
        inputs: the types that the user gives, each with the name of an input of the graph.
        outputs: the outputs wanted, likewise.
        input_feature: returns the graph's name of an input that the user names.
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
        graph, names = _read_apart(Path(source), name, arguments)
    else:
        function, tensors = frozen(source, name, **arguments)
        graph, names = read_function(function, name, tensors, is_file=is_file)
    feature_of, shown = (
        functools.partial(_feature_of, dict(zip(map(with_index, known), features, strict=True)))
        for known, features in (
            (names.inputs, names.input_features),
            (names.outputs, names.output_features),
        )
    )
    return Read(graph, _renamed(inputs, feature_of), _renamed(outputs, shown), feature_of)


def read_function(
    function: FrozenFunction, name: str, tensors: Names, *, is_file: bool
) -> tuple[Graph, FeatureNames]:
    """The graph of a function without variables, and the names of its features.

    Args:
        function: TensorFlow's own.
        name: what messages call the source.
        tensors: the source's names for its inputs and outputs.
        is_file: whether `name` is a path.
    """
    with as_our_errors(name):
        reader = _GraphReader(import_tensorflow(), function, name, tensors, is_file)
        return reader.graph(), reader.names


def traced(call: Callable[..., Any], inputs: Sequence[tuple[Shape, str]], name: str) -> Graph:
    """The graph of what a function computes.

    Args:
        call: takes and gives tensors.
        inputs: shape and type of each; None in a shape varies.

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
        return read_function(constant_function(function), name, ([], []), is_file=False)[0]


def _read_apart(path: Path, name: str, arguments: Mapping[str, Any]) -> tuple[Graph, FeatureNames]:
    if not is_saved_model(path):
        return apart.read(path, path, name, arguments)
    folder = folder_of(path)
    messages = [folder / name for name in SAVED_MODELS]
    message = next(message for message in messages if message.exists())
    limits.check_plain(message)
    return apart.read(folder, message, name, arguments)


# ---- to a graph ------------------------------------------------------------------------


class _GraphReader:
    """Reads the operations of a function.

    Attributes:
        names: the source's names of its inputs and outputs, and the names of their features.
    """

    def __init__(
        self, tf: ModuleType, frozen: FrozenFunction, source: str, tensors: Names, is_file: bool
    ) -> None:
        self.tf, self.frozen, self.source, self.is_file = tf, frozen, source, is_file
        inputs, outputs = (
            list(known) if len(known) == len(ends) else [tensor_name(t) for t in ends]
            for known, ends in zip(tensors, (frozen.inputs, frozen.outputs), strict=True)
        )
        self.names = FeatureNames(inputs, outputs, feature_names(inputs), feature_names(outputs))

    def graph(self) -> Graph:
        tensors, result = self.frozen.inputs, self.frozen.outputs
        bindings = dict(zip([t.name for t in tensors], self.names.input_features, strict=True))
        naming = Naming(bindings)
        nodes, constants = operations(result, naming, self.source)
        return Graph(
            source=self.source,
            framework="TensorFlow",
            version=2,
            inputs=[naming.value(t) for t in tensors],
            outputs=[
                (name, naming.value(t))
                for name, t in zip(self.names.output_features, result, strict=True)
            ],
            nodes=nodes,
            release=self.tf.__version__,
            is_file=self.is_file,
            constants=constants,
            functions=_bodies(self.frozen.graph, nodes, self.source),
        )


def _bodies(
    graph: FunctionGraph, nodes: Iterable[Node], source: str
) -> dict[tuple[str, str], Subgraph]:
    """The functions that a graph's operations call; reading its message would copy its weights."""
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph

    kinds = {attr.type for op in graph.get_operations() for attr in op.op_def.attr}
    if not kinds & {"func", "list(func)"}:
        return {}
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    bodies: dict[tuple[str, str], Subgraph] = {}
    waiting = list(nodes)
    while waiting:
        for option in waiting.pop().attrs.as_dict().values():
            if isinstance(option, Subgraph):
                waiting += option.all_nodes()
            for name in option if isinstance(option, list) else [option]:
                if isinstance(name, str) and name in library and ("", name) not in bodies:
                    body = body_of(function_def_to_graph(library[name]), source)
                    bodies["", name] = body
                    waiting += body.all_nodes()
    return bodies


def shown_name(name: str) -> str:
    """A name for a feature, without slashes and colons."""
    plain = re.sub(r"^(serving_default_|import/)|:0$", "", name)
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", plain)


def feature_names(names: Sequence[str]) -> list[str]:
    """A unique feature name for each name of the source.

    A name that is valid for a feature stays unchanged, whatever the others are.
    """
    shown = [shown_name(name) for name in names]
    order = sorted(range(len(names)), key=lambda place: shown[place] != names[place])
    result = distinct_names([shown[place] for place in order])
    by_place = dict(zip(order, result, strict=True))
    return [by_place[place] for place in range(len(names))]


def _feature_of(features: Mapping[str, str], name: str) -> str:
    """The feature that a user means: by the key in `features`, its own name, or a close match."""
    near = name if name in features.values() else shown_name(name)
    return features.get(with_index(name), near)


def _renamed(types: Sequence[Any] | None, feature_of: Callable[[str], str]) -> list[Any] | None:
    """The user's types or names of inputs or outputs, by the names of features."""
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
