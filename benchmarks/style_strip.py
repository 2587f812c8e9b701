"""One picture through a style network of 32, 8, 4, 3, 2 and 1 bits, as a strip.

    python benchmarks/style_strip.py MODEL PICTURE strip.png [--samples FOLDER] [--mode linear]
        [--cluster-dim 2]

MODEL is an ONNX, Keras or `.mlmodel` file with one picture in and one out, values of 0 to 255.
With ``--samples``, a folder of other pictures, the weights are chosen by their outputs. With
``--cluster-dim`` models of up to ``8 / N`` bits are programs with tables of vectors of N values.
Prints the size of every model and the PSNR of its picture against that of the float model.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps

import mlferry

BITS = (32, 8, 4, 3, 2, 1)
CAPTION = 28  # rows of pixels under each picture


def load(path: str) -> mlferry.MLModel:
    """The model with an image as input and an image as output."""
    if path.endswith(".mlmodel"):
        return mlferry.MLModel(path)
    plain = mlferry.convert(path).get_spec().description
    return mlferry.convert(
        path,
        inputs=[mlferry.ImageType(plain.input[0].name)],
        outputs=[mlferry.ImageType(plain.output[0].name)],
    )


def psnr(reference: np.ndarray, other: np.ndarray) -> float:
    """In dB, of values of 0 to 255."""
    error = np.mean(np.square(reference.astype(np.float64) - other))
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def quantized(
    model: mlferry.MLModel, bits: int, mode: str, samples: Any, length: int
) -> mlferry.MLModel:
    """With so many bits a weight, in vectors where an index of 8 bits is enough for them."""
    if length == 1 or bits * length > 8:
        return mlferry.quantize_weights(model, bits, mode, samples)
    return mlferry.quantize_weights(
        model, bits * length, mode, samples, cluster_dim=length, convert_to="mlprogram"
    )


def strip(
    model: mlferry.MLModel, picture: Image.Image, mode: str, samples: Any, length: int
) -> Image.Image:
    """The pictures side by side, each with its bits, size and PSNR below."""
    spec = model.get_spec().description
    name, made = spec.input[0].name, spec.output[0].name
    size = spec.input[0].type.imageType.width, spec.input[0].type.imageType.height
    given = ImageOps.fit(picture.convert("RGB"), size)
    reference: np.ndarray | None = None
    panels: list[tuple[np.ndarray, str]] = []
    for bits in BITS:
        small = model if bits == 32 else quantized(model, bits, mode, samples, length)
        stored = small.stored_size
        output = small.predict({name: given})
        assert isinstance(output, dict)
        pixels = np.asarray(output[made])
        reference = pixels if reference is None else reference
        text = f"{bits} bits  {stored / 1e6:.2f} MB"
        if bits != 32:
            text += f"  {psnr(reference, pixels):.1f} dB"
        print(text, flush=True)
        panels.append((pixels, text))
    height, width, _ = panels[0][0].shape
    whole = Image.new("RGB", (width * len(panels), height + CAPTION), "white")
    draw = ImageDraw.Draw(whole)
    for index, (pixels, text) in enumerate(panels):
        whole.paste(Image.fromarray(pixels), (index * width, 0))
        draw.text((index * width + 6, height + 8), text, fill="black")
    return whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("picture")
    parser.add_argument("out")
    parser.add_argument("--samples")
    parser.add_argument("--mode", default="linear")
    parser.add_argument("--cluster-dim", type=int, default=1)
    arguments = parser.parse_args()
    with Image.open(arguments.picture) as picture:
        made = strip(
            load(arguments.model), picture, arguments.mode, arguments.samples, arguments.cluster_dim
        )
    made.save(arguments.out)
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
