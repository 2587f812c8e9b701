"""The readers: what each reads, from which seeds its inputs are made, and how."""

from __future__ import annotations

import functools
import io
import json
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mlferry
from mlferry.programs.values import has_blobs
from mlferry.spec.io import load_spec
from mlferry.spec.proto import model_pb2
from tests.fuzz import mutate
from tests.fuzz.mutate import Mutator


@dataclass(frozen=True)
class Reader:
    """What is fuzzed.

    Attributes:
        seeds: makes the inputs that are mutated.
        mutators: ways to do so.
        read: reads an input; may raise errors of mlferry alone.
        count: inputs of a full run.
        seconds: that an input may take.
        reserve: bytes of address space of what is loaded while inputs are read, also by a process
            that reads them and inherits the limit: it is started again after a crash.
    """

    seeds: Callable[[], list[bytes]]
    mutators: tuple[Mutator, ...]
    read: Callable[[bytes], Any]
    count: int = 100_000
    seconds: float = 5.0
    reserve: int = 0


SMALL = {"blob": 64 << 20, "rounds": 200, "unrolled": 500, "constants": 64 << 20,
         "weights": 256 << 20, "always": 16 << 20}  # fmt: skip


@contextmanager
def _file(data: bytes, suffix: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"m{suffix}"
        path.write_bytes(data)
        yield path


# ---- .mlmodel ----------------------------------------------------------------------------------


def _predicted(spec: model_pb2.Model) -> None:
    """What a user does with a model: look, run, save."""
    with mlferry.limits.changed(**SMALL):
        model = mlferry.MLModel(spec.SerializeToString())
        model.describe()
        model.predict(_inputs(spec))


def _inputs(spec: model_pb2.Model) -> dict[str, Any]:
    """Something for every input."""
    data: dict[str, Any] = {}
    for feature in spec.description.input:
        kind = feature.type.WhichOneof("Type")
        if kind == "multiArrayType":
            shape = [max(0, min(int(n), 12)) for n in feature.type.multiArrayType.shape]
            data[feature.name] = np.ones(shape[:6] or [3], np.float32)
        elif kind == "imageType":
            size = feature.type.imageType
            data[feature.name] = np.zeros(
                [max(0, min(int(n), 64)) for n in (size.height, size.width)] + [3], "u1"
            )
        else:
            data[feature.name] = {"stringType": "a"}.get(kind or "", 1)
    return data


def _mlmodel(data: bytes) -> None:
    from mlferry.spec import io as files

    _predicted(files.parse_spec(data))


def _mlmodels() -> list[bytes]:
    from tests.layers import broken_models

    result = [
        getattr(broken_models, name)()
        for name in ("plain", "image", "classifier", "regressor", "legacy", "pipeline")
    ]
    return [spec.SerializeToString() for spec in result]


def _layers() -> list[bytes]:
    """A network of each kind of layer."""
    from mlferry.layers.builder import LAYER_KINDS
    from tests.layers.broken_layers import SANE_PARAMS, layer_model

    result = [layer_model(kind, SANE_PARAMS.get(kind, {})) for kind in LAYER_KINDS]
    return [spec.SerializeToString() for spec in result]


# ---- .mlpackage ----------------------------------------------------------------------------------


def _program(data: bytes) -> None:
    """What a user does with a program: look, draw, run in both precisions."""
    from mlferry.models.view.graph import graph_of
    from mlferry.spec import io as files

    with mlferry.limits.changed(**SMALL):
        model = mlferry.MLModel(files.parse_spec(data))
        model.describe()
        graph_of(model.spec, {}, {})
        for each in (model, model.with_precision("exact")):
            state = each.make_state() if model.spec.description.state else None
            each.predict(_inputs(model.spec), state)


def _programs() -> list[bytes]:
    """A program of every op, and some with states, functions, branches, images and labels."""
    from tests.programs import make, op_rows, small

    result = {f"{name} {n}": build().SerializeToString(deterministic=True)
            for name, build in small.SANE.items() for n in range(10)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for row in op_rows.ROWS:
            whole = make.program(row.build, row.inputs, row.since)
            spec = make.message(whole, row.since, Path(folder))
            if not has_blobs(spec):
                result[f"{row.op} {row.since}"] = spec.SerializeToString(deterministic=True)
    return list(result.values())


# Where the files of a package lie that is an archive here.
_MEMBERS = {
    "Manifest.json": "Manifest.json",
    "model.mlmodel": "Data/com.apple.CoreML/model.mlmodel",
    "weight.bin": "Data/com.apple.CoreML/weights/weight.bin",
}


def _packages() -> list[bytes]:
    """Packages with weights: of whole numbers and compressed ones, with a state, of a loop."""
    from tests.programs import by_hand, make, op_rows

    chosen = ("conv", "lstm", "constexpr_lut_to_dense", "constexpr_sparse_to_dense",
              "constexpr_blockwise_shift_scale", "constexpr_affine_dequantize")  # fmt: skip
    result = []
    with tempfile.TemporaryDirectory() as folder:
        for index, row in enumerate(op_rows.ROWS):
            if row.op not in chosen:
                continue
            path = make.package(row.build, row.inputs, Path(folder) / f"{index}.mlpackage",
                                row.since)  # fmt: skip
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                members = {  # the same on every run: a manifest has random numbers
                    "Manifest.json": json.dumps(by_hand.manifest()).encode(),
                    "model.mlmodel": load_spec(path).SerializeToString(deterministic=True),
                }
                weights = path / _MEMBERS["weight.bin"]
                if weights.exists():
                    members["weight.bin"] = weights.read_bytes()
                for name, data in members.items():
                    archive.writestr(zipfile.ZipInfo(name), data)
            result.append(buffer.getvalue())
    return result


def _package(data: bytes) -> None:
    """What a user does with a package: read, look, run, save, read again."""
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder) / "m.mlpackage", Path(folder) / "copy.mlpackage"
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in set(archive.namelist()) & set(_MEMBERS):
                file = path / _MEMBERS[name]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(name))
        with mlferry.limits.changed(**SMALL):
            model = mlferry.MLModel(path)
            model.describe()
            model.save(copy)
            assert mlferry.MLModel(copy).spec == model.spec
            model.predict(_inputs(model.spec))


# ---- Keras -------------------------------------------------------------------------------------


@functools.cache
def _keras_models() -> list[Any]:
    import keras

    k = keras.layers
    picture = keras.Input((8, 8, 3), name="picture")
    x = k.Conv2D(4, 3, padding="same", activation="relu", name="conv")(picture)
    x = k.BatchNormalization(name="norm")(x)
    y = k.MaxPooling2D(name="pool")(x)
    y = k.UpSampling2D(name="up")(y)
    x = k.Add(name="add")([x, y])
    x = k.Dense(3, activation="softmax", name="out")(k.Flatten(name="flat")(x))
    words = keras.Sequential(
        [keras.Input((5,), name="words"), k.Embedding(7, 4, name="embed"),
         k.Bidirectional(k.LSTM(3, return_sequences=True), name="both"), k.GRU(2, name="gru"),
         k.Dense(2, name="dense")], name="words_model",
    )  # fmt: skip
    inner = keras.Sequential([keras.Input((4,)), k.Dense(3, name="in")], name="inner")
    inputs = keras.Input((4,), name="given")
    outer = keras.Model(inputs, k.TimeDistributed(inner, name="td")(
        k.RepeatVector(2, name="twice")(k.Activation("tanh", name="act")(inputs))), name="outer",
    )  # fmt: skip
    return [keras.Model(picture, x, name="picture_model"), words, outer]


def _keras_layers() -> list[Any]:
    """A model of each layer."""
    import keras

    from tests.converters.keras.cases import LAYERS

    firsts = {case.op: case for case in reversed(LAYERS) if case.only in (None, "keras")}
    models = []
    for case in firsts.values():
        inputs = [keras.Input(shape) for shape in case.shapes]
        layer = case.make(keras.layers)
        models.append(keras.Model(inputs, layer(inputs[0] if len(inputs) == 1 else inputs)))
    return models


def _saved(suffix: str, models: Callable[[], list[Any]] = _keras_models) -> list[bytes]:
    matches = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model in models():
            path = Path(folder) / f"m{suffix}"
            model.save(path)
            matches.append(path.read_bytes())
    return matches


def _converted(data: bytes, suffix: str) -> None:
    limited = mlferry.limits.changed(**SMALL, seconds=0.2)
    with _file(data, suffix) as path, limited, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlferry.convert(path)


def _config(data: bytes) -> None:
    """The file is whole but for the config: no process of its own is needed."""
    with mlferry.limits.changed(isolated=False):
        _converted(data, ".h5")


# ---- ONNX --------------------------------------------------------------------------------------


def _onnx_models() -> list[bytes]:
    import onnx.parser

    texts = [
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[1,3,8,8] x) => (float[1,2] y)
        <float[2,3,3,3] w = {54 *}, float[2] b = {1, 2}, int64[2] s = {1, -1},
         float[32,2] m = {64 *}> {
          a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w, b)
          r = Relu (a)
          f = Reshape (r, s)
          p = MatMul (f, m)
          y = Softmax <axis = -1> (p)
        }""",
        """<ir_version: 8, opset_import: ["": 17, "own": 1]>
        g (float[2,4] x, bool c) => (float[N,4] y, float[2] z)
        <int64 n = {3}, bool t = {1}, int64[1] ax = {1}> {
          u = own.twice (x)
          v = If (c) <then_branch = yes () => (float[2,4] o) { o = Neg (u) },
                      else_branch = no () => (float[2,4] o) { o = Abs (u) }>
          w = Loop (n, t, v) <body = rounds (int64 i, bool d, float[2,4] s)
              => (bool e, float[2,4] o) { e = Identity (d)  o = Add (s, s) }>
          y = Concat <axis = 0> (v, w)
          z = ReduceSum <keepdims = 0> (w, ax)
        }
        <domain: "own", opset_import: ["": 17]>
        twice (a) => (b) { b = Add (a, a) }""",
        """<ir_version: 8, opset_import: ["": 13]>
        g (float[5,1,4] x) => (float[5,1,1,3] y, float[2] q)
        <float[1,12,4] w = {48 *}, float[1,12,3] r = {36 *}, int64[2] i = {0, 1}, float sc = {0.1},
         int8 zp = {0}, int64[3] st = {0,0,0}, int64[3] en = {2,1,1}> {
          y = LSTM <hidden_size = 3> (x, w, r)
          d = Slice (x, st, en)
          k = Constant <value = int64[1] {2}> ()
          h = Reshape (d, k)
          e = QuantizeLinear (h, sc, zp)
          f = DequantizeLinear (e, sc, zp)
          q = Gather (f, i)
        }""",
    ]  # fmt: skip
    full = [re.sub(r"(\d+) \*", lambda m: ", ".join(["0.2"] * int(m[1])), text) for text in texts]
    return [onnx.parser.parse_model(text).SerializeToString() for text in full]


def _onnx_ops() -> list[bytes]:
    """A model of each op of the rows of its tests."""
    from tests.converters.onnx.test_ops import CASES, model

    return [model(case)[0].SerializeToString() for case in CASES.values()]


def _onnx_predictors() -> list[bytes]:
    """A model of each `ai.onnx.ml` op."""
    from tests.converters.onnx.ml_cases import CASES

    firsts = {case.nodes[0].op_type: case for case in reversed(CASES)}
    return [case.model().SerializeToString() for _, case in sorted(firsts.items())]


def _predictors() -> list[bytes]:
    """Linear models, support vector machines, nearest neighbours."""
    from tests.layers.broken_predictors import SANE

    return [make().SerializeToString() for make in SANE.values()]


def _predictor(data: bytes) -> None:
    with mlferry.limits.changed(**SMALL), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlferry.MLModel(model_pb2.Model.FromString(data)).predict({"x": [1.0, 2.0]})


def _onnx(data: bytes) -> None:
    with mlferry.limits.changed(**SMALL), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlferry.convert(data)


def _onnx_proto() -> Any:
    import onnx

    return onnx.ModelProto()


# ---- TensorFlow --------------------------------------------------------------------------------


@functools.cache
def _functions() -> list[Any]:
    import tensorflow as tf

    kernel = tf.constant(np.linspace(-1, 1, 54).reshape(3, 3, 3, 2), tf.float32)

    def picture(x: Any) -> Any:
        y = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), [1.0, 2.0]))
        y = tf.reshape(tf.nn.max_pool2d(y, 2, 2, "VALID"), [1, -1])
        return tf.nn.softmax(tf.matmul(y, tf.ones((32, 3))))

    def steps(x: Any) -> Any:
        def more(i: Any, v: Any) -> Any:
            return i + 1, v * 0.5 + tf.reduce_mean(v)

        _, y = tf.while_loop(lambda i, v: tf.reduce_sum(v) > 1.0, more, (0, x))
        return tf.cond(
            tf.reduce_max(y) > 0, lambda: y + 1, lambda: tf.transpose(y, [0, 2, 1])[..., :3]
        )

    return [
        tf.function(picture).get_concrete_function(tf.TensorSpec((1, 8, 8, 3), name="x")),
        tf.function(steps).get_concrete_function(tf.TensorSpec((1, 3, 3), name="x")),
    ]  # fmt: skip


def _graphs() -> list[bytes]:
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    return [
        convert_variables_to_constants_v2(function, lower_control_flow=False)
        .graph.as_graph_def().SerializeToString()
        for function in _functions()
    ]  # fmt: skip


def _graph_proto() -> Any:
    import tensorflow as tf

    return tf.compat.v1.GraphDef()


@functools.cache
def _variables() -> dict[str, bytes]:
    """The files of a SavedModel; its message is the one that is mutated."""
    import tensorflow as tf

    class Scaled(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.scale = tf.Variable([2.0, 3.0])

        @tf.function(input_signature=[tf.TensorSpec([1, 2], name="x")])  # type: ignore[misc]
        def __call__(self, x: Any) -> Any:
            return tf.nn.relu(x * self.scale)

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(Scaled(), folder)
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in Path(folder).rglob("*") if path.is_file()
        }  # fmt: skip


def _saved_model(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in {**_variables(), "saved_model.pb": data}.items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        with mlferry.limits.changed(**SMALL):
            mlferry.convert(folder)


def _saved_model_proto() -> Any:
    from tensorflow.core.protobuf import saved_model_pb2

    return saved_model_pb2.SavedModel()


# ---- the table ---------------------------------------------------------------------------------

_HDF5_WAYS = (*mutate.BYTES, mutate.hdf5, mutate.hdf5, mutate.config_of(attribute="model_config"))
_SPEC = mutate.protobuf(model_pb2.Model)
TENSORFLOW_STARTS = 60.0  # seconds on a busy machine, after each crash
TENSORFLOW_RESERVES = 48 << 30
READERS: dict[str, Reader] = {
    "mlmodel": Reader(_mlmodels, (*mutate.BYTES, _SPEC, _SPEC, _SPEC, _SPEC), _mlmodel),
    "layers": Reader(_layers, (_SPEC,), _mlmodel),
    "programs": Reader(_programs, (_SPEC,), _program),
    "package": Reader(
        _packages,
        (mutate.archive(
            Manifest__json=(mutate.json_text, mutate.json_text, *mutate.BYTES),
            model__mlmodel=(_SPEC,), weight__bin=(mutate.weight_file, *mutate.BYTES),
        ),),
        _package,
    ),
    "keras h5": Reader(lambda: _saved(".h5"), _HDF5_WAYS, lambda data: _converted(data, ".h5"),
                       20_000),
    "keras archive": Reader(
        lambda: _saved(".keras"),
        (*mutate.BYTES, *[mutate.archive(
            config__json=(mutate.json_text, mutate.flipped),
            metadata__json=(mutate.json_text, mutate.flipped),
            model__weights__h5=(*mutate.BYTES, mutate.hdf5, mutate.hdf5),
        )] * 6),
        lambda data: _converted(data, ".keras"), 20_000,
    ),
    "keras config": Reader(
        lambda: _saved(".h5"), (mutate.config_of(attribute="model_config"),), _config,
    ),
    "keras layers": Reader(
        lambda: _saved(".h5", _keras_layers), (mutate.config_of(attribute="model_config"),),
        _config,
    ),
    "onnx ops": Reader(_onnx_ops, (mutate.protobuf(_onnx_proto),), _onnx),
    "onnx": Reader(_onnx_models, (*mutate.BYTES, *[mutate.protobuf(_onnx_proto)] * 6), _onnx),
    "onnx predictors": Reader(_onnx_predictors, (mutate.protobuf(_onnx_proto),), _onnx),
    "predictors": Reader(_predictors, (_SPEC,), _predictor),
    "graphdef": Reader(
        _graphs, (*mutate.BYTES, *[mutate.protobuf(_graph_proto)] * 6),
        lambda data: _converted(data, ".pb"), 20_000, TENSORFLOW_STARTS, TENSORFLOW_RESERVES,
    ),
    "saved model": Reader(
        lambda: [_variables()["saved_model.pb"]],
        (*mutate.BYTES, *[mutate.protobuf(_saved_model_proto)] * 6), _saved_model,
        20_000, TENSORFLOW_STARTS, TENSORFLOW_RESERVES,
    ),
}  # fmt: skip
