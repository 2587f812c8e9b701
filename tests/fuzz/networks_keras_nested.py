"""Random Keras models where features meet: models inside models, masks, states, names, batches."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras

import mlferry
from tests.fuzz import halves
from tests.fuzz.network import Half, Network, Oracle

Array = np.ndarray[Any, Any]
UNITS, STEPS, WORDS = 3, 4, 7
NAMES = ("a", "a_1", "a_2", "lstm", "lstm_1", "x", "x_output", "b")


@mlferry.register_custom_layer("MaskedMean")
class MaskedMean(mlferry.CustomLayer):
    """The mean over the steps that count."""

    def output_shapes(self, input_shapes: Any) -> Any:
        return [(input_shapes[0][0], input_shapes[0][2])]

    def evaluate(self, inputs: Any) -> Any:
        x, *masks = inputs
        kept = masks[0][..., None] if masks else np.ones((*x.shape[:2], 1), np.float32)
        return [(x * kept).sum(1) / (kept.sum(1) + 1)]


@mlferry.register_custom_layer("Twice")
class Twice(mlferry.CustomLayer):
    """2 x; passes its mask on."""

    def evaluate(self, inputs: Any) -> Any:
        return [2 * inputs[0]]


def users_layers(k: Any) -> tuple[Any, Any]:
    """The same two as layers of a user's own."""

    class MaskedMean(k.layers.Layer):  # type: ignore[misc,name-defined]
        def call(self, x: Any, mask: Any = None) -> Any:
            kept = tf.ones_like(x[..., :1]) if mask is None else tf.cast(mask, x.dtype)[..., None]
            return tf.reduce_sum(x * kept, 1) / (tf.reduce_sum(kept, 1) + 1)

        def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
            return None

    class Twice(k.layers.Layer):  # type: ignore[misc,name-defined]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.supports_masking = True

        def call(self, x: Any) -> Any:
            return 2 * x

    return MaskedMean, Twice


FUNCTIONS = {
    "MaskedMean": lambda node: mlferry.CustomLayerParams("MaskedMean"),
    "Twice": lambda node: mlferry.CustomLayerParams("Twice"),
}
# a file does not tell what a user's layer does with masks
FUNCTIONS_OF_FILES = {
    "MaskedMean": lambda node: mlferry.CustomLayerParams(
        "MaskedMean", takes_mask=True, passes_mask=False
    ),
    "Twice": lambda node: mlferry.CustomLayerParams("Twice", takes_mask=False, passes_mask=True),
}


class Builder:
    """Adds layers to a pool of tensors: words [batch, STEPS, UNITS], vectors [batch, UNITS]."""

    def __init__(self, k: Any, rng: random.Random, depth: int = 0) -> None:
        self.k, self.r, self.depth = k, rng, depth
        self.pool: list[Any] = []
        self.models: list[Callable[[Any], Any]] = []
        self.layers: list[Any] = []
        self.names = list(NAMES)
        rng.shuffle(self.names)
        self.users = users_layers(k)
        self.has_users = False

    def name(self) -> dict[str, str]:
        """A name that others like; each once in a model."""
        return {"name": self.names.pop()} if self.names and self.r.random() < 0.5 else {}

    def pick(self, rank: int) -> Any:
        matches = [x for x in self.pool if len(x.shape) == rank]
        if matches:
            return self.r.choice(matches)
        other = self.r.choice(self.pool)
        layers = self.k.layers
        return layers.RepeatVector(STEPS)(other) if rank == 3 else layers.LSTM(UNITS)(other)

    def add(self, result: Any) -> None:
        values = result.values() if isinstance(result, Mapping) else result
        for x in values if isinstance(result, list | tuple | Mapping) else [result]:
            fits = tuple(x.shape[1:]) in ((UNITS,), (STEPS, UNITS))
            if fits:
                self.pool.append(x)

    # ---- steps -------------------------------------------------------------------------

    def dense(self) -> Any:
        return self.k.layers.Dense(UNITS, activation="tanh", **self.name())(
            self.pick(self.r.choice((2, 3)))
        )

    def passing(self) -> Any:
        layers = self.k.layers
        output = self.r.choice(
            (layers.Dropout, layers.BatchNormalization, layers.LayerNormalization, layers.ReLU,
             lambda **o: layers.Activation("sigmoid", **o), layers.LeakyReLU)
        )(**self.name())  # fmt: skip
        x = self.pick(3)
        return output(inputs=x) if self.k is keras and self.r.random() < 0.2 else output(x)

    def recurrent(self) -> Any:
        r, layers = self.r, self.k.layers
        name = r.choice(("LSTM", "GRU", "SimpleRNN"))
        options = {
            "return_sequences": r.random() < 0.6, "return_state": r.random() < 0.3,
            "go_backwards": r.random() < 0.2, **self.name(),
        }  # fmt: skip
        if r.random() < 0.15:
            cell = getattr(layers, f"{name}Cell")(UNITS)
            layer = layers.RNN(cell, **options)
        else:
            layer = getattr(layers, name)(UNITS, **options)
        count = 2 if name == "LSTM" else 1
        x, inputs = self.pick(3), {}
        if r.random() < 0.3:
            layer, count = (
                layers.Bidirectional(layer, merge_mode=r.choice(("sum", "ave"))),
                2 * count,
            )
        if r.random() < 0.35:
            states = [self.pick(2) for _ in range(count)]
            inputs["initial_state"] = states if count > 1 else states[0]
        self.layers.append(layer)
        return layer(x, **inputs)

    def again(self) -> Any:
        """A layer that was called before, perhaps of another kind of mask."""
        return self.r.choice(self.layers)(self.pick(3)) if self.layers else self.dense()

    def distributed(self) -> Any:
        layers = self.k.layers
        inner = layers.Dense(UNITS)
        if self.r.random() < 0.4:
            inner = self.k.Sequential([layers.Input((UNITS,)), layers.Dense(UNITS), layers.ReLU()])
        return layers.TimeDistributed(inner, **self.name())(self.pick(3))

    def merged(self) -> Any:
        rank = self.r.choice((2, 3))
        name = self.r.choice(("Add", "Multiply", "Average", "Maximum", "Minimum", "Subtract"))
        return getattr(self.k.layers, name)(**self.name())([self.pick(rank), self.pick(rank)])

    def joined(self) -> Any:
        both = self.k.layers.Concatenate(**self.name())([self.pick(3), self.pick(3)])
        return self.k.layers.Dense(UNITS)(both)

    def attended(self) -> Any:
        layers, one, other = self.k.layers, self.pick(3), self.pick(3)
        if self.r.random() < 0.5:
            return layers.MultiHeadAttention(2, 2, **self.name())(one, other)
        return layers.Attention(**self.name())([one, other])

    def pooled(self) -> Any:
        layers = self.k.layers
        layer = self.r.choice((layers.GlobalAveragePooling1D, layers.GlobalMaxPooling1D))
        return layer(**self.name())(self.pick(3))

    def users_own(self) -> Any:
        self.has_users = True
        return self.users[self.r.randrange(2)]()(self.pick(3))

    def masked_by_name(self) -> Any:
        x = self.pick(3)
        mask = self.k.layers.Activation("relu")(x)[:, :, 0] > 0.1
        return self.k.layers.GRU(UNITS, return_sequences=self.r.random() < 0.5)(x, mask=mask)

    def inner(self) -> Any:
        """A model inside, called once or several times."""
        if not self.models or self.r.random() < 0.4:
            self.models.append(self._model())
        return self.r.choice(self.models)(self)

    def _model(self) -> Callable[[Any], Any]:
        k, r = self.k, self.r
        if r.random() < 0.25:
            layers = k.layers
            body = [layers.Input((STEPS, UNITS)), layers.Dense(UNITS), layers.LSTM(
                UNITS, return_sequences=r.random() < 0.5)]  # fmt: skip
            model = k.Sequential(body)
            return lambda outer: model(outer.pick(3))
        part = Builder(k, r, self.depth + 1)
        shapes = [r.choice(((STEPS, UNITS), (UNITS,), None)) for _ in range(r.randint(1, 2))]
        inputs = []
        for shape in shapes:
            x = k.layers.Input(shape or (STEPS,), dtype=None if shape else "int32")
            inputs.append(x)
            part.add(
                x if shape else k.layers.Embedding(WORDS, UNITS, mask_zero=r.random() < 0.7)(x)
            )
        part.grow(r.randint(1, 4))
        self.has_users |= part.has_users
        keys = r.sample(["q", "c", "k"], len(inputs))
        as_dict = r.random() < 0.3 and len(inputs) > 1
        ends = part.ends(r.randint(1, 2))
        sample: Any = dict(zip(keys, inputs, strict=True)) if as_dict else inputs
        if len(ends) > 1 and r.random() < 0.3:
            ends = dict(zip(("z", "d"), ends, strict=True))
        else:
            ends = ends if len(ends) > 1 else ends[0]
        model = k.Model(sample if len(inputs) > 1 else inputs[0], ends)

        def call(outer: Builder) -> Any:
            values = [
                outer.ids() if shape is None else outer.pick(len(shape) + 1) for shape in shapes
            ]
            if len(values) == 1:
                return model(values[0])
            if as_dict:
                pairs = list(zip(keys, values, strict=True))
                r.shuffle(pairs)
                return model(dict(pairs))
            return model(values)

        return call

    def ids(self) -> Any:
        """Words of the model itself."""
        return self.words[0] if getattr(self, "words", None) else self._made_ids()

    def _made_ids(self) -> Any:
        return self.k.layers.Activation("relu")(self.pick(3))[:, :, 0] * 3

    # ---- the whole ---------------------------------------------------------------------

    def grow(self, count: int) -> None:
        steps = [self.dense, self.passing, self.passing, self.recurrent, self.recurrent, self.again,
                 self.distributed, self.merged, self.joined, self.attended, self.pooled,
                 self.masked_by_name, self.users_own]  # fmt: skip
        if self.depth < 2:
            steps += [self.inner] * 4
        for _ in range(count):
            try:
                self.add(self.r.choice(steps)())
            except Exception:  # what Keras does not take is left out
                continue

    def ends(self, count: int) -> list[Any]:
        """Some of the newest tensors; none is an input."""
        result = self.pool[-4:]
        self.r.shuffle(result)
        actual = result[:count]
        return [self.k.layers.Dense(2)(x) if is_input(x) else x for x in actual]


def is_input(x: Any) -> bool:
    history = getattr(x, "_keras_history", None)
    layer = history[0] if history else getattr(x, "node", None)
    return type(layer).__name__ == "InputLayer" or "KerasTensor" not in type(x).__name__


def network(rng: random.Random) -> Network:
    """A model in memory or in a file, with its inputs and what Keras makes of them."""
    k = keras if rng.random() < 0.7 else tf_keras
    k.utils.set_random_seed(rng.randrange(1 << 31))
    top = Builder(k, rng)
    top.words = []  # type: ignore[attr-defined]
    inputs, kinds = [], {}
    for index in range(rng.randint(1, 3)):
        kind = rng.choice(("words", "words", "sequence", "vector"))
        name = f"{kind}_{index}"
        shape = {"words": (STEPS,), "sequence": (STEPS, UNITS), "vector": (UNITS,)}[kind]
        x = k.layers.Input(shape, name=name, dtype="int32" if kind == "words" else None)
        inputs.append(x)
        kinds[name] = (kind, shape)
        if kind == "words":
            top.words.append(x)  # type: ignore[attr-defined]
            top.add(k.layers.Embedding(WORDS, UNITS, mask_zero=rng.random() < 0.75)(x))
        elif kind == "sequence" and rng.random() < 0.4:
            top.add(k.layers.Masking(0.0)(k.layers.ReLU()(x)))
        else:
            top.add(x)
    top.grow(rng.randint(2, 7))
    ends = top.ends(rng.randint(1, 3))
    keys = rng.sample(NAMES, len(ends)) if rng.random() < 0.25 else []
    model = k.Model(inputs, dict(zip(keys, ends, strict=True)) if keys else ends)
    noise = np.random.default_rng(rng.randrange(1 << 32))
    model.set_weights([
        np.abs(w) + 0.5 if "variance" in v.name else w + 0.1 * noise.standard_normal(w.shape)
        for v, w in zip(model.weights, model.get_weights(), strict=True)
    ])  # fmt: skip
    batch = rng.choice((1, 1, 1, 2, 3))
    ranged = rng.random() < 0.15
    read = [name for name in kinds if name in {x.name.split(":")[0] for x in model.inputs}]

    def data(count: int) -> dict[str, Array]:
        results = {}
        for name in read:
            kind, shape = kinds[name]
            results[name] = (
                noise.integers(0, 4, (count, *shape)).astype(np.float32) if kind == "words"
                else noise.standard_normal((count, *shape)).astype(np.float32)
            )  # fmt: skip
        return results

    def oracle_of(model: Any) -> Oracle:
        def oracle(sample: Mapping[str, Array]) -> list[Array]:
            values = [tf.cast(sample[name], tf.int32) if kinds[name][0] == "words" else
                      tf.constant(sample[name]) for name in read]  # fmt: skip
            converted = model(values, training=False)
            if isinstance(converted, Mapping):
                return [np.asarray(converted[key]) for key in sorted(converted)]
            return [
                np.asarray(x)
                for x in (converted if isinstance(converted, list | tuple) else [converted])
            ]

        return oracle

    options: dict[str, Any] = {"custom_conversion_functions": FUNCTIONS}
    suffix = rng.choice((".keras", ".h5")) if rng.random() < 0.5 else None
    if suffix is not None:
        options["custom_conversion_functions"] = FUNCTIONS_OF_FILES

    def source_of(model: Any) -> Any:
        return model if suffix is None else saved(model, suffix)

    def in_half() -> Half:
        users = {layer.__name__: layer for layer in top.users}
        half = halves.keras_model(model, users)
        oracle = oracle_of(half)
        return Half(source_of(half), lambda data: oracle(halves.rounded(data)))

    if not top.has_users:
        del options["custom_conversion_functions"]
    if ranged or batch > 1:
        first = mlferry.RangeDim(1, 4) if ranged else batch
        options["inputs"] = [
            mlferry.TensorType(name=name, shape=(first, *kinds[name][1])) for name in read
        ]
    return Network(
        source_of(model), data(batch if not ranged else 1), oracle_of(model), options,
        names=sorted(keys) if keys else None, others=[data(n) for n in (2, 4)] if ranged else [],
        half=in_half,
    )  # fmt: skip


def saved(model: Any, suffix: str) -> Path:
    path = Path(tempfile.mkdtemp(prefix="mlferry-")) / f"m{suffix}"
    model.save(path)
    return path
