"""The main job, start to end: a Keras model with a custom layer, on a machine without a Mac.

Needs NumPy, protobuf and h5py: no Keras, no TensorFlow. Run it with ``make demo``.
"""

from __future__ import annotations

import runpy
import tempfile
import time
from pathlib import Path

import numpy as np

import mlferry

runpy.run_path(str(mlferry.examples.path("grid_sampler.py")))  # registers the custom layer's class


def convert_sampler(node):
    """What the converter cannot know: which class evaluates the layer, and its parameters."""
    return mlferry.CustomLayerParams(
        class_name="GridSampler",
        description="samples the image bilinearly at a grid moved by theta",
        parameters={"output_height": node.output_height, "output_width": node.output_width},
    )


def main() -> None:
    """Print each step."""
    source = mlferry.examples.path("digits_stn.h5")
    headline("1. Convert without a custom function")
    try:
        mlferry.convert(source)
    except mlferry.MlferryError as error:
        print(error)

    headline("2. Convert with one")
    functions = {"GridSampler": convert_sampler}
    start = time.perf_counter()
    model = mlferry.convert(source, custom_conversion_functions=functions)
    model.short_description = "reads a digit in a cluttered picture"
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "digits_stn.mlmodel")
        print(f"{source.name} -> {path.name} in {time.perf_counter() - start:.2f} s")

        headline("3. The saved model")
        model = mlferry.MLModel(path)
    print(model)

    headline("4. Run it here, the custom layer in Python")
    test = np.load(mlferry.examples.path("digits_stn.npz"))
    images = test["x"].astype(np.float32) / 255
    start = time.perf_counter()
    outputs = model.predict([{"image": image[None]} for image in images])
    spent = time.perf_counter() - start
    predictions = np.concatenate([output["digit"] for output in outputs])
    right = int((predictions.argmax(axis=1) == test["y"]).sum())
    difference = np.abs(predictions - test["predictions"]).max()
    print(f"{len(images)} digits in {spent:.2f} s")
    print(f"accuracy: {right / len(images):.1%}")
    print(f"largest difference from Keras's own predictions: {difference:.1e}")
    if difference > 1e-4:
        raise SystemExit("the converted model differs from Keras")


def headline(text: str) -> None:
    """A line that stands out."""
    print(f"\n== {text} ==\n")


if __name__ == "__main__":
    main()
