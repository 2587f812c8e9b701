"""A network layer by layer, with weights from arrays, and its input made an image."""

import numpy as np

import mlferry as coremltools
from mlferry.models import datatypes
from mlferry.models.neural_network import NeuralNetworkBuilder
from mlferry.models.neural_network.printer import print_network_spec
from mlferry.models.utils import load_spec, save_spec

rng = np.random.default_rng(0)
W = rng.normal(size=(3, 3, 3, 2)).astype(np.float32)  # height, width, input, output
dense = rng.normal(size=(4, 8 * 8 * 2)).astype(np.float32)

input_features = [("data", datatypes.Array(3, 8, 8))]
output_features = [("prob", datatypes.Array(4))]
builder = NeuralNetworkBuilder(input_features, output_features, mode="classifier")
builder.add_convolution(
    name="conv",
    kernel_channels=3,
    output_channels=2,
    height=3,
    width=3,
    stride_height=1,
    stride_width=1,
    border_mode="same",
    groups=1,
    W=W,
    b=None,
    has_bias=False,
    input_name="data",
    output_name="conv_out",
)
builder.add_activation("relu", "RELU", "conv_out", "relu_out")
builder.add_flatten("flatten", mode=0, input_name="relu_out", output_name="flat")
builder.add_inner_product(
    name="fc",
    W=dense,
    b=np.zeros(4),
    input_channels=8 * 8 * 2,
    output_channels=4,
    has_bias=True,
    input_name="flat",
    output_name="scores",
)
builder.add_softmax(name="softmax", input_name="scores", output_name="prob")
builder.set_class_labels(["n", "e", "s", "w"], predicted_feature_name="wind")
builder.set_pre_processing_parameters(image_input_names=["data"], image_scale=1 / 255.0)
builder.inspect_layers(last=2)
save_spec(builder.spec, "Wind.mlmodel")

spec = load_spec("Wind.mlmodel")
print_network_spec(spec, interface_only=False)
pixels = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
found = coremltools.models.MLModel(spec).predict({"data": pixels})

x = np.pad(pixels.transpose(2, 0, 1) / 255.0, ((0, 0), (1, 1), (1, 1)))
windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
blob = np.maximum(np.einsum("chwij,ijco->ohw", windows, W), 0)
scores = dense @ blob.ravel()
wanted = np.exp(scores - scores.max())
np.testing.assert_allclose(list(found["prob"].values()), wanted / wanted.sum(), rtol=1e-4)
