"""Pair the arrays of a file or a model with the layers of its config."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.keras.config import Layer
from mlferry.errors import ModelFileError

Path = tuple[str, ...]
Named = list[tuple[str, NDArray[Any]]]


class Store(Protocol):
    """Where arrays lie: finds those of every layer that is no model."""

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


NAMES: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    **dict.fromkeys(
        (
            "Dense", "Conv1D", "Conv2D", "Conv1DTranspose", "Conv2DTranspose",
            "DepthwiseConv1D", "DepthwiseConv2D",
        ),
        _kernel_and_bias,
    ),
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "BatchNormalization": _batch_normalization,
    "Embedding": lambda config: ["embeddings"],
    "PReLU": lambda config: ["alpha"],
    "Normalization": _normalization,
}  # fmt: skip
_TRAINED_LAST = {"moving_mean", "moving_variance", "mean", "variance", "count"}


def named(layer: Layer, arrays: Named) -> Named:
    """Arrays under Keras's own names, for layers whose names and order are known.

    Raises:
        ModelFileError: there are more or fewer arrays than the config asks for.
    """
    if layer.class_name not in NAMES or layer.is_users:
        return arrays
    wanted = NAMES[layer.class_name](layer.config)
    if len(arrays) != len(wanted):
        found = ", ".join(f"{name} {array.shape}" for name, array in arrays) or "none"
        raise ModelFileError(
            f"{layer.class_name} {layer.name!r}: its config asks for {len(wanted)} arrays "
            f"({', '.join(wanted)}), the file holds {len(arrays)} ({found})"
        )
    return [(name, array) for name, (_, array) in zip(wanted, arrays, strict=True)]


# ---- legacy HDF5: one group a top-level layer ------------------------------------------


class LegacyHdf5:
    """A group with one group per top-level layer, each listing its arrays by name."""

    def __init__(self, group: Any) -> None:
        self._group = group

    def assign(self, model: Layer) -> dict[Path, Named]:
        """See `Store`."""
        found: dict[Path, Named] = {}
        for layer in model.layers:
            arrays = self._arrays(layer.name)
            if layer.model_kind is None:
                found[(layer.name,)] = arrays
            else:
                found |= _split(layer, arrays)
        return found

    def _arrays(self, name: str) -> Named:
        if name not in self._group:
            return []
        group = self._group[name]
        names = _texts(group.attrs, "weight_names")
        return [(entry.split(":")[0], _read(group, entry)) for entry in names]


def _texts(attrs: Any, name: str) -> list[str]:
    """A list of names; long ones are written in chunks ``name0``, ``name1``, ..."""
    found: list[Any] = []
    if name in attrs:
        found = list(attrs[name])
    else:
        index = 0
        while f"{name}{index}" in attrs:
            found += list(attrs[f"{name}{index}"])
            index += 1
    return [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in found]


def _read(group: Any, name: str) -> NDArray[Any]:
    try:
        return np.asarray(group[name][()])
    except KeyError:
        raise ModelFileError(f"the file lists an array {name!r} and does not hold it") from None


def _split(model: Layer, arrays: Named) -> dict[Path, Named]:
    """The arrays of a model inside a model: by name where names tell, else by Keras's order."""
    leaves = list(model.leaves((model.name,)))
    by_name: dict[Path, Named] = {path: [] for path, _ in leaves}
    for name, array in arrays:
        parts = re.split(r"[/\\]", name)
        owners = [path for path, _ in leaves if path[-1] in parts[:-1]]
        if len(owners) != 1:
            return _split_by_order(leaves, arrays, model)
        by_name[owners[0]].append((name, array))
    return by_name


def _split_by_order(
    leaves: Sequence[tuple[Path, Layer]], arrays: Named, model: Layer
) -> dict[Path, Named]:
    """Keras lists what is trained, layer by layer, and then what is not."""
    trained: list[Path] = []
    rest: list[Path] = []
    for path, layer in leaves:
        if layer.class_name not in NAMES:
            continue
        for name in NAMES[layer.class_name](layer.config):
            fixed = name in _TRAINED_LAST or not layer.config.get("trainable", True)
            (rest if fixed else trained).append(path)
    order = [*trained, *rest]
    if len(order) != len(arrays):
        raise ModelFileError(
            f"model {model.name!r} holds {len(arrays)} arrays, its layers ask for {len(order)}; "
            "their names do not tell which belongs where"
        )
    found: dict[Path, Named] = {path: [] for path, _ in leaves}
    for path, item in zip(order, arrays, strict=True):
        found[path].append(item)
    return found


# ---- .keras: paths numbered by class ---------------------------------------------------


class KerasArchive:
    """`model.weights.h5` of a `.keras` file.

    Arrays lie under ``layers/<class in snake case>[_<number>]/vars/<index>``, where the number
    counts the layers of one class in the order of the config. Newer files also tell each
    layer's name, which is then checked.
    """

    def __init__(self, root: Any) -> None:
        self._root = root

    def assign(self, model: Layer) -> dict[Path, Named]:
        """See `Store`."""
        found: dict[Path, Named] = {}
        self._walk(model, self._root, (), found)
        return found

    def _walk(self, model: Layer, group: Any, path: Path, found: dict[Path, Named]) -> None:
        folder: Any = next(
            (group[name] for name in ("layers", "_layer_checkpoint_dependencies") if name in group),
            {},
        )
        used: dict[str, int] = {}
        for layer in model.layers:
            label = snake_case(_python_class(layer))
            if label in used:
                used[label] += 1
                label = f"{label}_{used[label]}"
            else:
                used[label] = 0
            inner = folder.get(label, {})
            if layer.model_kind is not None:
                self._walk(layer, inner, (*path, layer.name), found)
                continue
            self._check_name(layer, inner)
            own = (*path, layer.name)
            found[own] = _own_arrays(inner)

    def _check_name(self, layer: Layer, group: Any) -> None:
        stored = group["vars"].attrs.get("name") if "vars" in group else None
        if stored is None:
            return
        text = stored.decode("utf-8") if isinstance(stored, bytes) else str(stored)
        if text != layer.name:
            raise ModelFileError(
                f"arrays of layer {text!r} lie where those of {layer.class_name} "
                f"{layer.name!r} should be"
            )


def _python_class(layer: Layer) -> str:
    return layer.class_name.rsplit(">", 1)[-1]


def _own_arrays(group: Any) -> Named:
    """The arrays of ``vars`` by index; those of parts of the layer (a wrapper's) behind them."""
    found: Named = []
    if "vars" in group:
        entries = group["vars"]
        for name in sorted(entries, key=lambda text: (len(text), text)):
            found.append((name, np.asarray(entries[name][()])))
    for part in sorted(group):
        if part in ("vars", "seed_generator", "name"):
            continue
        inner = group[part]
        if hasattr(inner, "keys"):
            found += [(f"{part}/{name}", array) for name, array in _own_arrays(inner)]
    return found


def snake_case(name: str) -> str:
    """Keras's own rule from class names to the names of groups."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


# ---- models in memory ------------------------------------------------------------------


class InMemory:
    """A model object of Keras 3 (any backend) or tf_keras."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def assign(self, model: Layer) -> dict[Path, Named]:
        """See `Store`."""
        found: dict[Path, Named] = {}
        _walk_objects(model, self._model, (), found)
        return found


def _walk_objects(model: Layer, source: Any, path: Path, found: dict[Path, Named]) -> None:
    objects = {item.name: item for item in source.layers}
    for layer in model.layers:
        item = objects.get(layer.name)
        own = (*path, layer.name)
        if item is None:
            found[own] = []
            continue
        layer.source = item
        if layer.model_kind is not None:
            _walk_objects(layer, item, (*path, layer.name), found)
            continue
        arrays = [np.asarray(array) for array in item.get_weights()]
        names = [str(weight.name).split(":")[0] for weight in item.weights]
        if len(names) != len(arrays):
            names = [str(index) for index in range(len(arrays))]
        found[own] = list(zip(names, arrays, strict=True))
