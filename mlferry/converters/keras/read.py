"""Keras files and objects to a `Graph`."""

from __future__ import annotations

import importlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from mlferry import limits
from mlferry.converters.graph import Attribute, Attributes, Graph, Mask, Node, Value, distinct_names
from mlferry.converters.keras import arrays, hdf5, legacy, masks
from mlferry.converters.keras.calls import LayerCall, LayerUse, Ref, Tensor, only_refs
from mlferry.converters.keras.config import FUNCTIONAL, Layer, input_shape_of, parse
from mlferry.converters.keras.objects import KerasLayer
from mlferry.converters.keras.ops import OPS, tensorflow_ops
from mlferry.converters.stored_functions import StoredFunction, functions_of
from mlferry.errors import ConversionError, MlferryError, ModelFileError
from mlferry.numerics.shapes import Array, Shape
from mlferry.spec.weights import check_room

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
ZIP_MAGIC = b"PK\x03\x04"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLOCK = 16 << 20  # bytes of an archive read at a time

# Layers whose `activation` is applied last, to all of their outputs; it is split off.
_ACTIVATED = {
    *("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D"),
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
    *("LocallyConnected1D", "LocallyConnected2D"),
}
_ACROSS_VALUES = {"softmax", "log_softmax", "sparsemax", "glu"}


Keep = Collection[str]


def read(source: object, keep: Keep = (), custom_objects: Mapping[str, Any] | None = None) -> Graph:
    """A Keras model as a graph.

    Args:
        source: path of an `.h5` or `.keras` file (told by content, not by suffix), a pair of
            paths (architecture `.json`, weights `.h5`), or a model object.
        keep: names and classes of wrappers that are kept whole.
        custom_objects: the user's classes and functions, by their names in a file.

    Raises:
        ModelFileError: the file is damaged, or not a Keras model.
        MissingDependencyError: h5py is not installed.
    """
    if isinstance(source, tuple | list):
        with _our_errors(source):
            graph = _read_pair(source, keep)
    elif isinstance(source, str | os.PathLike):
        with _our_errors(source):
            graph = _read_file(Path(source), keep)
    else:
        return _read_object(source, keep)
    own = custom_objects or {}
    for node in graph.nodes:
        options = {
            name: own.get(stored.__name__, stored) for name, stored in node.functions.items()
        }
        node.functions = {**options, **functions_of(node.get_config(), own)}
    return graph


def claims(source: object) -> bool:
    """Whether a source belongs to this frontend; a file is judged by its content."""
    if isinstance(source, tuple | list):
        return True
    if isinstance(source, str | os.PathLike):
        return not Path(source).is_dir()
    return is_keras_object(source)


def is_keras_object(source: object) -> TypeGuard[KerasLayer]:
    """Whether an object is a model of Keras 3, tf.keras or tf_keras."""
    modules = [cls.__module__.split(".")[0] for cls in type(source).__mro__]
    return any(m in ("keras", "tf_keras", "tensorflow") for m in modules) and hasattr(
        source, "get_config"
    )


# ---- files -----------------------------------------------------------------------------


@contextmanager
def _our_errors(source: object) -> Iterator[None]:
    """A broken file may make any part fail: zlib, struct, or odd values in the config."""
    try:
        yield
    except MlferryError:
        raise
    except Exception as error:
        raise ModelFileError(
            f"{source} is damaged, or its config is not Keras's: {error!r:.400}"
        ) from error


def _read_file(path: Path, keep: Keep) -> Graph:
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    if magic == HDF5_MAGIC:
        return _read_hdf5(path, keep)
    if magic.startswith(ZIP_MAGIC):
        return _read_archive(path, keep)
    if not magic:
        raise ModelFileError(f"{path} is empty")
    raise ModelFileError(
        f"{path} is neither an ONNX nor a TensorFlow model, nor one of Keras, which is HDF5 (.h5) "
        "or a zip archive (.keras). For a JSON architecture with its weights give both: "
        "mlferry.convert(('model.json', 'weights.h5'))"
    )


def _read_hdf5(path: Path, keep: Keep) -> Graph:
    with hdf5.opened(path) as file:
        config = file.attrs.get("model_config")
        if config is None:
            problem = (
                "holds weights without an architecture; give both: mlferry.convert"
                f"(('model.json', {str(path)!r}))"
                if "layer_names" in file.attrs or "layers" in file
                else "is an HDF5 file, but not a Keras model"
            )
            raise ModelFileError(f"{path} {problem}")
        release, backend = (_text(file.attrs.get(n, "")) for n in ("keras_version", "backend"))
        group = file.group("model_weights") if "model_weights" in file else file
        check_room(group.stored_bytes())
        model = parse(_json(config, path), _major(release), path.stem)
        return _graph(model, arrays.LegacyHdf5(group), str(path), release, backend, keep)


def _read_pair(source: Sequence[Any], keep: Keep) -> Graph:
    if len(source) != 2:
        raise ModelFileError("give a pair of paths: ('model.json', 'weights.h5')")
    architecture, weights = (Path(item) for item in source)
    try:
        limits.check("config", architecture.stat().st_size, f"{architecture} has bytes:")
        text = architecture.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {architecture}: {error.strerror or error}") from error
    config = _json(text, architecture)
    release = _release(config)
    model = parse(config, _major(release), architecture.stem)
    with hdf5.opened(weights) as file:
        backend = _text(file.attrs.get("backend", config.get("backend", "")))
        group = file.group("model_weights") if "model_weights" in file else file
        check_room(group.stored_bytes())
        archive = "layer_names" not in group.attrs and "layers" in file
        store: arrays.Store = arrays.KerasArchive(file) if archive else arrays.LegacyHdf5(group)
        return _graph(model, store, str(architecture), release, backend, keep)


_WEIGHTS = "model.weights.h5"


def _read_archive(path: Path, keep: Keep) -> Graph:
    with tempfile.TemporaryDirectory(prefix="mlferry-") as folder:
        extracted = Path(folder) / _WEIGHTS
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            _check_names(names, path)
            config = _member(archive, "config.json", path)
            content = _member(archive, "metadata.json", path) if "metadata.json" in names else b"{}"
            with extracted.open("wb") as target:
                for block in _blocks(archive, _WEIGHTS, path):
                    target.write(block)
        metadata = _json(content, path)
        release = _text(metadata.get("keras_version", "3"))
        model = parse(_json(config, path), _major(release), path.stem)
        with hdf5.opened(extracted, path) as file:
            check_room(file.stored_bytes())
            return _graph(model, arrays.KerasArchive(file), str(path), release, "", keep)


def _check_names(names: Sequence[str], path: Path) -> None:
    if "config.json" not in names or _WEIGHTS not in names:
        raise ModelFileError(
            f"{path} is a zip archive, but not a .keras file: it has no config.json with "
            f"{_WEIGHTS} (it holds {', '.join(sorted(names)[:6])})"
        )
    for name in ("config.json", "metadata.json", _WEIGHTS):
        if names.count(name) > 1:
            raise ModelFileError(f"{path} holds {name} {names.count(name)} times")
    outside = [n for n in names if PurePosixPath(n).is_absolute() or ".." in n.split("/")]
    if outside:
        raise ModelFileError(f"{path} holds {outside[0]!r}, a name outside of its folder")


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> bytes:
    limits.check("config", archive.getinfo(name).file_size, f"{path}: {name} has bytes:")
    return b"".join(_blocks(archive, name, path))


def _blocks(archive: zipfile.ZipFile, name: str, path: Path) -> Iterator[bytes]:
    """The content of a member, which may be larger than the archive claims."""
    size = path.stat().st_size
    unpacked_size = archive.getinfo(name).file_size
    limits.check("weights", unpacked_size, f"{path}: {name} has bytes:")
    limits.check_growth(size, unpacked_size, f"{path}: {name} has")
    count = 0
    with archive.open(name) as stream:
        while block := stream.read(_BLOCK):
            count += len(block)
            limits.check_growth(size, count, f"{path}: {name} has")
            yield block


def _json(text: str | bytes, path: object) -> Any:
    limits.check("config", len(text), f"{path}: its architecture has bytes:")
    try:
        result = json.loads(text)
        if _SURROGATE.search(text if isinstance(text, str) else text.decode("latin-1")):
            json.dumps(result, ensure_ascii=False).encode()  # half a character is invalid
    except (ValueError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: the architecture is not valid JSON: {error}") from error
    if not isinstance(result, Mapping) or "class_name" not in result:
        if isinstance(result, Mapping) and "keras_version" in result and "class_name" not in result:
            return result
        raise ModelFileError(f"{path}: the JSON inside does not describe a Keras model")
    return result


def _text(value: str) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _release(config: Mapping[str, Any]) -> str:
    """The Keras that wrote a config; Keras 3 names modules instead of its version."""
    return _text(config.get("keras_version") or ("3" if "module" in config else ""))


def _major(release: str) -> int:
    """1, 2 or 3; files without a version were written by Keras 1."""
    first = release.split(".", maxsplit=1)[0]
    return int(first) if first.isdigit() else 1


# ---- objects ---------------------------------------------------------------------------


def _read_object(source: object, keep: Keep) -> Graph:
    if not is_keras_object(source):
        raise ConversionError(
            f"a {type(source).__name__} is not a Keras model: give a path, a pair of paths or a "
            "model object"
        )
    if not hasattr(source, "layers"):
        raise ConversionError(f"a {type(source).__name__} is a Keras layer; give the model")
    plain = _as_functional(source)
    try:
        text = plain.to_json()
    except (NotImplementedError, ValueError, TypeError) as error:
        raise ConversionError(
            f"{type(source).__name__} {source.name!r} is a subclassed model: its config does not "
            "tell what it computes; rebuild it with the functional API"
        ) from error
    config = json.loads(text)
    _complete(config, plain)
    release = _release(config)
    model = parse(config, _major(release), source.name)
    model.source = source
    return _graph(model, arrays.InMemory(source), f"model {source.name!r}", release, "", keep)


def _as_functional(model: KerasLayer) -> Any:
    """A model of a user's class that was built from inputs and outputs, as one of Keras's own."""
    names = {cls.__name__ for cls in type(model).__mro__}
    is_users = type(model).__name__ not in ("Functional", "Model", "Sequential")
    if not is_users or "Functional" not in names or "layers" in _config_of(model):
        return model
    library = next(
        root
        for cls in type(model).__mro__
        if (root := cls.__module__.split(".")[0]) in ("keras", "tf_keras")
    )
    kind = importlib.import_module(library).Model
    return kind(model.inputs, model.outputs, name=model.name)


def _config_of(model: KerasLayer) -> Mapping[str, Any]:
    try:
        entries: Mapping[str, Any] = model.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return {}  # Keras raises these if a user's class cannot return its own arguments
    return entries


def _complete(config: dict[str, Any], model: KerasLayer) -> None:
    """Give inner models of the user's own classes the layers that their configs lack."""
    entries = config["config"]
    listed = entries if isinstance(entries, list) else entries.get("layers", ())
    layers = {layer.name: layer for layer in model.layers}
    for entry in listed:
        inner = layers.get(entry.get("name") or entry["config"].get("name"))
        if inner is None or not hasattr(inner, "layers"):
            continue
        plain = _as_functional(inner)
        if plain is not inner:
            full = json.loads(plain.to_json())
            entry |= {"class_name": full["class_name"], "config": full["config"]}
            entry["registered_name"] = full.get("registered_name")
            entry["module"] = full.get("module")
        _complete(entry, plain)


# ---- the graph -------------------------------------------------------------------------


def _graph(
    model: Layer, store: arrays.Store, source: str, release: str, backend: str, keep: Keep
) -> Graph:
    version = _major(release)
    result = store.assign(model)
    for path, layer in model.holders():
        own = arrays.named(layer, result.get(path, []))
        result[path] = legacy.kernels(layer.class_name, layer.config, own, version, backend)
    return _Walk(model, result, version, keep).graph(source, release)


def graph_of(model: Layer, store: arrays.Store, source: str) -> Graph:
    """The graph of layers in memory whose masks are known only when the model runs."""
    stored = store.assign(model)
    entries = {path: arrays.named(layer, stored.get(path, [])) for path, layer in model.holders()}
    return _Walk(model, entries, 3, (), lists_masks=False).graph(source, "")


class _Walk:
    """Follows the calls of a model, into the models inside it."""

    def __init__(
        self,
        model: Layer,
        named_arrays: Mapping[arrays.Path, arrays.Named],
        version: int,
        keep: Keep,
        lists_masks: bool = True,
    ) -> None:
        self.model = model
        self.lists_masks = lists_masks
        self.found = dict(named_arrays)
        self.version = version
        self.keep = keep
        self.states: list[tuple[Value, Value]] = []
        self.batch: int | None = None  # of all inputs
        self.kept: dict[int, tuple[Node, range]] = {}  # the last calls of stateful layers
        self.nodes: list[Node] = []
        self.names: dict[str, int] = {}

    def graph(self, source: str, release: str) -> Graph:
        inputs, outputs = self._top_level()
        names = self._output_names()
        if len(names) != len(outputs):
            names = [value.name.replace("/", "_") for value in outputs]
        inputs += [before for before, _ in self.states]
        outputs += [after for _, after in self.states]
        names += [after.name.replace(":", "_") for _, after in self.states]
        shown = list(zip(distinct_names(names), outputs, strict=True))
        formats = {
            layer.config["data_format"]
            for _, layer in self.model.leaves()
            if layer.config.get("data_format")
        }
        if len(formats) > 1:
            formats -= {"channels_last"}
        return Graph(
            source=source,
            framework="Keras",
            version=min(self.version, 3),
            inputs=inputs,
            outputs=shown,
            nodes=self.nodes,
            channels_last=formats != {"channels_first"},
            release=release,
            is_file=self.model.source is None,
        )

    def _top_level(self) -> tuple[list[Value], list[Value]]:
        model = self.model
        if model.model_kind == "Sequential":
            first = model.layers[0]
            shape, dtype = input_shape_of(first)
            if shape is None:
                shape = model.config.get("build_input_shape")
            shape = shape or first.built_for
            name = first.name if first.class_name == "InputLayer" else f"{first.name}_input"
            while first.model_kind is not None and shape is None:
                first = first.layers[0]
                shape, dtype = input_shape_of(first)
            values = [Value(name, None if shape is None else tuple(shape), dtype)]
        else:
            values = []
            for end in model.inputs:
                shape, dtype = input_shape_of(model.find(end.layer))
                values.append(Value(end.layer, None if shape is None else tuple(shape), dtype))
        batches = {value.shape[0] if value.shape else None for value in values}
        self.batch = batches.pop() if len(batches) == 1 else None
        return values, self._run_model(model, values, ())

    def _output_names(self) -> list[str]:
        """The keys of a dict of outputs, or else the names of the layers that make them."""
        model = self.model
        if model.model_kind == "Sequential":
            return [model.layers[-1].name]
        pairs = zip(model.output_keys, model.outputs, strict=True)
        return [key or end.layer for key, end in pairs]

    def _run_model(self, model: Layer, inputs: Sequence[Value], path: arrays.Path) -> list[Value]:
        if model.model_kind == "Sequential":
            values = list(inputs)
            for layer, following in zip(model.layers, [*model.layers[1:], None], strict=True):
                if layer.class_name == "InputLayer":
                    continue
                shape = None if following is None else following.built_for
                options = None if shape is None else {0: Tensor(layer.name, 0, 0, shape)}
                values = self._apply(layer, LayerUse(()), values, path, options)
            return values
        listed = self.version >= 3 and not path and self.lists_masks
        results: dict[tuple[str, int], list[Value]] = {}
        if len(inputs) != len(model.inputs):
            raise ModelFileError(
                f"model {model.name!r} takes {len(model.inputs)} inputs, {len(inputs)} are given"
            )
        for end, value in zip(model.inputs, inputs, strict=True):
            results[(end.layer, end.call)] = [value]
        by_name = {layer.name: layer for layer in model.layers}
        shapes = _told_shapes(model)
        order = _order(model, by_name, set(results))
        heads = any(layer.class_name == "MultiHeadAttention" for layer in model.layers)
        if self.version >= 3 and heads:
            order = _by_depth(model, by_name, order)
        for name, index in order:
            layer = by_name[name]
            call = layer.calls[index]
            values = [self._pick(results, tensor, model) for tensor in call.inputs]
            options = shapes.get((name, index))
            given_masks = {
                place: None if mask is None else masks.explicit(self._pick(results, mask, model))
                for place, mask in call.masks.items()
            }
            use = LayerCall(
                call.args or _positional(values), call.kwargs, given_masks, _is_users(layer), listed
            )
            results[(name, index)] = self._apply(layer, call, values, path, options, use)
        return [self._pick(results, end, model) for end in model.outputs]

    def _pick(
        self, results: Mapping[tuple[str, int], list[Value]], tensor: Tensor, model: Layer
    ) -> Value:
        values = results.get((tensor.layer, tensor.call))
        if values is None or tensor.index >= len(values):
            raise ModelFileError(
                f"model {model.name!r} reads output {tensor.index} of call {tensor.call} of "
                f"{tensor.layer!r}, which does not exist"
            )
        return values[tensor.index]

    def _apply(
        self,
        layer: Layer,
        call: LayerUse,
        values: Sequence[Value],
        path: arrays.Path,
        listed: Mapping[int, Tensor] | None,
        use: LayerCall | None = None,
    ) -> list[Value]:
        use = use or LayerCall(_positional(values), is_users=_is_users(layer))
        if use.is_users:
            use = replace(use, stored=self.found.get((*path, layer.name), []))
        if layer.model_kind is not None:
            return self._run_inside(layer, values, path, use)
        stem = "/".join((*path, layer.name))
        count = self.names.get(stem, 0)
        self.names[stem] = count + 1
        name = stem if not count else f"{stem}_call_{count}"
        keys = _keys(layer, name)
        taken_apart = layer.parts and not {*keys} & {*self.keep}
        if layer.class_name == "TimeDistributed" and taken_apart:
            return self._time_distributed(layer, values, name, path, use)
        if layer.class_name == "SpectralNormalization" and taken_apart:
            return self._inside(layer, layer.parts["layer"], values, path)  # only trained
        if layer.class_name == "Pipeline" and taken_apart:
            for part in layer.parts.values():
                values = self._inside(layer, part, values, path)
            return list(values)
        config = dict(layer.config)
        arguments = {
            key: value
            for key, value in call.options.items()
            if not (use.is_users and only_refs(value))
            and not (key == "training" and self.version >= 3)  # `predict` overrules it
        }
        activation = None
        if layer.class_name in _ACTIVATED and not layer.is_users:
            activation = config.pop("activation", None)
        elif layer.class_name == "Activation":
            kind = config.pop("activation")
            return [self._activation(kind, name, layer, values, config, use, arguments)]
        listed = listed or {0: Tensor(layer.name, 0, 0)}
        shapes = _shapes_in_memory(layer)
        outputs = [
            Value(f"{name}:{index}", tensor.shape or shapes.get(index), tensor.dtype or "float32")
            for index, tensor in sorted(listed.items())
        ]
        node = Node(
            op=_op(layer),
            name=name,
            inputs=tuple(values),
            outputs=tuple(outputs),
            attrs=Attributes(config),
            arguments=Attributes(arguments),
            weights=self._weights(layer, path),
            keys=keys,
            layer=layer.source,
            call=use,
        )
        node.parts = self._parts(node, layer, (*path, layer.name))
        self.nodes.append(node)
        if _is_stateful(layer) and "initial_state" not in arguments and len(values) == 1:
            self._keep_states(node, id(layer.config))
        if activation is None or activation == "linear":
            return outputs
        label = f"{name}/{activation_name(activation)}"
        return [self._activation(activation, label, layer, outputs, {}, use)]

    def _run_inside(
        self, model: Layer, values: Sequence[Value], path: arrays.Path, use: LayerCall
    ) -> list[Value]:
        """An inner model, with its inputs in its own order and with the masks of the call."""
        if any(use.masks.values()):
            name = f"{'/'.join((*path, model.name))}/masks_{len(self.nodes)}"
            attrs = Attributes({})
            self.nodes.append(Node(masks.SET, name, tuple(values), (), attrs, call=use))
        parts = list(values)
        if model.model_kind == FUNCTIONAL:
            names = [end.layer for end in model.inputs]
            order = use.in_order_of(names, keyed=model.takes_dict)
            inputs = [model.find(name) for name in names]
            parts = [
                self._as_typed(parts[index], layer, "/".join((*path, model.name)))
                for index, layer in zip(order, inputs, strict=False)
            ]
        return self._run_model(model, parts, (*path, model.name))

    def _as_typed(self, value: Value, layer: Layer, name: str) -> Value:
        """A value cast to the type of the model's input, as Keras does."""
        _, dtype = input_shape_of(layer)
        if dtype.startswith("float") or value.dtype == dtype or not value.dtype.startswith("float"):
            return value
        label = f"{name}/{layer.name}/cast_{len(self.nodes)}"
        out = Value(f"{label}:0", value.shape, dtype)
        call = LayerCall((Ref(0), dtype))
        attrs = Attributes({})
        self.nodes.append(Node("keras.ops.Cast", label, (value,), (out,), attrs, call=call))
        return out

    def _weights(self, layer: Layer, path: arrays.Path) -> dict[str, Array]:
        """The arrays of a layer and its parts; names of the latter begin with the part's key."""
        items: arrays.Named = []
        own = (*path, layer.name)
        for owner, _ in layer.holders(own):
            prefix = "".join(f"{key}/" for key in owner[len(own) :])
            items += [(prefix + name, a) for name, a in _distinct(self.found.get(owner, []))]
        return dict(items)

    def _parts(self, node: Node, layer: Layer, path: arrays.Path) -> dict[str, Node]:
        results = {}
        for key, part in layer.parts.items():
            shared = part.config is layer.config
            results[key] = Node(
                op=_op(part),
                name=f"{node.name}/{key}",
                inputs=(),
                outputs=(),
                attrs=node.attrs if shared else Attributes(part.config),
                weights=dict(self.found.get((*path, key), [])),
                keys=(_op(part),),
            )
            results[key].parts = self._parts(results[key], part, (*path, key))
        return results

    def _keep_states(self, node: Node, owner: int) -> None:
        """The states of a stateful layer become inputs and outputs of the model.

        A layer that is called again goes on with the states of its last call.
        """
        if owner in self.kept:
            last, places = self.kept[owner]
            for place in places:
                before, after = self.states[place]
                name = f"{before.name.removesuffix('_in')}_{len(self.nodes)}_in"
                between = Value(name, after.shape)
                last.outputs = tuple(between if v is after else v for v in last.outputs)
                node.inputs += (between,)
                node.outputs += (after,)
            self.kept[owner] = node, places
            return
        first = len(self.states)
        for index, shape in enumerate(state_shapes(node, self.batch)):
            before = Value(f"{node.name}_state_{index}_in".replace("/", "_"), shape)
            after = Value(f"{node.name}_state_{index}_out".replace("/", "_"), shape)
            self.states.append((before, after))
            node.inputs += (before,)
            node.outputs += (after,)
        self.kept[owner] = node, range(first, len(self.states))

    def _time_distributed(
        self, layer: Layer, values: Sequence[Value], name: str, path: arrays.Path, use: LayerCall
    ) -> list[Value]:
        """Merge time into the batch, apply the inner layer, and split them again."""
        folded = [
            self._reshaped("fold", name, layer, [value], use, {0: use.masks.get(index)})
            for index, value in enumerate(values)
        ]
        result = self._inside(layer, layer.parts["layer"], folded, path)
        outer = {1: use.masks.get(0)}
        return [
            self._reshaped("unfold", name, layer, [value, *values[:1]], use, outer)
            for value in result
        ]

    def _inside(
        self, layer: Layer, inner: Layer, values: Sequence[Value], path: arrays.Path
    ) -> list[Value]:
        """A layer inside another, or a model."""
        key = next(key for key, part in layer.parts.items() if part is inner)
        own = (*path, layer.name, key)
        if inner.model_kind is not None:
            return self._run_model(inner, values, own)
        # found by the key of the part, shown with both names
        renamed = replace(inner, name=f"{layer.name}/{inner.name}")
        for owner, _ in inner.holders(own):
            moved = (*path, renamed.name, *owner[len(own) :])
            self.found[moved] = self.found.get(owner, [])
        return self._apply(renamed, LayerUse(()), values, path, None)

    def _reshaped(
        self,
        step: str,
        name: str,
        layer: Layer,
        values: Sequence[Value],
        use: LayerCall,
        masks_of_inputs: Mapping[int, Mask | None],
    ) -> Value:
        bindings = {i: mask for i, mask in masks_of_inputs.items() if mask is not None}
        index = len(self.nodes)
        out = Value(f"{name}:{step}_{index}", None, values[0].dtype)
        self.nodes.append(
            Node(
                op=f"TimeDistributed.{step}",
                name=f"{name}/{step}",
                inputs=tuple(values),
                outputs=(out,),
                attrs=Attributes({}),
                keys=_keys(layer, name),
                call=LayerCall(masks=bindings, lists_masks=use.lists_masks),
            )
        )
        return out

    def _activation(
        self,
        activation: Attribute,
        name: str,
        layer: Layer,
        values: Sequence[Value],
        config: Mapping[str, Any],
        use: LayerCall,
        arguments: Mapping[str, Any] | None = None,
    ) -> Value:
        """The node of an activation, which is given by name, as a function or as a layer."""
        op = plain = activation_name(activation)
        function = getattr(layer.source, "activation", None)
        full = _full_name(activation)
        keys = (
            [name, layer.name, full, op] if layer.class_name == "Activation" else [name, full, op]
        )
        if OPS.find(op) is not None and _is_users_function(activation, function):
            op = full if ">" in full else f"Custom>{op}"  # Keras's own package for them
        options = dict(config)
        if isinstance(activation, Mapping) and activation.get("class_name") != "function":
            inner = activation.get("config")
            if isinstance(inner, Mapping):
                _, modern = legacy.modern(op, dict(inner), self.version)
                options |= {k: v for k, v in modern.items() if k != "name"}
        out = Value(f"{name}:activation", values[0].shape, values[0].dtype)
        if layer.class_name == "Activation":
            keys.append("Activation")
        self.nodes.append(
            Node(
                op=op,
                name=name,
                inputs=tuple(values),
                outputs=(out,),
                attrs=Attributes(options),
                arguments=Attributes(arguments or {}),
                keys=tuple(dict.fromkeys(keys)),
                elementwise=op not in _ACROSS_VALUES,
                layer=layer.source,
                functions={}
                if layer.source
                else {"activation": StoredFunction(plain, "activation")},
                call=LayerCall(lists_masks=use.lists_masks, function=function),
            )
        )
        return out


def _positional(values: Sequence[Value]) -> tuple[Any, ...]:
    """The arguments of a call that the config does not spell out."""
    refs = [Ref(index) for index in range(len(values))]
    return tuple(refs) if len(refs) == 1 else (refs,)


def _is_stateful(layer: Layer) -> bool:
    """Whether a recurrent layer, or the one in a `Bidirectional`, keeps its states."""
    owners = layer.parts.values() if layer.class_name == "Bidirectional" else [layer]
    return any(owner.config.get("stateful") for owner in owners)


def state_shapes(node: Node, batch: int | None = None) -> list[Shape]:
    """The shapes of the states of a stateful recurrent layer.

    Args:
        batch: of the model, for files that do not tell the shapes of layers.

    Raises:
        ConversionError: the batch is not fixed, or the cell is not one of Keras's.
    """
    from mlferry.converters.keras.ops.cells import states_of

    if node.op.startswith("ConvLSTM"):
        raise ConversionError(
            f"{node}: its states are maps, which no input of the model holds: convert it with "
            "stateful=False"
        )
    shape = node.inputs[0].shape or (batch,)
    if shape[0] is None:
        raise ConversionError(
            f"{node}: a stateful layer needs a fixed batch: give the model's Input a batch_size"
        )
    return states_of(node, shape)


def _shapes_in_memory(layer: Layer) -> dict[int, Shape]:
    """The output shapes of a layer object that is called once."""
    if layer.source is None or len(layer.calls) > 1:
        return {}
    try:
        result = layer.source.output
    except (AttributeError, RuntimeError, ValueError):
        return {}
    outputs = result if isinstance(result, list | tuple) else [result]
    return {index: tuple(tensor.shape) for index, tensor in enumerate(outputs)}


def _op(layer: Layer) -> str:
    """The layer's class, with its package if it hides a class of Keras's own."""
    name = layer.class_name.rsplit(">", 1)[-1]
    if layer.is_op:
        return f"keras.ops.{name}"
    if name in ("TFOpLambda", "SlicingOpLambda", "ClassMethod"):
        return "tf." + str(layer.config.get("function", name)).removeprefix("compat.v1.")
    if name == "TensorFlowOpLayer":
        return tensorflow_ops.key_of(layer.config)
    if layer.is_users and name in OPS:
        full = layer.registered_name or layer.class_name
        return full if ">" in full else f"Custom>{full}"  # Keras's own package for them
    return name


def _is_users(layer: Layer) -> bool:
    """Whether only a layer's own code shows what it does with masks."""
    return layer.is_users or (layer.model_kind is None and _op(layer) not in OPS)


def _keys(layer: Layer, name: str) -> tuple[str, ...]:
    """The names for custom functions: the layer's, then its class with and without package."""
    classes = [layer.registered_name or "", layer.class_name]
    plain = [results.rsplit(">", 1)[-1] for results in classes]
    results = [name, layer.name, *classes, _op(layer), *plain]
    return tuple(dict.fromkeys(key for key in results if key))


def activation_name(activation: Attribute) -> str:
    """The name of an activation: ``"relu"``, or the class of an activation layer."""
    if isinstance(activation, Mapping):
        name = activation.get("class_name")
        if name == "function":
            name = activation.get("config")
        if isinstance(name, Mapping):
            name = name.get("name")
        return str(name).rsplit(">", 1)[-1]
    return str(activation).rsplit(">", 1)[-1]


def _full_name(activation: Attribute) -> str:
    """The name of an activation, with its package if it is registered in one."""
    if not isinstance(activation, Mapping):
        return str(activation)
    inner = activation.get("config")
    match = (
        inner if activation.get("class_name") == "function" else activation.get("registered_name")
    )
    return match if isinstance(match, str) else activation_name(activation)


def _is_users_function(activation: Attribute, function: Callable[..., Any] | None) -> bool:
    """Whether an activation only shares its name with one of Keras's own.

    Keras 3 writes only its own by name alone; Keras 2 writes all so, and the object in memory
    decides.
    """
    if isinstance(activation, Mapping):
        return activation.get("class_name") == "function" and not isinstance(
            activation.get("config"), Mapping
        )
    root = str(getattr(function, "__module__", None) or "keras").split(".", maxsplit=1)[0]
    is_function = getattr(function, "__name__", None) == activation
    return is_function and root not in ("keras", "tf_keras", "tensorflow")


def _distinct(items: arrays.Named) -> arrays.Named:
    """The arrays, with names without the layer's own path, made unique if necessary."""
    short = [name.rsplit("/", 1)[-1] for name, _ in items]
    if len(set(short)) != len(short):
        short = [name for name, _ in items]
    if len(set(short)) != len(short):
        short = [f"{name}_{index}" for index, name in enumerate(short)]
    return [(name, array) for name, (_, array) in zip(short, items, strict=True)]


def _told_shapes(model: Layer) -> dict[tuple[str, int], dict[int, Tensor]]:
    """The outputs of each call, with the shapes that the config gives to its readers (Keras 3)."""
    entries: dict[tuple[str, int], dict[int, Tensor]] = {}
    for tensor in model.reads():
        outputs = entries.setdefault((tensor.layer, tensor.call), {})
        for index in range(tensor.index + 1):
            outputs.setdefault(index, Tensor(tensor.layer, tensor.call, index))
        if tensor.shape is not None or tensor.index not in outputs:
            outputs[tensor.index] = tensor
    return entries


def _order(
    model: Layer, by_name: Mapping[str, Layer], known: set[tuple[str, int]]
) -> list[tuple[str, int]]:
    """The calls that the outputs need, each after those that it reads."""
    order: list[tuple[str, int]] = []
    done = set(known)
    active: set[tuple[str, int]] = set()
    stack = [(tensor.layer, tensor.call) for tensor in reversed(model.outputs)]
    while stack:
        key = stack[-1]
        if key in done:
            stack.pop()
            continue
        layer = by_name.get(key[0])
        if layer is None or key[1] >= len(layer.calls):
            raise ModelFileError(
                f"model {model.name!r} refers to call {key[1]} of {key[0]!r}, which does not exist"
            )
        reads = [(tensor.layer, tensor.call) for tensor in layer.calls[key[1]].reads]
        waiting = [reference for reference in reads if reference not in done]
        if waiting:
            if key in active:
                raise ModelFileError(f"model {model.name!r}: {key[0]!r} depends on itself")
            active.add(key)
            stack.extend(reversed(waiting))
            continue
        done.add(key)
        order.append(key)
        stack.pop()
    return order


def _by_depth(
    model: Layer, by_name: Mapping[str, Layer], order: Sequence[tuple[str, int]]
) -> list[tuple[str, int]]:
    """The calls in the order in which Keras 3 runs them: by their distance from the outputs.

    The order matters only if a layer changes what others see: `MultiHeadAttention` removes the
    masks from its inputs. All calls of a layer count as far as the farthest seen before.
    """
    depths: dict[tuple[str, int], int] = {}
    of_layers: dict[str, int] = {}
    for key in reversed(order):
        depth = max(depths.setdefault(key, 0), of_layers.get(key[0], 0))
        of_layers[key[0]] = depths[key] = depth
        for tensor in by_name[key[0]].calls[key[1]].reads:
            reference = (tensor.layer, tensor.call)
            depths[reference] = max(depth + 1, depths.get(reference, 0))
    remaining = {*order}
    return sorted((key for key in depths if key in remaining), key=lambda key: -depths[key])
