"""A layer of one's own in a model of Keras, with the parameters in a protobuf message."""

import keras
import numpy as np

import mlferry as coremltools
from mlferry.proto import NeuralNetwork_pb2


class Swish(keras.layers.Layer):
    def __init__(self, beta=1.0, **kwargs):
        super().__init__(**kwargs)
        self.beta = beta

    def call(self, x):
        return x * keras.ops.sigmoid(self.beta * x)

    def get_config(self):
        return {**super().get_config(), "beta": self.beta}


def convert_swish(layer):
    params = NeuralNetwork_pb2.CustomLayerParams()
    params.className = "AAPLSwish"
    params.description = "A fancy new activation function"
    params.parameters["beta"].doubleValue = layer.beta
    return params


model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3), Swish(1.5)])
coreml_model = coremltools.converters.keras.convert(
    model,
    input_names="x",
    output_names="y",
    add_custom_layers=True,
    custom_conversion_functions={"Swish": convert_swish},
)
spec = coreml_model.get_spec()
layers = {layer.name: layer for layer in spec.neuralNetwork.layers}
custom = [layer for layer in layers.values() if layer.WhichOneof("layer") == "custom"]
assert [layer.custom.className for layer in custom] == ["AAPLSwish"]
assert coremltools.utils.get_custom_layer_names(spec) == {"AAPLSwish"}


@coremltools.register_custom_layer("AAPLSwish")
class AAPLSwish(coremltools.CustomLayer):
    def evaluate(self, inputs):
        (x,) = inputs
        return [x / (1 + np.exp(-self.parameters["beta"] * x))]


x = np.random.default_rng(0).normal(size=(1, 4)).astype(np.float32)
np.testing.assert_allclose(coreml_model.predict({"x": x})["y"], model(x), atol=1e-6)
