"""Recurrent models: states in and out, masks, wrappers, and which layers Core ML gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ConversionError
from tests.converters.keras.test_models import kinds, oracle, quietly, same_outputs

Library = Callable[[str], Any]
Build = Callable[[Any], Any]


def states_out(k: Any) -> Any:
    x = k.layers.Input((5, 4))
    y, h, c = k.layers.LSTM(3, return_state=True)(x)
    return k.Model(x, [y, h, c])


def sequence_and_states_out(k: Any) -> Any:
    x = k.layers.Input((5, 4))
    y, h = k.layers.GRU(3, return_sequences=True, return_state=True)(x)
    return k.Model(x, [h, y])


def one_state_is_read(k: Any) -> Any:
    x = k.layers.Input((5, 4))
    _, _, c = k.layers.LSTM(3, return_state=True)(x)
    return k.Model(x, k.layers.Dense(2)(c))


def states_in(k: Any) -> Any:
    x, h, c = k.layers.Input((5, 4)), k.layers.Input((3,)), k.layers.Input((3,))
    return k.Model([x, h, c], k.layers.LSTM(3, return_sequences=True)(x, initial_state=[h, c]))


def state_of_a_gru(k: Any) -> Any:
    x, h = k.layers.Input((5, 4)), k.layers.Input((3,))
    return k.Model([x, h], k.layers.GRU(3)(x, initial_state=h))


def state_of_a_simple_rnn(k: Any) -> Any:
    x, h = k.layers.Input((5, 4)), k.layers.Input((3,))
    return k.Model([x, h], k.layers.SimpleRNN(3)(x, initial_state=[h]))


def encoder_and_decoder(k: Any) -> Any:
    source, target = k.layers.Input((5, 4)), k.layers.Input((6, 2))
    _, h, c = k.layers.LSTM(3, return_state=True)(source)
    y = k.layers.LSTM(3, return_sequences=True)(target, initial_state=[h, c])
    y = k.layers.TimeDistributed(k.layers.Dense(7, activation="softmax"))(y)
    return k.Model([source, target], y)


def both_directions_with_states(k: Any) -> Any:
    x = k.layers.Input((5, 4))
    layer = k.layers.LSTM(3, return_sequences=True, return_state=True)
    y, *states = k.layers.Bidirectional(layer)(x)
    joined = k.layers.Concatenate()([states[0], states[2]])
    return k.Model(x, [y, joined, states[1], states[3]])


def both_directions_from_states(k: Any) -> Any:
    x = k.layers.Input((5, 4))
    states = [k.layers.Input((3,)) for _ in range(2)]
    y = k.layers.Bidirectional(k.layers.GRU(3, return_sequences=True))(x, initial_state=states)
    return k.Model([x, *states], y)


def stack(k: Any) -> Any:
    return k.Sequential(
        [
            k.layers.Input((6, 4)),
            k.layers.Bidirectional(k.layers.LSTM(3, return_sequences=True)),
            k.layers.Dropout(0.2),
            k.layers.LSTM(4, return_sequences=True, activation="relu"),
            k.layers.BatchNormalization(),
            k.layers.GRU(3),
            k.layers.Dense(2, activation="softmax"),
        ]
    )


def frames(k: Any) -> Any:
    """A convolutional model for each frame of a video."""
    frame = k.Sequential(
        [
            k.layers.Input((6, 6, 2)),
            k.layers.Conv2D(3, 3, activation="relu", name="c"),
            k.layers.BatchNormalization(name="b"),
            k.layers.GlobalAveragePooling2D(),
            k.layers.Dense(4, name="d"),
        ],
        name="frame",
    )
    x = k.layers.Input((3, 6, 6, 2))
    return k.Model(x, k.layers.LSTM(3)(k.layers.TimeDistributed(frame)(x)))


def shared(k: Any) -> Any:
    a, b = k.layers.Input((5, 4)), k.layers.Input((5, 4))
    encoder = k.layers.GRU(3, name="encoder")
    return k.Model([a, b], k.layers.Subtract()([encoder(a), encoder(b)]))


def nested(k: Any) -> Any:
    inner = k.Sequential(
        [k.layers.Input((5, 4)), k.layers.LSTM(3), k.layers.Dense(3)], name="inner"
    )
    x = k.layers.Input((5, 4))
    return k.Model(x, k.layers.Add()([inner(x), k.layers.GRU(3, name="other")(x)]))


def masked(*layers: Build) -> Build:
    def build(k: Any) -> Any:
        output = [layer(k.layers) for layer in layers]
        return k.Sequential([k.layers.Input((6, 4)), k.layers.Masking(0.5), *output])

    build.__name__ = "masked"
    return build


MODELS: list[Build] = [
    states_out, sequence_and_states_out, one_state_is_read, states_in, state_of_a_gru,
    state_of_a_simple_rnn, encoder_and_decoder, both_directions_with_states,
    both_directions_from_states, stack, frames, shared, nested,
]  # fmt: skip
MASKED: list[Build] = [
    masked(lambda k: k.LSTM(3)),
    masked(lambda k: k.LSTM(3, return_sequences=True)),
    masked(lambda k: k.GRU(3, return_sequences=True), lambda k: k.SimpleRNN(2)),
    masked(lambda k: k.Bidirectional(k.LSTM(3, return_sequences=True)), lambda k: k.GRU(2)),
    masked(lambda k: k.Bidirectional(k.GRU(3))),
    masked(lambda k: k.LSTM(3, go_backwards=True, return_sequences=True)),
    masked(lambda k: k.RNN([k.LSTMCell(3), k.GRUCell(2)])),
    masked(lambda k: k.Dense(3, activation="relu"), lambda k: k.Dropout(0.1), lambda k: k.GRU(2)),
    masked(lambda k: k.GlobalAveragePooling1D()),
    masked(lambda k: k.TimeDistributed(k.Dense(3)), lambda k: k.LSTM(2)),
    masked(lambda k: k.Conv1D(3, 2), lambda k: k.LSTM(2)),  # a convolution forgets the mask
]


def filled(model: Any, rng: np.random.Generator) -> Any:
    model.set_weights(
        [
            rng.uniform(0.1, 0.6, w.shape) * rng.choice([1.0, -1.0], w.shape)
            if "variance" not in str(v.name)
            else rng.uniform(0.5, 1.0, w.shape)
            for v, w in zip(model.weights, model.get_weights(), strict=True)
        ]
    )
    return model


def with_gaps(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some steps hold what stands for nothing, the first one and the last ones among them."""
    gone = rng.uniform(size=x.shape[:2]) < 0.3
    gone[:, [0, -1]] = True
    return np.where(gone[..., None], np.float32(0.5), x)


def both_ways(model: Any, data: list[np.ndarray], tmp_path: Path) -> None:
    same_outputs(mlferry.convert(model), model, data)
    for suffix in (".h5", ".keras"):
        path = tmp_path / f"m{suffix}"
        quietly(lambda path=path: model.save(path))
        same_outputs(mlferry.convert(path), model, data)


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_model(
    build: Build, keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    keras = library(keras_name)
    keras.backend.clear_session()
    model = filled(build(keras), rng)
    data = [rng.normal(size=(1, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    both_ways(model, data, tmp_path)


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("index", range(len(MASKED)))
def test_masked_model(
    index: int, keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    keras = library(keras_name)
    keras.backend.clear_session()
    model = filled(quietly(lambda: MASKED[index](keras)), rng)
    data = [with_gaps(rng.normal(size=(1, 6, 4)).astype(np.float32), rng)]
    quietly(lambda: both_ways(model, data, tmp_path))


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("sequences", [False, True])
def test_text_with_padding(
    sequences: bool, keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    k = library(keras_name)
    words = k.layers.Input((6,), dtype="int32")
    x = k.layers.Embedding(10, 4, mask_zero=True)(words)
    y = k.layers.Bidirectional(k.layers.LSTM(3, return_sequences=sequences))(x)
    z = k.layers.LSTM(3, return_sequences=sequences)(x)
    joined = k.layers.Concatenate()([y, z])
    if sequences:
        unmasked = k.layers.Embedding(10, 2)(words)
        joined = k.layers.Concatenate()([joined, unmasked])
    model = filled(k.Model(words, k.layers.GRU(2)(joined) if sequences else joined), rng)
    path = tmp_path / "m.h5"
    quietly(lambda: model.save(path))
    for row in ([3, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]):
        same_outputs(mlferry.convert(model), model, [np.array([row], np.float32)])


def words_of_sentences(k: Any) -> Any:
    i = k.layers.Input((3, 4), dtype="int32")
    x = k.layers.TimeDistributed(k.layers.Embedding(9, 4, mask_zero=True))(i)
    return k.Model(i, k.layers.GRU(2)(k.layers.TimeDistributed(k.layers.LSTM(3))(x)))


def function_of_masked(k: Any) -> Any:
    """A function forgets the mask."""
    i = k.layers.Input((4,), dtype="int32")
    x = k.layers.Embedding(9, 4, mask_zero=True)(i)
    return k.Model(i, k.layers.GlobalAveragePooling1D()(x + 1.0))


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("build", [words_of_sentences, function_of_masked])
def test_where_masks_go(
    build: Build, keras_name: str, library: Library, rng: np.random.Generator
) -> None:
    model = filled(quietly(lambda: build(library(keras_name))), rng)
    shape = (1, *model.inputs[0].shape[1:])
    data = rng.integers(0, 3, shape)
    if data.ndim == 3:
        data[:, -1] = 0
    same_outputs(mlferry.convert(model), model, [data.astype(np.float32)])


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
def test_mask_given_by_name(keras_name: str, library: Library, rng: np.random.Generator) -> None:
    k = library(keras_name)
    x, mask = k.layers.Input((6, 4)), k.layers.Input((6,), dtype="bool")
    model = filled(k.Model([x, mask], k.layers.LSTM(3)(x, mask=mask)), rng)
    data = [rng.normal(size=(1, 6, 4)).astype(np.float32), np.array([[1, 0, 1, 1, 0, 0]], bool)]
    same_outputs(mlferry.convert(model), model, data)


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_states_of_a_stateful_model(
    name: str, keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    """They go in and come out, and the next call goes on where the one before ended."""
    k = library(keras_name)
    k.backend.clear_session()
    layer = getattr(k.layers, name)(3, stateful=True, name="memory")
    model = filled(
        k.Sequential([k.layers.Input(batch_shape=(2, 5, 4)), layer, k.layers.Dense(2, name="y")]),
        rng,
    )
    path = tmp_path / "m.keras"
    model.save(path)
    converted = mlferry.convert(path)
    count = 2 if name == "LSTM" else 1
    description = converted.get_spec().description
    names = [feature.name for feature in description.input]
    assert names[1:] == [f"memory_state_{index}_in" for index in range(count)]
    states = {name: np.zeros((2, 3), np.float32) for name in names[1:]}
    for _ in range(3):
        x = rng.normal(size=(2, 5, 4)).astype(np.float32)
        actual = converted.predict({names[0]: x, **states})
        np.testing.assert_allclose(actual["y"], np.asarray(model(x)), atol=1e-5)
        states = {name: actual[name.replace("_in", "_out")] for name in states}


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_states_of_both_directions(
    name: str, keras_name: str, suffix: str, library: Library, rng: np.random.Generator,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Behind another layer, whose shape an older file does not tell."""
    k = library(keras_name)
    k.backend.clear_session()
    inner = getattr(k.layers, name)(3, stateful=True, return_sequences=True)
    both = k.layers.Bidirectional(inner, merge_mode="sum", name="both")
    first, last = k.layers.Dense(4, activation="tanh"), k.layers.Dense(2, name="y")
    x = k.layers.Input(batch_shape=(2, 5, 4), name="x")
    model = filled(k.Model(x, last(both(first(x)))), rng)
    model.save(tmp_path / f"m{suffix}")
    converted = mlferry.convert(tmp_path / f"m{suffix}")
    names = [feature.name for feature in converted.get_spec().description.input]
    count = 4 if name == "LSTM" else 2
    assert names == ["x", *(f"both_state_{index}_in" for index in range(count))]
    states = {name: np.zeros((2, 3), np.float32) for name in names[1:]}
    for _ in range(3):
        data = rng.normal(size=(2, 5, 4)).astype(np.float32)
        made = converted.predict({"x": data, **states})
        np.testing.assert_allclose(made["y"], np.asarray(model(data)), atol=1e-5)
        states = {name: made[name.replace("_in", "_out")] for name in states}


def _in_a_row(k: Any, x: Any, shared: Any) -> Any:
    return shared(shared(x))


def _side_by_side(k: Any, x: Any, shared: Any) -> Any:
    """Keras runs the call that is farther from the outputs first."""
    near = shared(k.layers.Dense(3)(x))
    far = shared(k.layers.Activation("tanh")(x))
    return k.layers.Subtract()([near, k.layers.Dense(3)(k.layers.Dense(3)(far))])


def _in_a_model(k: Any, x: Any, shared: Any) -> Any:
    inside = k.layers.Input(batch_shape=(1, 5, 3))
    inner = k.Model(inside, shared(inside))
    return k.layers.Subtract()([inner(x), inner(inner(x))])


@pytest.mark.parametrize("build", [_in_a_row, _side_by_side, _in_a_model])
@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
def test_a_stateful_layer_that_is_called_again(
    keras_name: str, build: Callable[..., Any], library: Library, rng: np.random.Generator
) -> None:
    """Each call goes on where the one before ended."""
    k = library(keras_name)
    k.backend.clear_session()
    x = k.layers.Input(batch_shape=(1, 5, 3), name="x")
    shared = k.layers.GRU(3, stateful=True, return_sequences=True, name="memory")
    model = filled(k.Model(x, build(k, x, shared)), rng)
    converted = mlferry.convert(model)
    description = converted.get_spec().description
    _, state_in = (f.name for f in description.input)
    output, state_out = (f.name for f in description.output)
    assert state_in.endswith("memory_state_0_in")
    assert state_out == state_in.replace("_in", "_out")
    state = np.zeros((1, 3), np.float32)
    for _ in range(3):
        data = rng.normal(size=(1, 5, 3)).astype(np.float32)
        results = converted.predict({"x": data, state_in: state})
        np.testing.assert_allclose(results[output], np.asarray(model(data)), atol=1e-5)
        state = results[state_out]


def test_a_stateful_convolution_is_refused(library: Library) -> None:
    k = library("keras")
    x = k.layers.Input(batch_shape=(1, 3, 5, 5, 2))
    model = k.Model(x, k.layers.ConvLSTM2D(2, 2, stateful=True)(x))
    with pytest.raises(ConversionError, match="its states are maps"):
        mlferry.convert(model)


def test_layers_that_core_ml_gets(library: Library) -> None:
    k = library("keras")

    def made(layer: Any) -> list[str]:
        return kinds(mlferry.convert(k.Sequential([k.layers.Input((5, 4)), layer])))

    assert "uniDirectionalLSTM" in made(k.layers.LSTM(3))
    assert "gru" in made(k.layers.GRU(3, reset_after=False))
    assert "simpleRecurrent" in made(k.layers.SimpleRNN(3))
    assert "biDirectionalLSTM" in made(k.layers.Bidirectional(k.layers.LSTM(3)))
    two = k.layers.Bidirectional(
        k.layers.LSTM(3), backward_layer=k.layers.LSTM(3, go_backwards=True, use_bias=False)
    )
    assert made(two).count("uniDirectionalLSTM") == 2
    assert made(two).count("transpose") == 2  # one a direction: nothing is left of the attempt
    assert "gru" not in made(k.layers.GRU(3))
    assert "uniDirectionalLSTM" not in made(k.layers.LSTM(3, activation="relu"))


@pytest.mark.parametrize("masked_too", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("name", ["LSTM", "GRU", "SimpleRNN"])
def test_any_number_of_steps(
    name: str, sequences: bool, masked_too: bool, library: Library, rng: np.random.Generator
) -> None:
    """By Core ML's own layer, or by a loop over the steps."""
    k = library("keras")
    front = [k.layers.Masking(0.5)] if masked_too else []
    layer = k.layers.Bidirectional(getattr(k.layers, name)(3, return_sequences=sequences))
    model = filled(k.Sequential([k.layers.Input((None, 4)), *front, layer]), rng)
    shape = (1, mlferry.RangeDim(1, 50), 4)
    converted = mlferry.convert(model, inputs=[mlferry.TensorType(shape=shape)])
    for steps in (1, 7, 30):
        x = rng.normal(size=(1, steps, 4)).astype(np.float32)
        same_outputs(converted, model, [with_gaps(x, rng) if masked_too else x])


VARYING: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "GRU": (lambda k: k.layers.GRU(3), (4, 2)),
    "GRU, reset before": (lambda k: k.layers.GRU(3, reset_after=False), (4, 2)),
    "simple, backwards": (lambda k: k.layers.SimpleRNN(3, go_backwards=True), (4, 2)),
    "relu": (lambda k: k.layers.LSTM(3, activation="relu", return_sequences=True), (4, 2)),
    "both directions": (lambda k: k.layers.Bidirectional(k.layers.GRU(3)), (4, 2)),
    "cells": (
        lambda k: k.layers.RNN([k.layers.LSTMCell(5), k.layers.GRUCell(2)]), (4, 2)
    ),
    "maps": (lambda k: k.layers.ConvLSTM2D(2, 2), (3, 5, 4, 2)),
    "rows of maps": (lambda k: k.layers.ConvLSTM1D(2, 2, return_sequences=True), (3, 5, 2)),
    "many steps": (lambda k: k.layers.GRU(2, return_sequences=True), (300, 2)),
}  # fmt: skip


# maps have no steps to mask
MASKED_TOO = [(name, False) for name in VARYING] + [
    (name, True) for name, (_, shape) in VARYING.items() if len(shape) == 2
]


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize(("name", "masked_too"), MASKED_TOO)
def test_any_number_of_samples(
    name: str, masked_too: bool, keras_name: str, library: Library, rng: np.random.Generator
) -> None:
    k = library(keras_name)
    make, shape = VARYING[name]
    front = [k.layers.Masking(0.5)] if masked_too else []
    model = filled(k.Sequential([k.layers.Input(shape), *front, make(k)]), rng)
    inputs = mlferry.TensorType(shape=(mlferry.RangeDim(1, 5), *shape))
    converted = mlferry.convert(model, inputs=[inputs])
    source = oracle(model, shape)
    for count in (1, 2, 5):
        x = rng.normal(size=(count, *shape)).astype(np.float32)
        same_outputs(converted, source, [with_gaps(x, rng) if masked_too else x])


def test_weights_of_a_composed_layer_are_stored_once(library: Library) -> None:
    k = library("keras")
    model = k.Sequential([k.layers.Input((50, 4)), k.layers.GRU(64)])
    size = len(mlferry.convert(model).get_spec().SerializeToString())
    assert size < 4 * model.count_params() + 100_000


def test_a_cell_of_the_user_is_refused(library: Library, tmp_path: Path) -> None:
    k = library("keras")

    class Cell(k.layers.Layer):
        state_size = 3
        output_size = 3

        def call(self, x: Any, states: Any) -> Any:
            return states[0], states

    model = k.Sequential([k.layers.Input((5, 3)), k.layers.RNN(Cell())])
    with pytest.raises(ConversionError, match="the cell Cell"):
        mlferry.convert(model)
