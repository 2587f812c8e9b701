"""Smaller weights, and how far the small model agrees with the large one."""

import keras
import numpy as np

import mlferry as coremltools
from mlferry.models.neural_network import quantization_utils

model = keras.Sequential([keras.layers.Input((16,)), keras.layers.Dense(8, activation="tanh")])
full = coremltools.converters.keras.convert(model, "x", "y", model_precision="float32")
half = coremltools.converters.keras.convert(model, "x", "y", model_precision="float16")
small = quantization_utils.quantize_weights(full, nbits=8, quantization_mode="linear")
samples = [
    {"x": row} for row in np.random.default_rng(0).normal(size=(12, 1, 16)).astype(np.float32)
]
quantization_utils.compare_models(full, small, samples)
for each, tolerance in ((half, 1e-3), (small, 1e-1)):
    made = np.stack([each.predict(sample)["y"] for sample in samples])
    wanted = np.stack([full.predict(sample)["y"] for sample in samples])
    assert np.abs(made - wanted).max() < tolerance
spec = half.get_spec()
assert len(spec.neuralNetwork.layers[0].innerProduct.weights.float16Value) == 2 * 16 * 8
fp16 = coremltools.utils.convert_neural_network_spec_weights_to_fp16(full.get_spec())
coremltools.utils.save_spec(fp16, "half.mlmodel")
