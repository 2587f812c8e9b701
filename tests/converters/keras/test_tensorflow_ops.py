"""TensorFlowOpLayer of old functional models: the op's own values, by Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import UnsupportedOpError

tf_keras = pytest.importorskip("tf_keras")
base_layer = pytest.importorskip("tf_keras.src.engine.base_layer")

FLOAT = {"T": {"type": "DT_FLOAT"}}
INDEX = {"Tidx": {"type": "DT_INT32"}}
SLICE = {"T": {"type": "DT_FLOAT"}, "Index": {"type": "DT_INT32"}}
MASKS = {"begin_mask": {"i": "1"}, "end_mask": {"i": "1"}, "shrink_axis_mask": {"i": "4"},
         "ellipsis_mask": {"i": "0"}, "new_axis_mask": {"i": "0"}}  # fmt: skip

# op: attributes, constants by place, the shape of a sample
ROWS: dict[str, tuple[dict[str, Any], dict[int, Any], tuple[int, ...]]] = {
    "Abs": (FLOAT, {}, (3, 2)),
    "Reshape": ({**FLOAT, "Tshape": {"type": "DT_INT32"}}, {1: [-1, 6]}, (3, 2)),
    "AddV2": (FLOAT, {1: [[1.5, -2.0]]}, (3, 2)),
    "Sub": (FLOAT, {0: 1.0}, (3, 2)),
    "Mean": ({**FLOAT, **INDEX, "keep_dims": {"b": True}}, {1: [1]}, (3, 2)),
    "Transpose": ({**FLOAT, "Tperm": {"type": "DT_INT32"}}, {1: [0, 2, 1]}, (3, 2)),
    "LeakyRelu": ({**FLOAT, "alpha": {"f": 0.3}}, {}, (3, 2)),
    "MaxPool": ({**FLOAT, "ksize": {"list": {"i": ["1", "2", "2", "1"]}},
                 "strides": {"list": {"i": ["1", "2", "2", "1"]}},
                 "padding": {"s": "U0FNRQ=="}, "data_format": {"s": "TkhXQw=="},
                 "explicit_paddings": {"list": {}}}, {}, (5, 6, 2)),
    "StridedSlice": ({**SLICE, **MASKS}, {1: [0, 1, 0], 2: [0, 3, 1], 3: [1, 1, 1]}, (3, 2)),
}  # fmt: skip


def saved(op: str, path: Path) -> tuple[Any, np.ndarray]:
    attributes, constants, shape = ROWS[op]
    x = tf_keras.Input(shape, name="x")
    told = {"name": op, "op": op, "attr": attributes,
            "input": [f"in_{place}" for place in range(len(constants) + 1)]}  # fmt: skip
    y = base_layer.TensorFlowOpLayer(told, name=f"layer_of_{op}", constants=constants)(x)
    model = tf_keras.Model(x, tf_keras.layers.Flatten()(y))
    model.save(path)
    return model, np.random.default_rng(1).standard_normal((1, *shape)).astype(np.float32)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
@pytest.mark.parametrize("op", ROWS)
def test_values_are_keras_own(op: str, tmp_path: Path) -> None:
    model, x = saved(op, tmp_path / "net.h5")
    (got,) = mlferry.convert(tmp_path / "net.h5").predict({"x": x}).values()
    right = model(x).numpy()
    np.testing.assert_allclose(np.reshape(got, right.shape), right, atol=1e-6)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_an_op_without_a_converter_is_told_and_the_layer_can_be_custom(tmp_path: Path) -> None:
    x = tf_keras.Input((3, 2), name="x")
    told = {"name": "BesselI0e", "op": "BesselI0e", "input": ["x"], "attr": FLOAT}
    y = base_layer.TensorFlowOpLayer(told, name="gamma")(x)
    tf_keras.Model(x, y).save(tmp_path / "net.h5")
    with pytest.raises(UnsupportedOpError, match=r"tf\.raw_ops\.BesselI0e: tf_op_layer_gamma"):
        mlferry.convert(tmp_path / "net.h5")
    model = mlferry.convert(
        tmp_path / "net.h5",
        custom_conversion_functions={
            "tf.raw_ops.BesselI0e": lambda node: mlferry.CustomLayerParams("Gamma")
        },
    )
    assert model.spec.neuralNetwork.layers[-1].custom.className == "Gamma"
