"""What only Keras 2 has, or writes in ways of its own; tf_keras is the oracle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import mlferry
from mlferry.errors import ConversionError
from tests.converters.keras.test_models import same_outputs

Library = Callable[[str], Any]

LAYERS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "local": (lambda L: L.LocallyConnected2D(3, 2), (5, 4, 2)),
    "local, strided": (
        lambda L: L.LocallyConnected2D(3, (2, 3), (2, 1), use_bias=False), (6, 5, 2)
    ),
    "local, activated": (lambda L: L.LocallyConnected2D(2, 2, activation="relu"), (3, 4, 2)),
    "local rows": (lambda L: L.LocallyConnected1D(3, 2, strides=2), (7, 2)),
    "maps both ways": (lambda L: L.Bidirectional(L.ConvLSTM2D(2, 2)), (3, 5, 4, 2)),
    "sequences of maps both ways": (
        lambda L: L.Bidirectional(
            L.ConvLSTM2D(2, 2, return_sequences=True, padding="same"), merge_mode="sum"
        ),
        (3, 5, 4, 2),
    ),
    "rows of maps both ways": (
        lambda L: L.Bidirectional(L.ConvLSTM1D(2, 2, return_sequences=True)), (3, 5, 2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore")  # of Keras, of its own format
def test_layers(name: str, library: Library, rng: np.random.Generator, tmp_path: Path) -> None:
    k = library("tf_keras")
    make, shape = LAYERS[name]
    model = k.Sequential([k.layers.Input(shape), make(k.layers)])
    model.set_weights([rng.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
    data = [rng.normal(size=(1, *shape)).astype(np.float32)]
    same_outputs(mlferry.convert(model), model, data)
    model.save(tmp_path / "m.h5")
    same_outputs(mlferry.convert(tmp_path / "m.h5"), model, data)


def test_a_kernel_stored_as_a_whole_is_refused(library: Library) -> None:
    k = library("tf_keras")
    layer = k.layers.LocallyConnected1D(3, 2, implementation=2)
    model = k.Sequential([k.layers.Input((7, 2)), layer])
    with pytest.raises(ConversionError, match="implementation=2: 1 can be converted"):
        mlferry.convert(model)


@pytest.mark.parametrize("name", ["LSTM", "GRU", "CuDNNLSTM", "CuDNNGRU"])
def test_arrays_of_cudnn(
    name: str, library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Keras loads them into its own layers, too; the architecture names either."""
    k = library("tf_keras")
    kind = name.removeprefix("CuDNN")
    gates = 4 if kind == "LSTM" else 3
    options = {"reset_after": True} if kind == "GRU" else {}
    layer = getattr(k.layers, kind)(4, name="r", **options)
    model = k.Sequential([k.layers.Input((5, 3), name="x"), layer])
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs.update({"layer_names": [b"r"], "backend": b"tensorflow"})
        file.attrs["keras_version"] = b"2.2.4"
        group = file.create_group("r")
        shapes = {"kernel": (3, 4 * gates), "recurrent_kernel": (4, 4 * gates),
                  "bias": (8 * gates,)}  # fmt: skip
        group.attrs["weight_names"] = [f"r/{key}:0".encode() for key in shapes]
        for key, shape in shapes.items():
            group[f"r/{key}:0"] = rng.standard_normal(shape).astype("f4")
    model.load_weights(tmp_path / "w.h5")
    config = json.loads(model.to_json())
    (entry,) = [item for item in config["config"]["layers"] if item["class_name"] == kind]
    entry["class_name"] = name
    if name != kind:  # CuDNN's layers have few options
        for key in ("activation", "recurrent_activation", "use_bias", "reset_after"):
            entry["config"].pop(key, None)
    (tmp_path / "m.json").write_text(json.dumps(config))
    data = [rng.standard_normal((1, 5, 3)).astype(np.float32)]
    same_outputs(mlferry.convert((tmp_path / "m.json", tmp_path / "w.h5")), model, data)


def test_archives_that_list_layers_twice(
    library: Library, rng: np.random.Generator, tmp_path: Path
) -> None:
    """Keras 2.12 to 2.14 count a layer with arrays twice, those without once."""
    k = library("tf_keras")
    inner = k.Sequential([k.layers.Input((4,)), k.layers.Dense(4), k.layers.ReLU()], name="inner")
    model = k.Sequential(
        [k.layers.Input((3,)), k.layers.Dense(4), k.layers.ReLU(), inner, k.layers.ReLU(),
         k.layers.Dense(5), k.layers.BatchNormalization(), k.layers.Dense(2)]
    )  # fmt: skip
    model.set_weights([rng.random(w.shape).astype(w.dtype) + 0.1 for w in model.get_weights()])
    model.save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "w.h5").write_bytes(held["model.weights.h5"])
    with h5py.File(tmp_path / "w.h5") as new, h5py.File(tmp_path / "old.h5", "w") as old:
        listed_twice(new, old, model)
    held["model.weights.h5"] = (tmp_path / "old.h5").read_bytes()
    held["metadata.json"] = json.dumps({"keras_version": "2.13.1"}).encode()
    with zipfile.ZipFile(tmp_path / "old.keras", "w") as archive:
        for name, content in held.items():
            archive.writestr(name, content)
    data = [rng.normal(size=(1, 3)).astype(np.float32)]
    same_outputs(mlferry.convert(tmp_path / "old.keras"), model, data)


def listed_twice(new: Any, old: Any, model: Any) -> None:
    """The folders of a newer archive under the names that Keras 2.13 gives them."""
    source = next(iter({"layers", "_layer_checkpoint_dependencies"} & set(new)))
    target = old.create_group("_layer_checkpoint_dependencies")
    counts: dict[str, int] = {}
    seen: dict[str, int] = {}
    for layer in model.layers:
        kind = {"Dense": "dense", "ReLU": "re_lu", "Sequential": "sequential",
                "BatchNormalization": "batch_normalization"}[type(layer).__name__]  # fmt: skip
        number = seen[kind] = seen.get(kind, -1) + 1
        at = counts.get(kind, 0)
        counts[kind] = at + (2 if layer.weights else 1)
        before = f"{kind}_{number}" if number else kind
        after = f"{kind}_{at}" if at else kind
        if kind == "sequential":
            listed_twice(new[source][before], target.create_group(after), layer)
        else:
            new.copy(new[source][before], target, name=after)
        if layer.weights:
            target.create_group(f"{kind}_{at + 1}").create_group("vars")


@pytest.mark.parametrize("keras_name", ["keras", "tf_keras"])
@pytest.mark.parametrize("inside", [False, True])
def test_functional_models_of_a_users_class(
    inside: bool, keras_name: str, library: Library, rng: np.random.Generator
) -> None:
    """With an `__init__` of its own its config has no layers; the object has its graph."""
    k = library(keras_name)

    class Trained(k.Model):  # type: ignore[misc,name-defined]
        def __init__(self, inputs: Any, outputs: Any, rate: float = 0.1, **more: Any) -> None:
            super().__init__(inputs, outputs, **more)
            self.rate = rate

        def train_step(self, data: Any) -> Any:
            return {}

    x, y = k.layers.Input((5,), name="x"), k.layers.Input((5,))
    model = Trained(x, k.layers.Dense(3)(x))
    if inside:
        middle = Trained(y, Trained(y, k.layers.Dense(3)(y), name="deep")(y), name="middle")
        model = k.Model(x, k.layers.Dense(2)(middle(x)))
    data = [rng.normal(size=(1, 5)).astype(np.float32)]
    same_outputs(mlferry.convert(model), model, data)
