"""Where features meet: models inside models, called several times, with masks, states and names."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry

Library = Callable[[str], Any]
Build = Callable[[Any], Any]
IDS = np.array([[4, 2, 7, 0, 0, 3], [0, 1, 0, 0, 5, 0]], np.int32)


def vectors(k: Any, *names: str) -> list[Any]:
    return [k.layers.Input((5,), name=name) for name in names]


def tower(k: Any, outputs: int = 1, name: str = "tower") -> Any:
    x = k.layers.Input((5,))
    hidden = k.layers.Dense(4, activation="tanh")(x)
    ends = [k.layers.Dense(5 + index)(hidden) for index in range(outputs)]
    return k.Model(x, ends if outputs > 1 else ends[0], name=name)


def words(k: Any, name: str = "ids") -> tuple[Any, Any]:
    ids = k.layers.Input((6,), dtype="int32", name=name)
    return ids, k.layers.Embedding(10, 4, mask_zero=True)(ids)


# ---- models inside models --------------------------------------------------------------


def first_call_is_an_output(k: Any) -> Any:
    (a, b), t = vectors(k, "a", "b"), tower(k)
    one, other = t(a), t(b)
    return k.Model([a, b], [one, k.layers.Dot(1)([one, other])])


def second_call_is_an_output(k: Any) -> Any:
    (a, b), t = vectors(k, "a", "b"), tower(k)
    one, other = t(a), t(b)
    return k.Model([a, b], [k.layers.Subtract()([one, other]), other])


def both_calls_are_outputs(k: Any) -> Any:
    (a, b), t = vectors(k, "a", "b"), tower(k)
    return k.Model([a, b], [t(b), t(a)])


def applied_to_its_own_result(k: Any) -> Any:
    (a, b), t = vectors(k, "a", "b"), tower(k)
    return k.Model([a, b], t(k.layers.Add()([t(a), b])))


def three_calls_middle_unused(k: Any) -> Any:
    (a, b), t = vectors(k, "a", "b"), tower(k)
    first, _, third = t(a), t(b), t(k.layers.Add()([a, b]))
    return k.Model([a, b], [third, first])


def inner_outputs_of_two_calls(k: Any) -> Any:
    (a, b), t = vectors(k, "a", "b"), tower(k, outputs=3)
    one, other = t(a), t(b)
    return k.Model([a, b], [other[2], one[1], k.layers.Multiply()([one[0], other[0]])])


def twice_in_a_model_called_twice(k: Any) -> Any:
    (a, b), t = vectors(k, "a", "b"), tower(k)
    x = k.layers.Input((5,))
    middle = k.Model(x, [t(x), t(t(x))], name="middle")
    return k.Model([a, b], [*middle(b), middle(a)[0]])


def shared_with_another_model(k: Any) -> Any:
    """Calls that belong to another model are none of this one's."""
    (a, b), t = vectors(k, "a", "b"), tower(k)
    other = k.layers.Input((5,))
    k.Model(other, t(k.layers.Dense(5)(t(other))))
    return k.Model([a, b], [t(b), k.layers.Dot(1)([t(a), t(b)])])


def sequential_called_twice(k: Any) -> Any:
    a, b = vectors(k, "a", "b")
    t = k.Sequential([k.layers.Input((5,)), k.layers.Dense(4), k.layers.ReLU()], name="steps")
    one, other = t(a), t(b)
    return k.Model([a, b], [other, k.layers.Dot(1)([one, other]), one])


def model_in_sequential(k: Any) -> Any:
    return k.Sequential([k.layers.Input((5,), name="a"), tower(k), tower(k, name="again")])


def pair_of_dicts(k: Any) -> Any:
    left, right = k.layers.Input((5,), name="one"), k.layers.Input((5,), name="two")
    output = {"z": k.layers.Dense(3)(left), "c": k.layers.Subtract()([left, right])}
    return k.Model({"w": left, "d": right}, output, name="pair")


def dicts_inside(k: Any) -> Any:
    (a, b), inner = vectors(k, "a", "b"), pair_of_dicts(k)
    one = inner({"w": a, "d": b})
    other = inner({"d": a, "w": b})
    return k.Model([a, b], [one["c"], other["z"], k.layers.Add()([one["z"], other["z"]])])


def words_computed_outside(k: Any) -> Any:
    """A model inside that takes integers casts what it gets."""
    (a,) = vectors(k, "a")
    ids = k.layers.Input((5,), dtype="int32")
    inner = k.Model(ids, k.layers.LSTM(3)(k.layers.Embedding(9, 4, mask_zero=True)(ids)))
    return k.Model(a, inner(k.layers.Rescaling(3.0)(k.layers.ReLU(max_value=2.0)(a))))


def list_of_inputs_given_by_name(k: Any) -> Any:
    a, b = vectors(k, "a", "b")
    left, right = k.layers.Input((5,), name="one"), k.layers.Input((5,), name="two")
    inner = k.Model([right, left], k.layers.Subtract()([left, right]))
    return k.Model([a, b], inner({"one": a, "two": b}))


# ---- names -----------------------------------------------------------------------------


def outputs_by_key(k: Any) -> Any:
    a, b = vectors(k, "a", "b")
    shown = {"score": k.layers.Dense(1)(a), "box": k.layers.Dense(4)(b), "again": tower(k)(a)}
    return k.Model({"p": a, "n": b}, shown)


def results_named_like_the_next_layer(k: Any) -> Any:
    x = k.layers.Input((6, 4), name="x")
    sequence, *states = k.layers.LSTM(3, return_sequences=True, return_state=True, name="rnn")(x)
    return k.Model(x, [sequence, *states, k.layers.LSTM(2, name="rnn_1")(sequence)])


def output_named_like_an_input(k: Any) -> Any:
    (a,) = vectors(k, "a")
    return k.Model(a, [k.layers.Dropout(0.5, name="a_output")(a), k.layers.Dense(2, name="d")(a)])


def towers_with_the_same_names_inside(k: Any) -> Any:
    a, b = vectors(k, "a", "b")

    def inner(name: str) -> Any:
        x = k.layers.Input((5,), name=f"{name}_x")
        return k.Model(x, k.layers.Dense(3, name="same")(x), name=name)

    return k.Model([a, b], [inner("left")(a), inner("right")(b)])


# ---- masks -----------------------------------------------------------------------------


def mask_into_a_model(k: Any) -> Any:
    ids, x = words(k)
    inner = k.layers.Input((6, 4))
    return k.Model(ids, k.Model(inner, k.layers.GRU(3)(inner), name="inner")(x))


def mask_out_of_a_model(k: Any) -> Any:
    ids, x = words(k, "inner_ids")
    inner = k.Model(ids, k.layers.Dense(3)(x), name="inner")
    outer = k.layers.Input((6,), dtype="int32", name="ids")
    return k.Model(outer, k.layers.LSTM(3)(inner(outer)))


def mask_through_sequentials(k: Any) -> Any:
    ids, x = words(k)
    steps = k.Sequential([k.layers.Input((6, 4)), k.layers.Dense(3), k.layers.Dropout(0.5)])
    more = k.Sequential([k.layers.Input((6, 3)), k.layers.LSTM(2, return_sequences=True)])
    return k.Model(ids, k.layers.GlobalAveragePooling1D()(more(steps(x))))


def mask_and_time_distributed(k: Any) -> Any:
    ids, x = words(k)
    y = k.layers.Bidirectional(k.layers.LSTM(3, return_sequences=True))(x)
    y = k.layers.TimeDistributed(k.layers.Dense(4, activation="softmax"))(y)
    return k.Model(ids, [k.layers.LSTM(2)(y), y])


def mask_and_normalization(k: Any) -> Any:
    ids, x = words(k)
    y = k.layers.BatchNormalization()(k.layers.GRU(3, return_sequences=True)(x))
    return k.Model(ids, k.layers.SimpleRNN(2)(k.layers.LayerNormalization()(y)))


def mask_and_initial_states(k: Any) -> Any:
    """Keras 2 takes the mask there, Keras 3 does not."""
    ids, x = words(k)
    h, c = k.layers.Input((3,), name="h"), k.layers.Input((3,), name="c")
    y = k.layers.LSTM(3, return_sequences=True)(x, initial_state=[h, c])
    z = k.layers.GRU(3, return_sequences=True)(y, initial_state=h)
    return k.Model([ids, h, c], [y, z, k.layers.SimpleRNN(3)(z)])


def seq2seq(k: Any) -> Any:
    source, x = words(k, "source")
    target, y = words(k, "target")
    _, h, c = k.layers.LSTM(3, return_state=True)(x)
    output, *_ = k.layers.LSTM(3, return_sequences=True, return_state=True)(y, initial_state=[h, c])
    return k.Model([source, target], k.layers.Dense(5, activation="softmax")(output))


def bidirectional_with_states(k: Any) -> Any:
    ids, x = words(k)
    h = k.layers.Input((3,), name="h")
    y = k.layers.Bidirectional(k.layers.GRU(3, return_sequences=True))(x, initial_state=[h, h])
    return k.Model([ids, h], [y, k.layers.GlobalAveragePooling1D()(y)])


def masks_given_by_name(k: Any) -> Any:
    ids, x = words(k)
    kept = k.layers.Input((6,), dtype="bool", name="kept")
    y = k.layers.LSTM(3, return_sequences=True)(x, mask=kept)
    return k.Model([ids, kept], [k.layers.GlobalAveragePooling1D()(y, mask=kept), y])


def masks_of_attention(k: Any) -> Any:
    source, x = words(k, "source")
    target, y = words(k, "target")
    output = k.layers.Attention()([x, y])
    heads = k.layers.MultiHeadAttention(2, 3)(x, y)
    return k.Model(
        [source, target], [output, heads, k.layers.LSTM(2)(output), k.layers.GRU(2)(heads)]
    )


def transformer(k: Any) -> Any:
    """Keras 3 takes the masks off what an attention of several heads reads."""
    ids, x = words(k)
    attended = k.layers.LayerNormalization()(
        k.layers.Add()([x, k.layers.MultiHeadAttention(2, 2)(x, x)])
    )
    output = k.layers.Add()(
        [attended, k.layers.Dense(4)(k.layers.Dense(8, activation="relu")(attended))]
    )
    return k.Model(ids, [k.layers.GlobalAveragePooling1D()(output), k.layers.LSTM(2)(attended)])


def attention_before_others_that_read_the_same(k: Any) -> Any:
    ids, x = words(k)
    heads = k.layers.MultiHeadAttention(2, 2)(x, x)
    late = k.layers.LSTM(3)(k.layers.Attention()([k.layers.Dropout(0.5)(x), heads]))
    return k.Model(ids, [k.layers.GlobalAveragePooling1D()(heads), k.layers.GRU(3)(x), late])


def attention_in_a_model(k: Any) -> Any:
    ids, x = words(k)
    inner = k.layers.Input((6, 4))
    block = k.Model(inner, k.layers.Add()([inner, k.layers.MultiHeadAttention(1, 2)(inner, inner)]))
    return k.Model(ids, [k.layers.GlobalAveragePooling1D()(block(block(x))), k.layers.GRU(2)(x)])


def masks_of_merges(k: Any) -> Any:
    source, x = words(k, "source")
    target, y = words(k, "target")
    z = k.layers.Concatenate()([k.layers.Add()([x, y]), k.layers.Maximum()([x, y])])
    return k.Model([source, target], k.layers.LSTM(3)(z))


def masking_layer(k: Any) -> Any:
    x = k.layers.Input((6, 2), name="x")
    y = k.layers.Masking(0.0)(k.layers.ReLU()(x))
    return k.Model(
        x, [k.layers.LSTM(3)(y), k.layers.GlobalAveragePooling1D()(k.layers.Dense(2)(y))]
    )


def shared_recurrent_layer(k: Any) -> Any:
    """Called with and without a mask."""
    ids, x = words(k)
    plain = k.layers.Input((6, 4), name="plain")
    rnn = k.layers.LSTM(3, return_sequences=True)
    return k.Model([ids, plain], [rnn(x), rnn(plain), k.layers.GRU(2)(rnn(x))])


BUILDS: list[Build] = [
    first_call_is_an_output, second_call_is_an_output, both_calls_are_outputs,
    applied_to_its_own_result, three_calls_middle_unused, inner_outputs_of_two_calls,
    twice_in_a_model_called_twice, shared_with_another_model, sequential_called_twice,
    model_in_sequential, dicts_inside, words_computed_outside, list_of_inputs_given_by_name,
    outputs_by_key, results_named_like_the_next_layer, output_named_like_an_input,
    towers_with_the_same_names_inside, mask_into_a_model, mask_out_of_a_model,
    mask_through_sequentials, mask_and_time_distributed, mask_and_normalization,
    mask_and_initial_states, seq2seq, bidirectional_with_states, masks_given_by_name,
    masks_of_attention, transformer, attention_before_others_that_read_the_same,
    attention_in_a_model, masks_of_merges, masking_layer, shared_recurrent_layer,
]  # fmt: skip


def data_of(model: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One value an input, by the name of the input."""
    results = {}
    for tensor in model.inputs:
        name, kind = tensor.name.split(":")[0], np.dtype(tensor.dtype.name if hasattr(
            tensor.dtype, "name") else tensor.dtype)  # fmt: skip
        if kind.kind == "i":
            results[name] = IDS[len(results) % 2][None]
        elif kind.kind == "b":
            results[name] = rng.random((1, *tensor.shape[1:])) < 0.6
        else:
            results[name] = rng.standard_normal((1, *tensor.shape[1:])).astype(np.float32)
    return results


def expected(model: Any, data: Mapping[str, np.ndarray]) -> tuple[list[str], list[np.ndarray]]:
    """Keras's own keys, where it gives a dict, and its values."""
    values = list(data.values())
    inputs: Any = values[0] if len(values) == 1 else values
    struct = getattr(model, "input", None)
    if isinstance(struct, Mapping):
        names = {key: tensor.name.split(":")[0] for key, tensor in struct.items()}
        inputs = {key: data[name] for key, name in names.items()}
    converted = model(inputs, training=False)
    if isinstance(converted, Mapping):
        return sorted(converted), [np.asarray(converted[key]) for key in sorted(converted)]
    return [], [
        np.asarray(item)
        for item in (converted if isinstance(converted, list | tuple) else [converted])
    ]


def compare(model: Any, source: Any, data: Mapping[str, np.ndarray]) -> None:
    converted = mlferry.convert(source)
    outputs = [feature.name for feature in converted.get_spec().description.output]
    keys, values = expected(model, data)
    assert len(set(outputs)) == len(values)
    assert not keys or outputs == keys
    named = {f.name: None for f in converted.get_spec().description.input}
    inputs = dict(zip(named, data.values(), strict=True)) if set(named) != set(data) else data
    actual = converted.predict({name: np.asarray(x, np.float32) for name, x in inputs.items()})
    for name, reference in zip(outputs, values, strict=True):
        assert actual[name].shape == reference.shape, name
        np.testing.assert_allclose(actual[name], reference, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
@pytest.mark.filterwarnings("ignore")  # Keras's, of its own formats and of masks
def test_where_features_meet(
    build: Build, keras_name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    k = library(keras_name)
    k.backend.clear_session()
    k.utils.set_random_seed(3)
    model = build(k)
    data = data_of(model, rng)
    compare(model, model, data)
    for suffix in (".keras", ".h5"):
        path = tmp_path / f"m{suffix}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(path)
        compare(model, path, data)
