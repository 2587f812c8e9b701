"""Keras configs of any version as a tree of layers with their calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.converters.graph import Attribute
from mlferry.converters.keras import legacy
from mlferry.converters.keras.calls import LayerUse, Ref, Tensor, normalized
from mlferry.converters.keras.parts import CELLS, PARTS
from mlferry.errors import MlferryError, ModelFileError
from mlferry.numerics.shapes import Shape

SEQUENTIAL, FUNCTIONAL = "Sequential", "Functional"
_KERAS = ("keras", "tf_keras", "tensorflow")
_MODEL_CLASSES = {"Sequential": SEQUENTIAL, "Model": FUNCTIONAL, "Functional": FUNCTIONAL}


@dataclass
class Layer:
    """A layer of a config; an inner model is a layer with layers."""

    class_name: str
    name: str
    config: dict[str, Any]
    registered_name: str | None = None
    is_op: bool = False
    is_users: bool = False
    built_for: Shape | None = None
    calls: list[LayerUse] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    output_keys: list[str] = field(default_factory=list)
    takes_dict: bool = False
    is_named: bool = True
    parts: dict[str, Layer] = field(default_factory=dict)
    source: Any = None

    @property
    def model_kind(self) -> str | None:
        """`SEQUENTIAL`, `FUNCTIONAL`, or None for a layer that is not a model."""
        return _MODEL_CLASSES.get(self.class_name) if self.layers else None

    def leaves(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Layer]]:
        """Every layer that is not a model, with the names of the models around it and its own."""
        for layer in self.layers:
            if layer.model_kind:
                yield from layer.leaves((*path, layer.name))
            else:
                yield (*path, layer.name), layer

    def holders(self, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Layer]]:
        """Every layer that may hold arrays of its own, in Keras's order; parts follow their layer.

        The path is that of the layer, with the keys of parts and the names of models in it.
        """
        if self.model_kind:
            for layer in self.layers:
                yield from layer.holders((*path, layer.name))
            return
        yield path, self
        for key, part in self.parts.items():
            yield from part.holders((*path, key))

    def reads(self) -> list[Tensor]:
        """Every tensor that a call, or an output of the model, reads."""
        calls = [call for layer in self.layers for call in layer.calls]
        return [*self.outputs, *(tensor for call in calls for tensor in call.reads)]

    def find(self, name: str) -> Layer:
        """The layer of this name.

        Raises:
            ModelFileError: there is no such layer.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ModelFileError(f"the config of model {self.name!r} refers to no layer {name!r}")


def parse(config: Mapping[str, Any], version: int, name: str = "model") -> Layer:
    """The tree of a serialized model.

    Args:
        config: the object under "model_config", or a `.keras` file's config.json.
        version: the major version of the Keras that wrote it.
        name: the name for a model whose config has none.

    Raises:
        ModelFileError: the config is not that of a Sequential or functional model.
    """
    try:
        layer = _layer(config, version, name)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, MlferryError):
            raise
        raise ModelFileError(f"the Keras config cannot be read: {error!r}") from error
    if layer.model_kind is None:
        raise ModelFileError(
            f"the model is a {layer.class_name}, not a Sequential or functional model: its "
            "config does not tell what it computes"
        )
    return layer


def _layer(entry: Mapping[str, Any], version: int, default_name: str, depth: int = 0) -> Layer:
    limits.check("depth", depth, f"{default_name!r}: models and layers inside each other, levels:")
    class_name = str(entry["class_name"])
    config = entry.get("config") or {}
    if isinstance(config, list):
        config = {"layers": config}
    own_name = config.get("name") or entry.get("name")  # a user's layer may omit it
    if class_name == "TensorFlowOpLayer":  # whose config has the name of the op
        own_name = entry.get("name") or own_name
    name = str(own_name or default_name)
    module = str(entry.get("module") or "")
    registered = entry.get("registered_name")
    layer = Layer(
        class_name=class_name,
        name=name,
        config=dict(config),
        registered_name=str(registered) if registered and registered != class_name else None,
        # HDF5 files omit modules; functions lack the options of layers
        is_op=".ops." in f"{module}." or (version >= 3 and not module and _is_function(entry)),
        is_users=_is_users(entry),
        built_for=_single_shape((entry.get("build_config") or {}).get("input_shape")),
        calls=[_call(call) for call in entry.get("inbound_nodes") or ()],
        is_named=own_name is not None,
    )
    kind = _MODEL_CLASSES.get(class_name)
    if kind is None and "layers" in config and "output_layers" in config:
        kind, layer.class_name = FUNCTIONAL, FUNCTIONAL
    if kind is not None and "layers" in config:
        layer.layers = [
            _layer(item, version, f"layer_{index}", depth + 1)
            for index, item in enumerate(config["layers"])
        ]
        if kind == FUNCTIONAL:
            layer.inputs = [end for _, end in _ends(config["input_layers"])]
            layer.takes_dict = isinstance(config["input_layers"], Mapping)
            ends = _ends(config["output_layers"])
            layer.output_keys = [key for key, _ in ends]
            layer.outputs = [end for _, end in ends]
            _count_calls_from_zero(layer, version)
    else:
        layer.class_name, layer.config = legacy.modern(class_name, layer.config, version)
        _add_parts(layer, version, depth)
    if not (layer.is_op or is_users_own(layer)):
        layer.calls = [normalized(call, layer.class_name) for call in layer.calls]
    return layer


def is_users_own(layer: Layer) -> bool:
    """Whether a layer that is not a model has a class that is not one of Keras's."""
    return layer.is_users and not layer.layers


def entry_of(entry: Mapping[str, Any], name: str) -> Layer:
    """One layer or function as Keras 3 serializes it, under a name of its own."""
    return _layer({**entry, "name": name}, 3, name)


def _is_users(entry: Mapping[str, Any]) -> bool:
    """Whether a class is not one of Keras's own, as far as the entry shows."""
    if ">" in f"{entry.get('registered_name')}{entry['class_name']}":
        return True
    if "module" not in entry:
        return False
    if entry["module"] is None:  # of a class that is not registered
        return entry.get("registered_name") is not None
    return str(entry["module"]).split(".", maxsplit=1)[0] not in _KERAS


def _is_function(entry: Mapping[str, Any]) -> bool:
    """Whether an entry without its module is a function: some layers also have few options."""
    from mlferry.converters.keras.ops import OPS

    config = entry.get("config")
    of_layers = {"trainable", "layers", "batch_shape", "batch_input_shape"}
    return (
        isinstance(config, Mapping)
        and not of_layers & set(config)
        and f"keras.ops.{entry.get('class_name')}" in OPS
    )


def _add_parts(layer: Layer, version: int, depth: int) -> None:
    if layer.is_users:
        return
    if layer.class_name in CELLS:
        layer.parts = {"cell": Layer(CELLS[layer.class_name], "cell", layer.config)}
    elif layer.class_name in PARTS:
        entries = PARTS[layer.class_name](layer.config)
        layer.parts = {
            key: _layer(entry, version, key, depth + 1) for key, entry in entries.items()
        }


def _single_shape(value: Attribute) -> Shape | None:
    """The shape of the single input for which a layer was built; Keras 3 stores it."""
    if not isinstance(value, list) or not all(n is None or isinstance(n, int) for n in value):
        return None
    return tuple(value)


def _count_calls_from_zero(model: Layer, version: int) -> None:
    """Keras counts some calls of inner functional models from 1: call 0 is the one that made it.

    Keras 2 does everywhere. Keras 3 does in `output_layers` alone, and there only for functional
    models; a Sequential model is counted from 0.
    """
    functional = {layer.name for layer in model.layers if layer.model_kind == FUNCTIONAL}
    if version >= 3:
        change = dict.fromkeys(functional, 1)
        if any(end.layer in functional and end.call == 0 for end in model.outputs):
            raise ModelFileError(
                f"model {model.name!r} shows an output of a model inside before its first call"
            )
    else:
        inner = {layer.name for layer in model.layers if layer.model_kind}
        change = {}
        for tensor in model.reads():
            if tensor.layer in inner:
                change[tensor.layer] = min(tensor.call, change.get(tensor.layer, tensor.call))
        for layer in model.layers:
            layer.calls = [call.moved(change) for call in layer.calls]
    shown = [(end, end.call - change.get(end.layer, 0)) for end in model.outputs]
    model.outputs = [replace(end, call=call) for end, call in shown]


def _ends(value: Sequence[Any] | Mapping[str, Any], key: str = "") -> list[tuple[str, Tensor]]:
    """``["name", 0, 0]``, or a list or dict of such, with the keys of the dicts.

    Dicts come in the order of their sorted keys, as Keras numbers their elements.
    """
    if isinstance(value, Mapping):
        items = [(f"{key}_{name}" if key else str(name), value[name]) for name in sorted(value)]
        return [end for name, item in items for end in _ends(item, name)]
    if len(value) == 3 and isinstance(value[0], str) and isinstance(value[1], int):
        return [(key, Tensor(value[0], value[1], value[2]))]
    names = [f"{key}_{index}" if key and len(value) > 1 else key for index in range(len(value))]
    return [end for name, item in zip(names, value, strict=True) for end in _ends(item, name)]


def _call(call: Sequence[Any] | Mapping[str, Any]) -> LayerUse:
    tensors: list[Tensor] = []
    if isinstance(call, Mapping) and not {*call} - {"args", "kwargs"}:
        args = tuple(_keep(item, tensors) for item in call.get("args", []))
        kwargs = {key: _keep(v, tensors) for key, v in call.get("kwargs", {}).items()}
        return LayerUse(tuple(tensors), args, kwargs)
    if isinstance(call, Mapping):  # Keras 2: a model that is called with a dict
        return LayerUse(*_tensors_by_key(call))
    positional: list[Any] = []
    bindings: dict[str, Any] = {}
    # layers take lists of tensors, TensorFlow functions one tensor
    for name, node, index, *rest in [call] if isinstance(call[0], str) else call:
        bindings |= rest[0] if rest else {}
        if name == "_CONSTANT_VALUE":
            positional.append(index)
            continue
        positional.append(Ref(len(tensors)))
        tensors.append(Tensor(str(name), int(node), int(index)))
    kwargs = {key: _keep_old(value, tensors) for key, value in bindings.items()}
    args = (positional,) if len(positional) > 1 else tuple(positional)
    return LayerUse(tuple(tensors), args, kwargs)


def _tensors_by_key(call: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    tensors = tuple(Tensor(str(item[0]), int(item[1]), int(item[2])) for item in call.values())
    return tensors, ({key: Ref(index) for index, key in enumerate(call)},)


def _keep(value: object, tensors: list[Tensor]) -> Any:
    """Arguments as Keras 3 writes them, with a `Ref` for every tensor."""
    if isinstance(value, Mapping):
        kind = value.get("class_name")
        if kind == "__keras_tensor__":
            config = value["config"]
            name, node, index = config["keras_history"]
            shape = config.get("shape")
            known = None if shape is None else tuple(shape)
            tensors.append(Tensor(str(name), int(node), int(index), known, config.get("dtype")))
            return Ref(len(tensors) - 1)
        if kind in _LITERALS:
            return _LITERALS[kind](value.get("config") or {})
        return {key: _keep(item, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_keep(item, tensors) for item in value]
    return value


def _array(config: Mapping[str, Any]) -> Any:
    return np.array(config["value"], config["dtype"] if config["dtype"] != "bfloat16" else "f4")


_LITERALS: dict[Any, Callable[[Mapping[str, Any]], Any]] = {
    "__numpy__": _array,
    "__tensor__": _array,
    "__slice__": lambda config: slice(config["start"], config["stop"], config["step"]),
    "__ellipsis__": lambda config: Ellipsis,
    "__tuple__": lambda config: tuple(config.get("items", ())),
}


def _keep_old(value: Attribute, tensors: list[Tensor]) -> Any:
    """Arguments as Keras 2 writes them: ``["layer", call, output]`` is a tensor."""
    if isinstance(value, list):
        if len(value) in (3, 4) and isinstance(value[0], str):
            if value[0] == "_CONSTANT_VALUE":
                return value[2]
            if all(isinstance(n, int) for n in value[1:3]):
                tensors.append(Tensor(value[0], value[1], value[2]))
                return Ref(len(tensors) - 1)
        return [_keep_old(item, tensors) for item in value]
    if isinstance(value, Mapping):
        return {key: _keep_old(item, tensors) for key, item in value.items()}
    return value


def input_shape_of(layer: Layer) -> tuple[Sequence[Any] | None, str]:
    """The batch shape and type in a layer's own config for its input."""
    config = layer.config
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    if shape is None and config.get("input_shape") is not None:
        shape = [None, *config["input_shape"]]
    dtype = config.get("dtype")
    if isinstance(dtype, Mapping):
        dtype = dtype.get("config", {}).get("name")
    return shape, str(config.get("input_dtype") or dtype or "float32")
