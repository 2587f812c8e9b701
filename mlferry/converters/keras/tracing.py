"""Traces a user's own layer to a graph: its `call` runs once on symbolic tensors.

Keras 3 records every function of `keras.ops` and every layer that `call` uses, on any backend. The
code is the user's, in memory; code from files never runs.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from mlferry.converters.graph import Graph, Node
from mlferry.converters.keras import arrays
from mlferry.converters.keras.calls import LayerCall, LayerUse, Ref, Tensor, normalized, placed
from mlferry.converters.keras.config import FUNCTIONAL, Layer, entry_of, is_users_own
from mlferry.converters.keras.objects import (
    Functional,
    KerasLayer,
    KerasOperation,
    SymbolicArguments,
    SymbolicTensor,
)
from mlferry.converters.keras.read import graph_of
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Shape


class NotTraceable(ConversionError):
    """The code of a layer cannot run on symbolic tensors."""


def is_keras_3(layer: object) -> bool:
    """Whether an object is a layer of Keras 3, which records what it computes."""
    modules = {cls.__module__.split(".", maxsplit=1)[0] for cls in type(layer).__mro__}
    return "keras" in modules and "tf_keras" not in modules


class Called:
    """A function as a layer: that of an activation, or of a Lambda."""

    def __init__(self, function: Callable[..., Any], node: Node) -> None:
        options = node.get_config().get("arguments") or {}
        known = inspect.signature(function).parameters

        @functools.wraps(function)
        def call(*inputs: object, **keywords: object) -> Any:
            more = {name: value for name, value in keywords.items() if name in known}
            return function(*inputs, **options, **more)

        self.name = node.name
        self.call = call

    def _flatten_layers(self) -> list[KerasOperation]:
        return []


def layer_graph(
    layer: KerasLayer | Called,
    use: LayerCall,
    inputs: Sequence[tuple[Shape, str]],
    mask: Shape | None,
    name: str,
) -> Graph:
    """The graph of one call of a layer.

    Args:
        layer: a built layer of Keras 3.
        use: how it is called.
        inputs: shape and type of each tensor of the call; None in a shape varies.
        mask: the shape of the mask, where the layer gets one; it is the last input of the graph.

    Raises:
        NotTraceable: the code branches on values, or uses functions of another library.
    """
    keras = importlib.import_module("keras")
    values = [
        keras.Input(batch_shape=shape, dtype=dtype, name=f"input_{index}")
        for index, (shape, dtype) in enumerate(inputs)
    ]
    masks = [] if mask is None else [keras.Input(batch_shape=mask, dtype="bool", name="mask")]
    args, kwargs = arguments(layer, use, values, masks[0] if masks else None)
    with _nodes_restored(layer), _operators_recorded(), _errors_of(layer, name):
        result = keras.tree.flatten(layer.call(*args, **kwargs))
        return _graph([*values, *masks], result, name)


def model_graph(model: KerasLayer, inputs: Mapping[str, tuple[Shape, str]]) -> Graph:
    """The graph of a subclassed model.

    Args:
        model: of Keras 3.
        inputs: shape and type of each argument of `call`, by its name.

    Raises:
        NotTraceable: see `layer_graph`.
    """
    keras = importlib.import_module("keras")
    bindings = {
        name: keras.Input(batch_shape=shape, dtype=dtype, name=name)
        for name, (shape, dtype) in inputs.items()
    }
    name = f"model {model.name!r}"
    extra = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    with _nodes_restored(model), _operators_recorded(), _errors_of(model, name):
        result = model.call(*bindings.values(), **extra)
        keys = sorted(result) if isinstance(result, Mapping) else []
        return _graph(list(bindings.values()), keras.tree.flatten(result), name, keys)


def arguments(
    layer: KerasLayer | Called, use: LayerCall, inputs: Sequence[Any], mask: object
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of `call` for inference, with tensors in place of their `Ref`s."""
    args = [placed(value, inputs) for value in use.args]
    kwargs = {name: placed(value, inputs) for name, value in use.kwargs.items()}
    names = inspect.signature(layer.call).parameters
    if "training" in names:
        kwargs["training"] = False
    if mask is not None and "mask" in names:
        kwargs["mask"] = mask
    return args, kwargs


@contextmanager
def _nodes_restored(layer: KerasLayer | Called) -> Iterator[None]:
    """Make the inner layers forget the calls that are recorded here."""
    layers = list(layer._flatten_layers())
    counts = [(len(item._inbound_nodes), len(item._outbound_nodes)) for item in layers]
    try:
        yield
    finally:
        for item, (inbound, outbound) in zip(layers, counts, strict=True):
            del item._inbound_nodes[inbound:], item._outbound_nodes[outbound:]


_LOCK = threading.RLock()
_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "mod",
    "pow": "power",
    "matmul": "matmul",
}
_COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}


@contextmanager
def _operators_recorded() -> Iterator[None]:
    """Record operators between a variable or an array and a symbolic tensor on its right, too.

    Keras itself leaves those to its backend, or to NumPy, which do not know symbolic tensors.
    """
    keras = importlib.import_module("keras")
    symbolic = keras.KerasTensor
    variable = next(cls for cls in keras.Variable.__mro__ if "__mul__" in vars(cls))
    names = {f"__{name}__": function for name, function in (_OPERATORS | _COMPARISONS).items()}

    def recorded(plain: Callable[..., Any], function: Callable[..., Any]) -> Any:
        def operator(self: object, other: object) -> Any:
            return function(self, other) if isinstance(other, symbolic) else plain(self, other)

        return operator

    with _LOCK:
        own = {name: vars(variable)[name] for name in names if name in vars(variable)}
        for name, plain in own.items():
            setattr(variable, name, recorded(plain, getattr(keras.ops, names[name])))
        symbolic.__array_ufunc__ = None  # NumPy then asks the right operand
        try:
            yield
        finally:
            del symbolic.__array_ufunc__
            for name, plain in own.items():
                setattr(variable, name, plain)


@contextmanager
def _errors_of(layer: object, name: str) -> Iterator[None]:
    try:
        yield
    except ConversionError:
        raise
    except Exception as error:
        raise NotTraceable(
            f"{name}: its call cannot be traced: {_where(layer, error)}{type(error).__name__}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        ) from error


def _where(layer: object, error: Exception) -> str:
    """The last line that ran of the layer's own file."""
    try:
        own = inspect.getsourcefile(type(layer))
    except (OSError, TypeError):
        own = None
    frames = traceback.extract_tb(error.__traceback__)
    results = [frame for frame in frames if frame.filename == own]
    return f"{results[-1].filename}:{results[-1].lineno}: {results[-1].line}: " if results else ""


# ---- to a graph ------------------------------------------------------------------------


def _graph(
    inputs: Sequence[Any], outputs: Sequence[Any], name: str, keys: Sequence[str] = ()
) -> Graph:
    keras = importlib.import_module("keras")
    symbolic = [item for item in outputs if isinstance(item, keras.KerasTensor)]
    if len(symbolic) < len(outputs):
        raise NotTraceable(f"{name}: its call gives values that depend on no input")
    functional = keras.Model(list(inputs), list(outputs))
    model = _tree(functional)
    model.output_keys = list(keys) or [""] * len(model.outputs)
    return graph_of(model, arrays.InMemory(functional), name)


def _tree(functional: Functional) -> Layer:
    """The operations of a functional model, with their calls, as in a config."""
    own = {id(node) for nodes in functional._nodes_by_depth.values() for node in nodes}
    numbers: dict[int, int] = {}
    for operation in functional.operations:
        remaining = (node for node in operation._inbound_nodes if id(node) in own)
        numbers |= {id(node): index for index, node in enumerate(remaining)}

    def tensor(item: SymbolicTensor) -> Tensor:
        operation, index, output = item._keras_history
        call = numbers[id(operation._inbound_nodes[index])]
        return Tensor(operation.name, call, output, tuple(item.shape), str(item.dtype))

    layers = []
    for operation in functional.operations:
        layer = entry_of(_config(operation), operation.name)
        layer.source = operation
        for node in operation._inbound_nodes:
            if id(node) in own and not node.is_input:
                call = _call(node.arguments, tensor)
                named = not (layer.is_op or is_users_own(layer))
                layer.calls.append(normalized(call, layer.class_name) if named else call)
        layers.append(layer)
    model = Layer(FUNCTIONAL, functional.name, {"name": functional.name}, layers=layers)
    model.inputs = [tensor(item) for item in functional.inputs]
    model.outputs = [tensor(item) for item in functional.outputs]
    model.source = functional
    return model


def _config(operation: KerasOperation) -> Mapping[str, Any]:
    serialization = importlib.import_module("keras.saving")
    try:
        entries: Mapping[str, Any] = serialization.serialize_keras_object(operation)
    except Exception as error:  # an inner layer, whose options no config holds
        raise NotTraceable(
            f"{type(operation).__name__} {operation.name!r} inside does not return its options: "
            f"{error!s:.200}"
        ) from error
    return entries


def _call(recorded: SymbolicArguments, tensor: Callable[[SymbolicTensor], Tensor]) -> LayerUse:
    """A recorded call, in which variables and arrays are known values."""
    keras = importlib.import_module("keras")
    tensors: list[Tensor] = []

    def kept(value: object) -> Any:
        if isinstance(value, keras.KerasTensor):
            tensors.append(tensor(value))
            return Ref(len(tensors) - 1)
        if isinstance(value, list | tuple):
            items = [kept(item) for item in value]
            return tuple(items) if type(value) is tuple else items
        if isinstance(value, Mapping):
            return {key: kept(item) for key, item in value.items()}
        if isinstance(value, keras.Variable) or keras.ops.is_tensor(value):
            return np.asarray(keras.ops.convert_to_numpy(value))
        return value

    args = tuple(kept(item) for item in recorded.args)
    kwargs = {name: kept(item) for name, item in recorded.kwargs.items()}
    return LayerUse(tuple(tensors), args, kwargs)
