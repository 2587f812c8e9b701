"""Predicting a folder of pictures by one process, and by pools of one and of two.

    python benchmarks/workers.py [--pictures 96] [--runs 3] [--docs]

SqueezeNet with an image input, one BLAS thread a process; pools are started, and hold the model,
before the clock runs. The rest is what the process that hands out the work does for each picture:
the time it takes, and the bytes that travel. With it docs/many-samples.md works out how far one
such process reaches.
"""

from __future__ import annotations

import argparse
import os
import pickle
import statistics
import sys
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mlferry

os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.networks import NETWORKS
from benchmarks.pages import PAGE, write_table

PAGE_HERE = PAGE.with_name("many-samples.md")


def pictures(folder: Path, count: int) -> None:
    """JPEG files of 640 x 480, smooth as photographs are."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(coarse).resize((640, 480)).save(folder / f"{index:03}.jpg", quality=90)


def handed_out(folder: Path, model: mlferry.MLModel) -> tuple[float, float]:
    """Seconds and bytes a picture in the process that hands out the work."""
    from mlferry.models.samples import samples_for
    from mlferry.models.workers import CHUNK, dumped

    parcels = samples_for(model.get_spec(), folder).parcels()
    start, size, count = time.perf_counter(), 0, 0
    while part := [parcel for parcel, _ in zip(parcels, range(CHUNK), strict=False)]:
        size += len(pickle.dumps(dumped(part, "a sample")))
        count += len(part)
    return (time.perf_counter() - start) / count, size / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=96)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--docs", action="store_true", help="write docs/many-samples.md's table")
    arguments = parser.parse_args()
    import mlferry

    source = NETWORKS["SqueezeNet 1.1"](1).SerializeToString()
    inputs = [mlferry.ImageType("x", shape=(1, 3, 227, 227), scale=1 / 128, bias=[-1, -1, -1])]
    model = mlferry.convert(source, inputs=inputs)
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(1) as one:
        folder = Path(name)
        pictures(folder, arguments.pictures)
        with ProcessPoolExecutor(2) as two:
            ways: dict[str, Executor | None] = {
                "this process": None, "one worker": one, "two workers": two,
            }  # fmt: skip
            times: dict[str, list[float]] = {way: [] for way in ways}
            for run in range(arguments.runs + 1):
                for way, executor in ways.items():
                    start = time.perf_counter()
                    made = sum(1 for _ in model.predict(folder, executor=executor))
                    assert made == arguments.pictures
                    if run:  # the first starts the workers
                        times[way].append(made / (time.perf_counter() - start))
        seconds, size = handed_out(folder, model)
    base = times["this process"]
    rows = [
        (
            way, f"{statistics.median(found):.0f}",
            f"{statistics.median(a / b for a, b in zip(found, base, strict=True)):.2f}",
        )
        for way, found in times.items()
    ]  # fmt: skip
    for row in rows:
        print("  ".join(row))
    print(f"handing out: {1e6 * seconds:.0f} microseconds, {size / 1e3:.0f} kB a picture")
    if arguments.docs:
        write_table("workers", ("Predicted by", "Pictures a second", "Ratio"), rows, PAGE_HERE)


if __name__ == "__main__":
    main()
