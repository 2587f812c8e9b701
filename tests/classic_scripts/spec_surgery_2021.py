"""The message of a model changed by hand: names, types, sizes and an added layer."""

import keras
import numpy as np

import mlferry as coremltools
from mlferry.models.neural_network import NeuralNetworkBuilder, flexible_shape_utils
from mlferry.proto import FeatureTypes_pb2 as ft

inputs = keras.layers.Input((6,))
model = keras.Model(inputs, keras.layers.Dense(4)(inputs))
mlmodel = coremltools.converters.keras.convert(
    model, input_names="x", output_names="scores", use_float_arraytype=False
)
spec = mlmodel.get_spec()
assert spec.description.input[0].type.multiArrayType.dataType == ft.ArrayFeatureType.DOUBLE
coremltools.utils.convert_double_to_float_multiarray_type(spec)
assert spec.description.output[0].type.multiArrayType.dataType == ft.ArrayFeatureType.FLOAT32

builder = NeuralNetworkBuilder(spec=spec)
builder.add_softmax_nd("softmax", "scores", "p", axis=-1)
builder.add_topk("top", ["p"], ["best", "where"], k=2, axis=-1)
for name in ("best", "where"):
    output = builder.spec.description.output.add()
    output.name = name
    output.type.multiArrayType.dataType = ft.ArrayFeatureType.FLOAT32
coremltools.utils.rename_feature(spec, "x", "features")
flexible_shape_utils.set_multiarray_ndshape_range(spec, "features", [1, 6], [4, 6])
coremltools.utils.save_spec(spec, "top.mlmodel")

made = coremltools.models.MLModel("top.mlmodel").predict({"features": np.ones(6)})
scores = np.asarray(model(np.ones((1, 6), np.float32)))
chances = np.exp(scores) / np.exp(scores).sum()
np.testing.assert_allclose(made["best"][0], np.sort(chances[0])[::-1][:2], rtol=1e-5)
np.testing.assert_array_equal(made["where"][0], np.argsort(-chances[0])[:2])
