"""The two scripts of Apple's talk (WWDC 2018, session 709) run after changing imports only.

They are written here as a reader of coremltools' documentation of that time types them; the
name of the package is the only thing that changes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mlferry
from mlferry.layers.builder import Builder
from mlferry.spec import features

QUANTIZATION = """
import coremltools
from coremltools.models.neural_network.quantization_utils import *

model = coremltools.models.MLModel("SqueezeNet.mlmodel")
quantized_model = quantize_weights(model, 8, "linear")
compare_models(model, quantized_model, "photos")

quantized_model = quantize_weights(model, nbits=4, quantization_mode="kmeans")
quantized_model.save("QuantizedSqueezeNet.mlmodel")

def lut_function(nbits, wp):
    lut = [wp.min() + step * (wp.max() - wp.min()) / 2 ** nbits for step in range(2 ** nbits)]
    nearest = [[abs(w - entry) for entry in lut].index(min(abs(w - entry) for entry in lut))
               for w in wp.ravel()]
    return lut, nearest

quantized_model = quantize_weights(model, 3, "custom_lut", lut_function=lut_function)
compare_models(model, quantized_model, "photos")
"""

CUSTOM_LAYER = """
import coremltools
from coremltools.proto import NeuralNetwork_pb2

def convert_grid_sampler(layer):
    params = NeuralNetwork_pb2.CustomLayerParams()
    params.className = "GridSampler"
    params.description = "samples the image at a grid that the network chooses"
    params.parameters["output_height"].intValue = layer.output_height
    params.parameters["output_width"].intValue = layer.output_width
    return params

coreml_model = coremltools.converters.keras.convert(
    "digits_stn.h5",
    input_names="image",
    image_input_names="image",
    output_names="digit",
    class_labels=[str(i) for i in range(10)],
    image_scale=1 / 255.0,
    custom_conversion_functions={"GridSampler": convert_grid_sampler},
)
coreml_model.author = "me"
coreml_model.short_description = "spatial transformer"
coreml_model.input_description["image"] = "a digit somewhere"
coreml_model.visualize_spec()
coreml_model.save("DigitClassifier.mlmodel")

spec = coreml_model.get_spec()
coremltools.utils.rename_feature(spec, "digit", "probabilities")
coremltools.utils.save_spec(spec, "Renamed.mlmodel")
"""


def run(script: str, folder: Path) -> str:
    """The script with another import, in a process of its own and a folder of its own."""
    changed = script.replace("import coremltools\n", "import mlferry as coremltools\n")
    changed = changed.replace("from coremltools", "from mlferry")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", changed], cwd=folder, text=True, check=False,
        capture_output=True, env={**os.environ, "BROWSER": "true"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_demo(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    builder = Builder()
    builder.input("image", (1, 3, 12, 12), features.image(12, 12, "RGB"))
    builder.layer(
        "convolution", "conv", ["image"], ["a"], outputChannels=16, kernelChannels=3,
        kernelSize=[3, 3], valid={}, weights=rng.normal(size=(16, 3, 3, 3)).astype(np.float32),
    )  # fmt: skip
    builder.layer("reduceMean", "mean", ["a"], ["m"], axes=[2, 3], keepDims=False)
    builder.layer("innerProduct", "ip", ["m"], ["i"], inputChannels=16, outputChannels=8,
                  weights=rng.normal(size=(8, 16)).astype(np.float32))  # fmt: skip
    builder.layer("softmaxND", "soft", ["i"], ["p"], axis=-1)
    builder.output("p")
    spec = builder.model(builder.classifier([*"abcdefgh"], "p"))
    mlferry.MLModel(spec).save(tmp_path / "SqueezeNet.mlmodel")
    (tmp_path / "photos").mkdir()
    for index in range(4):
        pixels = rng.integers(0, 256, (20, 16, 3)).astype(np.uint8)
        image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.jpg")
    text = run(QUANTIZATION, tmp_path)
    assert text.count("Top 1 agreement:") == 4  # two outputs, twice
    assert mlferry.MLModel(tmp_path / "QuantizedSqueezeNet.mlmodel").predict(
        {"image": np.zeros((12, 12, 3), np.uint8)}
    )


def test_the_second_demo(tmp_path: Path) -> None:
    pytest.importorskip("igraph")
    source = mlferry.examples.path("digits_stn.h5").read_bytes()
    (tmp_path / "digits_stn.h5").write_bytes(source)
    run(CUSTOM_LAYER, tmp_path)
    text = str(mlferry.MLModel(tmp_path / "DigitClassifier.mlmodel"))
    for part in ("spatial transformer", "me", "a digit somewhere", "custom layer GridSampler",
                 "output_height: 20", "classLabel", "image GRAYSCALE 40 x 40"):  # fmt: skip
        assert part in text
    assert "probabilities" in str(mlferry.MLModel(tmp_path / "Renamed.mlmodel"))
