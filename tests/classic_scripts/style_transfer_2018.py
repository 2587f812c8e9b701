"""An ONNX network from picture to picture, as style transfer of PyTorch was converted."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from PIL import Image

from mlferry.converters.onnx import convert

weights = np.eye(3, dtype=np.float32)[..., None, None] * 0.5
graph = helper.make_graph(
    [helper.make_node("Conv", ["0", "w"], ["186"])],
    "style",
    [helper.make_tensor_value_info("0", TensorProto.FLOAT, [1, 3, 16, 24])],
    [helper.make_tensor_value_info("186", TensorProto.FLOAT, [1, 3, 16, 24])],
    [onnx.numpy_helper.from_array(weights, "w")],
)
opsets = [helper.make_opsetid("", 13)]
onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "candy.onnx")

mlmodel = convert(
    onnx.load("candy.onnx"),
    image_input_names=["0"],
    image_output_names=["186"],
    preprocessing_args={"is_bgr": False},
    deprocessing_args={"image_scale": 2.0, "red_bias": 10.0},
    minimum_ios_deployment_target="12",
)
mlmodel.save("candy.mlmodel")

pixels = np.random.default_rng(0).integers(0, 200, (16, 24, 3)).astype(np.uint8)
out = mlmodel.predict({"0": Image.fromarray(pixels)})["186"]
out.save("styled.png")
assert out.size == (24, 16)
wanted = pixels.astype(np.int64) + [10, 0, 0]
assert np.abs(np.asarray(Image.open("styled.png")) - wanted).max() <= 1
