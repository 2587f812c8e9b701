"""How well a classifier of pictures keeps its answers with few bits a weight.

    python benchmarks/few_bits.py MODEL CHOOSE MEASURE [--bias B G R] [--bits 4 3 2] [--docs]

MODEL is an ONNX or Keras classifier of BGR pictures less a bias. The pictures of the folder CHOOSE
choose the weights, those of MEASURE are only answered: each in ten views, whole and without a strip
at two sides, and mirrored, as a few pictures with two likely classes decide a rate over whole ones.
The interval is that of the mean over pictures. KL is the mean divergence of the scores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import mlferry
from benchmarks.pages import PAGE, write_table

MORE = (2, 3, 4, 6, 8)  # bits to choose from
LEFT_OUT = 0.12  # of a picture's extent
# by bits: what is in the table, and how to quantize
SETTINGS: dict[int, list[tuple[str, dict[str, Any]]]] = {
    4: [
        ("one per weight", {"nbits": 4}),
        ("one for 4 channels", {"nbits": 4, "granularity": "per_grouped_channel", "group_size": 4}),
        ("one for 4 inputs",
         {"nbits": 4, "granularity": "per_block", "group_size": 0, "block_size": 4}),
        ("vectors of 2, 8 bits each", {"nbits": 8, "cluster_dim": 2}),
        ("vectors of 1, 2 or 4, `mean_bits=4.15`",
         {"nbits": MORE, "cluster_dim": (1, 2, 4), "mean_bits": 4.15}),
    ],
    3: [
        ("one per weight", {"nbits": 3}),
        ("one for 4 channels", {"nbits": 3, "granularity": "per_grouped_channel", "group_size": 4}),
        ("one for 4 inputs",
         {"nbits": 3, "granularity": "per_block", "group_size": 0, "block_size": 4}),
        ("vectors of 2, 6 bits each", {"nbits": 6, "cluster_dim": 2}),
        ("vectors of 1, 2 or 4, `mean_bits=3.15`",
         {"nbits": MORE, "cluster_dim": (1, 2, 4), "mean_bits": 3.15}),
    ],
    2: [
        ("one per weight", {"nbits": 2}),
        ("one for 4 channels", {"nbits": 2, "granularity": "per_grouped_channel", "group_size": 4}),
        ("vectors of 2, 4 bits each", {"nbits": 4, "cluster_dim": 2}),
        ("vectors of 4, 8 bits each", {"nbits": 8, "cluster_dim": 4}),
        ("vectors of 1, 2 or 4, `mean_bits=2.02`",
         {"nbits": MORE, "cluster_dim": (1, 2, 4), "mean_bits": 2.02}),
    ],
}  # fmt: skip


def pictures(folder: Path, size: tuple[int, int]) -> list[Image.Image]:
    files = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    return [Image.open(path).convert("RGB").resize(size) for path in files]


def views(picture: Image.Image) -> list[Image.Image]:
    """Ten pictures of the same size."""
    width, height = picture.size
    right, below = round(width * LEFT_OUT), round(height * LEFT_OUT)
    boxes = [(0, 0, width, height)] + [
        (x, y, x + width - right, y + height - below) for x in (0, right) for y in (0, below)
    ]
    cut = [picture.resize(picture.size, Image.Resampling.BILINEAR, box=box) for box in boxes]
    return [*cut, *map(ImageOps.mirror, cut)]


def probabilities(model: mlferry.MLModel, samples: list[dict[str, Any]]) -> np.ndarray:
    (name,) = (feature.name for feature in model.get_spec().description.output)
    scores = np.array([np.ravel(output[name]) for output in model.predict(iter(samples))])
    if np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        return scores.astype(np.float64)
    powers = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def size_of(model: mlferry.MLModel) -> int:
    """In bytes, of the model and its weights."""
    with tempfile.TemporaryDirectory() as folder:
        package = model.save(Path(folder) / "m.mlpackage")
        return sum(path.stat().st_size for path in Path(package).rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("choose", type=Path)
    parser.add_argument("measure", type=Path)
    parser.add_argument("--bias", type=float, nargs=3, default=(-104, -117, -123))
    parser.add_argument("--bits", type=int, nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--docs", action="store_true", help="write docs/quantization.md's table")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    plain = mlferry.convert(arguments.model).get_spec().description.input[0]
    kind = mlferry.ImageType(plain.name, color_layout="BGR", bias=list(arguments.bias))
    model = mlferry.convert(arguments.model, inputs=[kind])
    extent = tuple(plain.type.multiArrayType.shape)[-2:][::-1]
    samples = [{plain.name: each} for each in pictures(arguments.choose, extent)]
    shown = [views(each) for each in pictures(arguments.measure, extent)]
    measured = [{plain.name: view} for each in shown for view in each]
    right = probabilities(model, measured)
    rows = []
    for bits in arguments.bits:
        least = 0
        for name, setting in SETTINGS[bits]:
            start = time.perf_counter()
            options = {"sample_data": samples, "convert_to": "mlprogram", **setting}
            small = mlferry.quantize_weights(model, quantization_mode="kmeans", **options)
            seconds = time.perf_counter() - start
            given = probabilities(small, measured)
            same = (given.argmax(axis=1) == right.argmax(axis=1)).reshape(len(shown), -1).mean(1)
            wide = 1.96 * same.std() / np.sqrt(len(same))
            kl = np.sum(right * (np.log(right + 1e-12) - np.log(given + 1e-12)), axis=1).mean()
            size = size_of(small)
            least = least or size
            rows.append(
                (
                    f"{setting.get('mean_bits', bits)}", name, f"{size:,}",
                    f"{size / least - 1:+.1%}" if size != least else "",
                    f"{same.mean():.3f} ({same.mean() - wide:.3f} to {same.mean() + wide:.3f})",
                    f"{kl:.3f}",
                )
            )  # fmt: skip
            print(*rows[-1], f"{seconds:.0f} s", sep=" | ", flush=True)
    if arguments.docs:
        header = ("Bits per weight", "Tables", "Bytes", "Against one table", "Agreement", "KL")
        write_table("few bits", header, rows, PAGE.with_name("quantization.md"))


if __name__ == "__main__":
    main()
