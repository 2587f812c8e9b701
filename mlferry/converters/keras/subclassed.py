"""Subclassed models of Keras 3 with another backend than TensorFlow: `call` is traced."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from mlferry.converters.graph import Graph
from mlferry.converters.keras import tracing
from mlferry.converters.keras.objects import KerasLayer
from mlferry.converters.types import ImageType, TensorType, extents
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Shape


def claims(source: object) -> TypeGuard[KerasLayer]:
    """Whether a source is such a model."""
    classes = type(source).__mro__
    names = {cls.__name__ for cls in classes}
    if "Model" not in names or names & {"Functional", "Sequential"}:
        return False
    return tracing.is_keras_3(source) and importlib.import_module("keras").backend.backend() != (
        "tensorflow"
    )


def read(source: KerasLayer, inputs: Sequence[TensorType | ImageType] | None) -> Graph:
    """The graph of a model.

    Args:
        inputs: the types that the user gives, by the names or in the order of the arguments of
            `call`; a model that was called or built knows its shapes.

    Raises:
        ConversionError: the shape of an input is unknown, or the code cannot be traced.
    """
    names = _arguments(source)
    bindings = {kind.name or name: kind for kind, name in zip(inputs or (), names, strict=False)}
    built = _built_shapes(source, names)
    shapes: dict[str, tuple[Shape, str]] = {}
    for name in names:
        kind = bindings.get(name)
        shape = built.get(name) if kind is None or kind.shape is None else extents(kind.shape)
        if shape is None:
            example = ", ".join(
                f"mlferry.TensorType(name={missing!r}, shape=(1, ...))" for missing in names
            )
            raise ConversionError(
                f"model {source.name!r} does not know the shape of its input {name!r}; give it: "
                f"mlferry.convert(..., inputs=[{example}])"
            )
        first = 1 if shape[0] is None and kind is None else shape[0]
        shapes[name] = ((first, *shape[1:]), getattr(kind, "dtype", None) or "float32")
    return tracing.model_graph(source, shapes)


def _arguments(model: KerasLayer) -> list[str]:
    """The arguments of `call` that are tensors: those without a default."""
    result = inspect.signature(model.call).parameters.values()
    return [p.name for p in result if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD]


def _built_shapes(model: KerasLayer, names: Sequence[str]) -> Mapping[str, Shape | None]:
    """The shapes that a model was built for."""
    known = model.get_build_config() or {}
    listed = known.get("shapes_dict") or {"input_shape": known.get("input_shape")}
    entries = {key.removesuffix("_shape"): shape for key, shape in listed.items()}
    if len(names) == 1 and len(entries) == 1:
        entries = {names[0]: next(iter(entries.values()))}
    return {
        name: tuple(shape)
        for name, shape in entries.items()
        if isinstance(shape, list | tuple) and all(n is None or isinstance(n, int) for n in shape)
    }
