"""Draw the pictures of README and guides into docs/pictures/, with Chromium.

python scripts/draw_pictures.py
"""

from __future__ import annotations

import io
import runpy
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

import mlferry
from mlferry import examples
from mlferry.models.compare_html import page as compare_page
from mlferry.models.inspect_html import page as inspect_page

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
WIDTH = 1100


def convert_sampler(node: Any) -> mlferry.CustomLayerParams:
    """The entry of the spatial transformer's sampler."""
    return mlferry.CustomLayerParams(
        "GridSampler",
        "samples the image bilinearly at a grid moved by theta",
        {"output_height": node.output_height, "output_width": node.output_width},
    )


def transformer(**how: Any) -> mlferry.MLModel:
    """The digit reader of Keras, its custom layer with a class."""
    runpy.run_path(str(examples.path("grid_sampler.py")))
    return mlferry.convert(
        examples.path("digits_stn.h5"),
        custom_conversion_functions={"GridSampler": convert_sampler},
        **how,
    )


def cut_out() -> None:
    """What the transformer sees, and below it what it cut out, for seven digits."""
    model = transformer()
    test = np.load(examples.path("digits_stn.npz"))
    columns = []
    for image in test["x"][[0, 5, 12, 33, 41, 57, 60]]:
        sample = {"image": image[None] / 255}
        cut = model.intermediate(sample, ["grid_sampler"])["grid_sampler"][0, :, :, 0]
        small = np.pad(np.kron(cut, np.ones((3, 3))), ((8, 0), (30, 30)), constant_values=1)
        large = np.kron(image[:, :, 0] / 255, np.ones((3, 3)))
        columns.append(np.pad(np.vstack([large, small]), ((0, 0), (0, 8)), constant_values=1))
    pixels = (np.hstack(columns)[:, :-8] * 255).clip(0, 255).astype(np.uint8)
    save(Image.fromarray(pixels), "cut_out.png")


def save(picture: Image.Image, name: str) -> None:
    """As a PNG file with few colours."""
    PICTURES.mkdir(exist_ok=True)
    few = picture.convert("RGB").quantize(96, dither=Image.Dither.NONE)
    few.save(PICTURES / name, optimize=True)


def shot(page: Page, name: str, clip: Sequence[int] | None = None) -> None:
    """Save what the page shows, or a part: x, y, width, height."""
    if clip is None:
        data = page.screenshot()
    else:
        left, top, width, height = clip
        data = page.screenshot(clip={"x": left, "y": top, "width": width, "height": height})
    save(Image.open(io.BytesIO(data)), name)


def main() -> None:
    """Draw all of them."""
    cut_out()
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 640})

        def show(text: str) -> None:
            place = Path(folder) / "page.html"
            place.write_text(text, encoding="utf-8")
            page.goto("about:blank")
            page.goto(place.as_uri())

        classes = [str(digit) for digit in range(10)]
        model = transformer(
            inputs=[mlferry.ImageType("image", color_layout="GRAYSCALE", scale=1 / 255)],
            classifier_config=mlferry.ClassifierConfig(classes),
        )
        graph = Path(folder) / "graph.html"
        mlferry.visualize_spec(model, path=graph, open_browser=False, title="digits_stn.mlmodel")
        page.goto(f"{graph.as_uri()}#grid_sampler")
        shot(page, "graph.png")
        test = np.load(examples.path("digits_stn.npz"))
        samples = [{"image": image[:, :, 0]} for image in test["x"]]
        reports = {
            f"{bits} bits": mlferry.compare_models(
                model, mlferry.quantize_weights(model, bits), samples, depth=True
            )
            for bits in (8, 4, 3, 2)
        }
        page.set_viewport_size({"width": WIDTH, "height": 1180})
        show(compare_page({"digits_stn.mlmodel, 2 bits": reports["2 bits"]}, "Full and 2 bits"))
        shot(page, "report.png")
        page.set_viewport_size({"width": WIDTH, "height": 480})
        show(compare_page(reports, "digits_stn.mlmodel with fewer bits"))
        shot(page, "sizes.png")
        page.set_viewport_size({"width": WIDTH, "height": 900})
        show(inspect_page(model.describe(), "digits_stn.mlmodel"))
        shot(page, "inspect.png")
        browser.close()


if __name__ == "__main__":
    main()
