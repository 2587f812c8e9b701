"""Whole models: branches, nesting, sharing, layouts, and every way to read them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry

Library = Callable[[str], Any]
Build = Callable[[Any], Any]


def plain_classifier(k: Any) -> Any:
    """What most image classifiers look like."""
    return k.Sequential(
        [
            k.layers.Input((16, 16, 3), name="image"),
            k.layers.Conv2D(8, 3, activation="relu", name="conv_1"),
            k.layers.MaxPooling2D(name="pool_1"),
            k.layers.Conv2D(6, 3, padding="same", name="conv_2"),
            k.layers.BatchNormalization(name="norm"),
            k.layers.ReLU(name="relu"),
            k.layers.Dropout(0.5, name="drop"),
            k.layers.Flatten(name="flatten"),
            k.layers.Dense(12, activation="relu", name="dense_1"),
            k.layers.Dense(10, activation="softmax", name="probabilities"),
        ],
        name="classifier",
    )


def residual(k: Any) -> Any:
    x = inputs = k.layers.Input((8, 8, 4))
    for width in (4, 4):
        y = k.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        y = k.layers.BatchNormalization()(y)
        x = k.layers.Add()([x, y])
    x = k.layers.Concatenate()([x, k.layers.AveragePooling2D(3, 1, "same")(x)])
    return k.Model(inputs, k.layers.GlobalAveragePooling2D()(x))


def shared_layer(k: Any) -> Any:
    left, right = k.layers.Input((6,), name="left"), k.layers.Input((6,), name="right")
    encoder = k.layers.Dense(4, activation="tanh", name="encoder")
    joined = k.layers.Concatenate()([encoder(left), encoder(right)])
    return k.Model([left, right], k.layers.Dense(2)(joined))


def nested(k: Any) -> Any:
    inner = k.Sequential(
        [
            k.layers.Input((8, 8, 3)),
            k.layers.Conv2D(4, 3, name="inner_conv"),
            k.layers.BatchNormalization(name="inner_norm"),
            k.layers.Dense(5, name="inner_dense"),
        ],
        name="inner",
    )
    outer_in = k.layers.Input((8, 8, 3))
    outer = k.Model(outer_in, k.layers.ReLU()(inner(outer_in)), name="outer")
    inputs = k.layers.Input((8, 8, 3))
    return k.Model(inputs, k.layers.Flatten()(outer(inputs)))


def nested_and_shared(k: Any) -> Any:
    tower_in = k.layers.Input((5, 5, 2))
    tower = k.Model(
        tower_in,
        k.layers.GlobalMaxPooling2D()(k.layers.Conv2D(3, 2, name="c")(tower_in)),
        name="tower",
    )
    a, b = k.layers.Input((5, 5, 2), name="a"), k.layers.Input((5, 5, 2), name="b")
    return k.Model([a, b], k.layers.Subtract()([tower(a), tower(b)]))


def frozen_nested(k: Any) -> Any:
    inner = k.Sequential(
        [k.layers.Input((4,)), k.layers.Dense(4), k.layers.BatchNormalization(), k.layers.Dense(3)],
        name="frozen",
    )
    inner.layers[-1].trainable = False
    inputs = k.layers.Input((4,))
    return k.Model(inputs, inner(inputs))


def two_outputs(k: Any) -> Any:
    inputs = k.layers.Input((6, 6, 3), name="image")
    x = k.layers.Conv2D(4, 3, name="features")(inputs)
    flat = k.layers.Flatten()(x)
    score = k.layers.Dense(1, activation="sigmoid", name="score")(flat)
    return k.Model(inputs, [x, score])


def output_is_read_again(k: Any) -> Any:
    inputs = k.layers.Input((4,), name="x")
    hidden = k.layers.Dense(4, activation="relu", name="hidden")(inputs)
    return k.Model(inputs, [hidden, k.layers.Dense(2, name="last")(hidden)])


def input_is_output(k: Any) -> Any:
    inputs = k.layers.Input((4,), name="x")
    return k.Model(inputs, [k.layers.Dropout(0.1, name="drop")(inputs), k.layers.ReLU()(inputs)])


def flatten_read_twice(k: Any) -> Any:
    """What is flattened channels-first is read by a Dense, an output and a normalization."""
    inputs = k.layers.Input((4, 3, 2))
    flat = k.layers.Flatten(name="flat")(k.layers.Conv2D(5, 2)(inputs))
    dense = k.layers.Dense(3)(k.layers.Activation("tanh")(flat))
    return k.Model(inputs, [dense, flat, k.layers.BatchNormalization()(flat)])


def sequence_model(k: Any) -> Any:
    return k.Sequential(
        [
            k.layers.Input((20,)),
            k.layers.Embedding(10, 6),
            k.layers.Conv1D(8, 3, activation="relu"),
            k.layers.MaxPooling1D(2),
            k.layers.Conv1D(8, 3, activation="relu"),
            k.layers.GlobalMaxPooling1D(),
            k.layers.Dense(3, activation="softmax"),
        ]
    )


def reshapes(k: Any) -> Any:
    inputs = k.layers.Input((24,))
    x = k.layers.Reshape((2, 3, 4))(k.layers.Dense(24)(inputs))
    x = k.layers.Conv2DTranspose(5, 3, strides=2, padding="same")(x)
    x = k.layers.UpSampling2D()(x)
    x = k.layers.Permute((3, 1, 2))(x)
    return k.Model(inputs, k.layers.Reshape((-1,))(x))


def attention_gate(k: Any) -> Any:
    """Squeeze and excitation: a vector scales the channels."""
    inputs = k.layers.Input((6, 6, 8))
    x = k.layers.Conv2D(8, 3, padding="same")(inputs)
    gate = k.layers.GlobalAveragePooling2D()(x)
    gate = k.layers.Dense(8, activation="sigmoid")(k.layers.Dense(2, activation="relu")(gate))
    return k.Model(inputs, k.layers.Multiply()([x, k.layers.Reshape((1, 1, 8))(gate)]))


def channels_first(k: Any) -> Any:
    first = {"data_format": "channels_first"}
    inputs = k.layers.Input((3, 8, 9))
    x = k.layers.ZeroPadding2D(1, **first)(inputs)
    x = k.layers.UpSampling2D(2, **first)(x)
    x = k.layers.Cropping2D(2, **first)(x)
    return k.Model(inputs, k.layers.Flatten(**first)(x))


MODELS: Sequence[Build] = [
    plain_classifier, residual, shared_layer, nested, nested_and_shared, frozen_nested, two_outputs,
    output_is_read_again, input_is_output, flatten_read_twice, sequence_model, reshapes,
    attention_gate, channels_first,
]  # fmt: skip


def randomize(model: Any, rng: np.random.Generator) -> None:
    """Positive weights, small enough for deep models to stay in range."""
    model.set_weights(
        [rng.uniform(0.05, 0.5, array.shape).astype(array.dtype) for array in model.get_weights()]
    )


def data_for(model: Any, rng: np.random.Generator) -> list[np.ndarray]:
    integers = any(type(layer).__name__ == "Embedding" for layer in model.layers)
    return [
        rng.integers(0, 10, (1, *t.shape[1:])).astype(np.float32)
        if integers
        else rng.normal(size=(1, *t.shape[1:])).astype(np.float32)
        for t in model.inputs
    ]


def same_outputs(converted: mlferry.MLModel, source: Any, data: list[np.ndarray]) -> None:
    """Values and shapes of all outputs, in Keras's order."""
    description = converted.get_spec().description
    named = {f.name: x for f, x in zip(description.input, data, strict=True)}
    actual = list(converted.predict(named).values())
    expected = source(data if len(data) > 1 else data[0], training=False)
    expected = expected if isinstance(expected, list | tuple) else [expected]
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        reference = np.asarray(theirs)
        assert ours.shape == reference.shape
        np.testing.assert_allclose(ours, reference, atol=1e-4 * max(1, np.abs(reference).max()))


MANY_STEPS = 100


def oracle(model: Any, shape: tuple[int, ...]) -> Callable[..., Any]:
    """The model of one input of the shape, without samples; of many steps as a TensorFlow graph.

    Keras alone calls Python for each step, a graph has traced it once.
    """
    if len(shape) < 2 or shape[0] <= MANY_STEPS:
        return model
    import tensorflow as tf

    graph = tf.function(
        lambda x: model(x, training=False), input_signature=[tf.TensorSpec((None, *shape))]
    )
    return lambda x, training: graph(x)


def quietly(action: Callable[[], Any]) -> Any:
    """Keras warns of its own legacy formats."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return action()


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_model(
    build: Build, keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    keras = library(keras_name)
    keras.backend.clear_session()
    model = build(keras)
    randomize(model, rng)
    data = data_for(model, rng)
    same_outputs(mlferry.convert(model), model, data)
    for suffix in (".h5", ".keras"):
        path = tmp_path / f"m{suffix}"
        quietly(lambda path=path: model.save(path))
        same_outputs(mlferry.convert(path), model, data)
    architecture, weights = tmp_path / "m.json", tmp_path / "m.weights.h5"
    architecture.write_text(model.to_json())
    quietly(lambda: model.save_weights(weights))
    same_outputs(mlferry.convert((architecture, weights)), model, data)


def test_hdf5_under_the_name_keras_and_the_other_way_round(
    library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    model = plain_classifier(library("keras"))
    randomize(model, rng)
    quietly(lambda: model.save(tmp_path / "a.h5"))
    model.save(tmp_path / "b.keras")
    (tmp_path / "a.h5").rename(tmp_path / "c.keras")
    (tmp_path / "b.keras").rename(tmp_path / "d.h5")
    for name in ("c.keras", "d.h5"):
        same_outputs(mlferry.convert(tmp_path / name), model, data_for(model, rng))


def kinds(model: mlferry.MLModel) -> list[str]:
    return [layer.WhichOneof("layer") for layer in model.get_spec().neuralNetwork.layers]


def test_a_plain_classifier_with_an_image_has_no_transpose(library: Library) -> None:
    model = plain_classifier(library("keras"))
    converted = mlferry.convert(model, inputs=[mlferry.ImageType()])
    assert "transpose" not in kinds(converted)
    assert kinds(mlferry.convert(model)).count("transpose") == 1  # where the array comes in


def test_chains_of_one_dimension_stay_images_inside(library: Library) -> None:
    layers = kinds(mlferry.convert(sequence_model(library("keras"))))
    assert layers.count("transpose") == 2  # behind the embedding, before the last reduction
    assert layers.count("squeeze") == layers.count("expandDims") - 1  # one for the embedding


def test_names_are_those_of_keras(library: Library) -> None:
    spec = mlferry.convert(plain_classifier(library("keras"))).get_spec()
    names = [layer.name for layer in spec.neuralNetwork.layers]
    assert {"conv_1", "pool_1", "norm", "dense_1", "probabilities"} <= set(names)
    assert [f.name for f in spec.description.input] == ["image"]
    assert [f.name for f in spec.description.output] == ["probabilities"]


def test_weights_that_lie_elsewhere_are_refused(
    library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Two layers of one class in exchanged order: the names in the file tell."""
    import io
    import zipfile

    keras = library("keras")
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(4, name="b")]
    )
    model.save(tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    dense = config["config"]["layers"][-2:]
    config["config"]["layers"][-2:] = dense[::-1]
    members["config.json"] = json.dumps(config).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    (tmp_path / "n.keras").write_bytes(buffer.getvalue())
    with pytest.raises(mlferry.errors.ModelFileError, match="'a' lie where those of Dense 'b'"):
        mlferry.convert(tmp_path / "n.keras")
