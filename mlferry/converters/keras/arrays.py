"""Match the arrays of a file or a model with the layers of its config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mlferry.converters.keras import quantization
from mlferry.converters.keras.config import SEQUENTIAL, Layer
from mlferry.converters.keras.hdf5 import Group
from mlferry.converters.keras.objects import KerasLayer
from mlferry.converters.keras.parts import snake_case
from mlferry.errors import ModelFileError
from mlferry.numerics.shapes import Array

Path = tuple[str, ...]
Named = list[tuple[str, Array]]


class Store(Protocol):
    """A place of arrays, which finds those of every layer that is not a model."""

    def assign(self, model: Layer) -> dict[Path, Named]:
        """The arrays of each layer, in Keras's order."""
        ...


# ---- what Keras's own layers keep ------------------------------------------------------


def _kernel_and_bias(config: Mapping[str, Any]) -> list[str]:
    return ["kernel", "bias"] if config.get("use_bias", True) else ["kernel"]


def _separable(config: Mapping[str, Any]) -> list[str]:
    names = ["depthwise_kernel", "pointwise_kernel"]
    return [*names, "bias"] if config.get("use_bias", True) else names


def _batch_normalization(config: Mapping[str, Any]) -> list[str]:
    names = ["gamma"] if config.get("scale", True) else []
    names += ["beta"] if config.get("center", True) else []
    return [*names, "moving_mean", "moving_variance"]


def _normalization(config: Mapping[str, Any]) -> list[str]:
    return [] if config.get("mean") is not None else ["mean", "variance", "count"]


def _recurrent(config: Mapping[str, Any]) -> list[str]:
    if "gates_apart" in config:  # Keras 1
        return [f"{kind}_{gate}" for gate in config["gates_apart"] for kind in ("W", "U", "b")]
    names = ["kernel", "recurrent_kernel"]
    return [*names, "bias"] if config.get("use_bias", True) else names


def _affine(config: Mapping[str, Any]) -> list[str]:
    if config.get("rms_scaling"):
        return ["gamma"]
    names = ["gamma"] if config.get("scale", True) else []
    return [*names, "beta"] if config.get("center", True) else names


def _attention(config: Mapping[str, Any]) -> list[str]:
    names = ["scale"] if config.get("use_scale", False) else []
    return [*names, "concat_score_weight"] if config.get("score_mode") == "concat" else names


def _quantized(
    names: Callable[[Mapping[str, Any]], list[str]],
) -> Callable[[Mapping[str, Any]], list[str]]:
    """The arrays of quantization follow those of the layer."""

    def found(config: Mapping[str, Any]) -> list[str]:
        plain = names(config)
        return [*plain, *quantization.names(config, plain[0])] if plain else plain

    return found


NAMES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    **dict.fromkeys(
        (
            *("Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose"),
            *("Conv2DTranspose", "Conv3DTranspose"),
            *("DepthwiseConv1D", "DepthwiseConv2D", "LocallyConnected1D", "LocallyConnected2D"),
        ),
        _kernel_and_bias,
    ),
    **dict.fromkeys(("SimpleRNNCell", "LSTMCell", "GRUCell", "ConvLSTMCell"), _recurrent),
    "Dense": _quantized(_kernel_and_bias),
    "EinsumDense": _quantized(
        lambda config: ["kernel", "bias"] if config.get("bias_axes") else ["kernel"]
    ),
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _affine,
    "GroupNormalization": _affine,
    "RMSNormalization": lambda config: ["scale"],
    "SpectralNormalization": lambda config: ["vector_u"],
    "Embedding": _quantized(lambda config: ["embeddings"]),
    "ReversibleEmbedding": _quantized(
        lambda config: (
            ["embeddings"]
            if config.get("tie_weights", True)
            else ["embeddings", "reverse_embeddings"]
        )
    ),
    "STFTSpectrogram": lambda config: [
        f"{part}_kernel"
        for part in ("real", "imag")
        if config.get("mode", "log") != {"real": "imag", "imag": "real"}[part]
    ],
    "LayerScale": lambda config: ["gamma"],
    "PReLU": lambda config: ["alpha"],
    "Normalization": _normalization,
    "Attention": _attention,
    "AdditiveAttention": lambda config: ["scale"] if config.get("use_scale", True) else [],
}
_TRAINED_LAST = {"moving_mean", "moving_variance", "mean", "variance", "count", "vector_u"}


def named(layer: Layer, arrays: Named) -> Named:
    """Arrays under Keras's own names, for layers whose names and order are known.

    Raises:
        ModelFileError: there are more or fewer arrays than the config needs.
    """
    if not _is_known(layer):
        return arrays
    expected = NAMES[layer.class_name](layer.config)
    if layer.class_name == "SpectralNormalization":
        arrays = arrays[-1:]  # files hold the kernel of the inner layer first
    if len(arrays) != len(expected):
        result = ", ".join(f"{name} {array.shape}" for name, array in arrays) or "none"
        raise ModelFileError(
            f"{layer.class_name} {layer.name!r}: its config asks for {len(expected)} arrays "
            f"({', '.join(expected)}), the file holds {len(arrays)} ({result})"
        )
    return [(name, array) for name, (_, array) in zip(expected, arrays, strict=True)]


def _share(holders: Sequence[tuple[Path, Layer]], arrays: Named, source: str) -> dict[Path, Named]:
    """Keras lists trained arrays, layer by layer, and then the others."""
    trained: list[tuple[Path, int]] = []
    rest: list[tuple[Path, int]] = []
    for path, layer in holders:
        if not _is_known(layer):
            continue
        for index, name in enumerate(NAMES[layer.class_name](layer.config)):
            fixed = (
                name in _TRAINED_LAST
                or not layer.config.get("trainable", True)
                or quantization.is_fixed(layer.config, name)
            )
            (rest if fixed else trained).append((path, index))
    order = [*trained, *rest]
    if len(order) != len(arrays):
        raise ModelFileError(
            f"{source} holds {len(arrays)} arrays, its layers ask for {len(order)}; "
            "their names do not say which belongs where"
        )
    places: dict[Path, dict[int, tuple[str, Array]]] = {path: {} for path, _ in holders}
    for (path, index), item in zip(order, arrays, strict=True):
        places[path][index] = item
    return {path: [items[index] for index in sorted(items)] for path, items in places.items()}


def _is_known(layer: Layer) -> bool:
    return layer.class_name in NAMES and not layer.is_users


def _of_layer(layer: Layer, path: Path, arrays: Named) -> dict[Path, Named]:
    """The arrays of a layer, separate from those of its parts."""
    count = len(NAMES[layer.class_name](layer.config)) if _is_known(layer) else 0
    if not layer.parts and (not count or count != len(arrays)):
        return {path: arrays}
    return _share(list(layer.holders(path)), arrays, f"{layer.class_name} {layer.name!r}")


# ---- legacy HDF5: one group a top-level layer ------------------------------------------


class LegacyHdf5:
    """A group with one group per top-level layer, each listing its arrays by name."""

    def __init__(self, group: Group) -> None:
        self._group = group

    def assign(self, model: Layer) -> dict[Path, Named]:
        """See `Store`."""
        entries: dict[Path, Named] = {}
        for layer in model.layers:
            entries |= _split(layer, (layer.name,), self._arrays(layer.name))
        return entries

    def _arrays(self, name: str) -> Named:
        group = self._group.group(name)
        names = _texts(group.attrs, "weight_names")
        return [(entry.split(":")[0], group.array(entry)) for entry in names]


def _texts(attrs: Mapping[str, Any], name: str) -> list[str]:
    """A list of names; long ones are written in chunks ``name0``, ``name1``, ..."""
    if name in attrs:
        return _list(attrs[name])
    results: list[str] = []
    index = 0
    while f"{name}{index}" in attrs:
        results += _list(attrs[f"{name}{index}"])
        index += 1
    return results


def _list(value: Sequence[str] | None) -> list[str]:
    """An empty list was written as a list of numbers, which is None here."""
    return [value] if isinstance(value, str) else [text for text in value or () if text is not None]


def _split(model: Layer, path: Path, arrays: Named) -> dict[Path, Named]:
    """The arrays of a layer or of a model: by name if names decide, else in Keras's order."""
    if model.model_kind is None:
        return _of_layer(model, path, arrays)
    leaves = list(model.leaves(path))
    by_name: dict[Path, Named] = {own: [] for own, _ in leaves}
    for name, array in arrays:
        parts = re.split(r"[/\\]", name)
        owners = [own for own, _ in leaves if own[-1] in parts[:-1]]
        if len(owners) != 1:
            holders = list(model.holders(path))
            return _share(holders, arrays, f"model {model.name!r}")
        by_name[owners[0]].append((name, array))
    entries: dict[Path, Named] = {}
    for own, layer in leaves:
        entries |= _of_layer(layer, own, by_name[own])
    return entries


# ---- .keras: paths numbered by class ---------------------------------------------------


class KerasArchive:
    """`model.weights.h5` of a `.keras` file.

    Arrays are under ``layers/<class in snake case>[_<number>]/vars/<index>``, where the number
    counts the layers of one class in the order of the config. Newer files also hold each layer's
    name, which is then checked.
    """

    def __init__(self, root: Group) -> None:
        self._root = root

    def assign(self, model: Layer) -> dict[Path, Named]:
        """See `Store`."""
        entries: dict[Path, Named] = {}
        self._walk(model, self._root, (), entries)
        return entries

    def _walk(self, model: Layer, group: Group, path: Path, entries: dict[Path, Named]) -> None:
        folder = group.group("layers", "_layer_checkpoint_dependencies")
        # Keras 2.12 to 2.14 list a layer that has arrays twice
        twice = "layers" not in group and "_layer_checkpoint_dependencies" in group
        used: dict[str, int] = {}
        for layer in model.layers:
            if layer.is_op:
                continue  # functions have no folders, but may share names with layers
            label = snake_case(_python_class(layer))
            if label in used:
                used[label] += 1
                label = f"{label}_{used[label]}"
            else:
                used[label] = 0
            inner = folder.group(label)
            if twice and _holds_arrays(inner):
                used[snake_case(_python_class(layer))] += 1
            if layer.model_kind is not None:
                self._walk(layer, inner, (*path, layer.name), entries)
                continue
            self._check_name(layer, inner)
            self._own(layer, inner, (*path, layer.name), entries)

    def _own(self, layer: Layer, group: Group, path: Path, entries: dict[Path, Named]) -> None:
        known = _is_known(layer) or layer.parts
        entries[path] = _variables(group) if known else _own_arrays(group)
        if layer.class_name == "EinsumDense":
            plain = 2 if layer.config.get("bias_axes") else 1
            quantization.recognize(layer.config, [a for _, a in entries[path]], plain)
        for key, part in layer.parts.items():
            inner = group.group(key, f"_{key}")
            if part.model_kind is not None:
                self._walk(part, inner, (*path, key), entries)
            else:
                self._own(part, inner, (*path, key), entries)

    def _check_name(self, layer: Layer, group: Group) -> None:
        stored = group.group("vars").attrs.get("name")
        if stored is not None and not layer.is_named:
            layer.name = str(stored)
        if stored is not None and stored != layer.name:
            raise ModelFileError(
                f"arrays of layer {stored!r} lie where those of {layer.class_name} "
                f"{layer.name!r} should be"
            )


def _holds_arrays(group: Group) -> bool:
    """Whether a folder, or one inside it, holds arrays."""
    entries = (group[name] for name in group)
    return any(_holds_arrays(item) if isinstance(item, Group) else True for item in entries)


def _python_class(layer: Layer) -> str:
    return layer.class_name.rsplit(">", 1)[-1]


def _variables(group: Group) -> Named:
    """The arrays of ``vars`` by index."""
    entries = group.group("vars")
    names = sorted(entries, key=lambda text: (len(text), text))
    return [(name, entries.array(name)) for name in names]


def _own_arrays(group: Group) -> Named:
    """The arrays of ``vars``, followed by those of the layer's parts (of a wrapper)."""
    result = _variables(group)
    for part in sorted(group):
        if part in ("vars", "seed_generator", "name"):
            continue
        inner = group[part]
        if isinstance(inner, Group):
            result += [(f"{part}/{name}", array) for name, array in _own_arrays(inner)]
    return result


# ---- models in memory ------------------------------------------------------------------


# What Keras 3.12 omits from its configs (3.15 does not): such files lack it for Keras as well.
_LEFT_OUT = ("output_padding",)


class InMemory:
    """A model object of Keras 3 (any backend) or tf_keras."""

    def __init__(self, model: KerasLayer) -> None:
        self._model = model

    def assign(self, model: Layer) -> dict[Path, Named]:
        """See `Store`."""
        entries: dict[Path, Named] = {}
        _walk_objects(model, self._model, (), entries)
        return entries


def _walk_objects(model: Layer, source: KerasLayer, path: Path, entries: dict[Path, Named]) -> None:
    objects = {item.name: item for item in source.layers}
    if model.model_kind == SEQUENTIAL:  # the config of a user's layer may omit its name
        own = [layer for layer in model.layers if layer.class_name != "InputLayer"]
        items = [item for item in source.layers if type(item).__name__ != "InputLayer"]
        if len(own) == len(items):
            for layer, item in zip(own, items, strict=True):
                layer.name = item.name
    for layer in model.layers:
        place = (*path, layer.name)
        if layer.name not in objects:
            entries[place] = []
            continue
        item = layer.source = objects[layer.name]
        for name in _LEFT_OUT:
            if getattr(item, name, None) is not None:
                layer.config.setdefault(name, getattr(item, name))
        if layer.model_kind is not None:
            _walk_objects(layer, item, place, entries)
        else:
            for key, part in layer.parts.items():
                inner = getattr(item, f"_{key}", None)
                mode = getattr(getattr(inner, "dtype_policy", None), "quantization_mode", None)
                if mode:
                    part.config["dtype"] = {"config": {"mode": mode}}
            entries |= _of_layer(layer, place, _arrays_of(item))


def _arrays_of(item: KerasLayer) -> Named:
    """The arrays of a layer object: the trained ones, then the others."""
    arrays = [np.asarray(array) for array in item.get_weights()]
    if len(item.weights) != len(arrays):
        return [(str(index), array) for index, array in enumerate(arrays)]
    by_id = {
        id(weight): (str(weight.name).split(":")[0], array)
        for weight, array in zip(item.weights, arrays, strict=True)
    }
    order = [*item.trainable_weights, *item.non_trainable_weights]
    if {id(weight) for weight in order} != set(by_id):
        return list(by_id.values())
    return [by_id[id(weight)] for weight in order]
