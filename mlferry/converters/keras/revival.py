"""Makes objects of layers in a file: the user's class, with the options and arrays of the file."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from mlferry.converters.graph import Node
from mlferry.converters.keras.calls import call_of
from mlferry.converters.keras.objects import KerasLayer
from mlferry.converters.keras.parts import snake_case
from mlferry.converters.keras.tracing import arguments, is_keras_3
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array, Shape

_Arrays = Mapping[str, Array]


def layer_of(
    layer_class: type[Any], node: Node, shapes: Sequence[Shape], mask: Shape | None
) -> Any:
    """An object of a user's class.

    Args:
        layer_class: the class; its `from_config` gets the file's options.
        node: of the file's layer.
        shapes: the shapes of its inputs, for which the layer is built.
        mask: the shape of its mask, if it has one.

    Raises:
        ConversionError: the class does not take the options, or has other arrays.
    """
    name = layer_class.__name__
    try:
        layer = layer_class.from_config(node.attrs.as_dict())
        _build(layer, node, shapes, mask)
    except Exception as error:
        raise ConversionError(
            f"{name} of custom_objects cannot be made with the options of the file: "
            f"{type(error).__name__}: {error!s:.300}"
        ) from error
    arrays = dict(call_of(node).stored)
    if all(entry.rsplit("/", 1)[-1].isdigit() for entry in arrays):
        _load(layer, arrays, name)
    else:
        _set(layer, list(arrays.values()), name)
    return layer


def _build(layer: KerasLayer, node: Node, shapes: Sequence[Shape], mask: Shape | None) -> None:
    """Call the layer once on symbolic tensors, which creates its variables."""
    keras = _library_of(layer)
    values = zip(shapes, node.inputs, strict=True)
    symbols = [keras.Input(batch_shape=tuple(s), dtype=v.dtype) for s, v in values]
    mask_input = None if mask is None else keras.Input(batch_shape=tuple(mask), dtype="bool")
    args, kwargs = arguments(layer, call_of(node), symbols, mask_input)
    layer(*args, **kwargs)


def _library_of(layer: object) -> Any:
    return importlib.import_module("keras" if is_keras_3(layer) else "tf_keras")


def _own_variables(layer: object) -> list[Any]:
    """The variables that a layer made itself, in Keras 3 or Keras 2."""
    names = ("_trainable_variables", "_non_trainable_variables")
    if not is_keras_3(layer):
        names = ("_trainable_weights", "_non_trainable_weights")
    return [variable for name in names for variable in getattr(layer, name)]


def _set(layer: KerasLayer, arrays: Sequence[Array], name: str) -> None:
    """Arrays of an HDF5 file, in the order of the layer's own: trained first."""
    expected = [tuple(weight.shape) for weight in _ordered(layer)]
    results = [array.shape for array in arrays]
    if expected != results:
        raise ConversionError(
            f"{name} of custom_objects has arrays of shapes {expected}, the file {results}"
        )
    for weight, array in zip(_ordered(layer), arrays, strict=True):
        weight.assign(array)


def _ordered(layer: KerasLayer) -> list[Any]:
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _load(layer: object, arrays: _Arrays, name: str) -> None:
    """Arrays of a `.keras` file, stored under the names of the layer's attributes."""
    left = dict(arrays)
    for path, part in _Folders(arrays, _library_of(layer)).parts(layer, ""):
        own = {
            key.removeprefix(path): array
            for key, array in left.items()
            if key.startswith(path) and "/" not in key.removeprefix(path)
        }
        if not own and not _own_variables(part):
            continue
        try:
            part.load_own_variables(own)
        except Exception as error:
            raise ConversionError(
                f"{path or name} of custom_objects does not take the arrays of the file: "
                f"{error!s:.300}"
            ) from error
        for key in own:
            del left[path + key]
    if left:
        raise ConversionError(
            f"{name} of custom_objects has no place for the file's arrays {', '.join(left)}"
        )


class _Folders:
    """The layers inside others, with the folders in which Keras keeps their arrays."""

    def __init__(self, arrays: _Arrays, keras: ModuleType) -> None:
        self.keys = list(arrays)
        self.seen: set[int] = set()
        self.kind = keras.layers.Layer

    def parts(self, layer: object, path: str) -> Iterator[tuple[str, Any]]:
        """The layer and those in its attributes, in Keras's order."""
        self.seen.add(id(layer))
        yield path, layer
        names = sorted(set(dir(layer)) - set(dir(self.kind())))
        for name in sorted(names, key=lambda text: f"~{text}" if text.startswith("_") else text):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # from properties that Keras plans to remove
                value = getattr(layer, name, None)
            if isinstance(value, self.kind):
                if id(value) not in self.seen:
                    yield from self.parts(value, f"{path}{name}/")
            elif isinstance(value, list | tuple | dict):
                yield from self._held(value, f"{path}{name}/")

    def _held(self, value: Iterable[Any], path: str) -> Iterator[tuple[str, Any]]:
        """Layers in a list or dict, and in those inside it, which older versions of Keras skip."""
        used: dict[str, int] = {}
        for item in value.values() if isinstance(value, dict) else value:
            is_layer = isinstance(item, self.kind)
            if not is_layer and not isinstance(item, list | tuple | dict):
                continue
            label = snake_case(type(item).__name__) if is_layer else "container"
            used[label] = used.get(label, -1) + 1
            label = f"{label}_{used[label]}" if used[label] else label
            if is_layer and id(item) not in self.seen:
                yield from self.parts(item, f"{path}{label}/")
            elif not is_layer and any(key.startswith(f"{path}{label}/") for key in self.keys):
                yield from self._held(item, f"{path}{label}/")
