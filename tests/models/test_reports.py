"""Reports as HTML: what they show, that they load nothing, and the pictures inside of them."""

from __future__ import annotations

import io
import json
import math
import re
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.layers.builder import Builder
from mlferry.models import charts, compare_html, pixels
from mlferry.models.compare import compare_models, differences
from mlferry.spec import features
from mlferry.spec.io import save_spec
from tests.models.test_inspect import read

LABELS = [*"abcd"]


def letters(*order: int) -> mlferry.MLModel:
    """A classifier of pictures of 8 x 8 pixels: which of four squares is the brightest."""
    builder = Builder()
    builder.input("image", (1, 1, 8, 8), features.image(8, 8, "GRAYSCALE"))
    builder.layer("pooling", "squares", ["image"], ["pool"], type="AVERAGE", kernelSize=[4, 4],
                  stride=[4, 4], valid={})  # fmt: skip
    builder.layer("reshapeStatic", "flat", ["pool"], ["flat"], targetShape=[1, 4])
    builder.layer("innerProduct", "ip", ["flat"], ["scores"], inputChannels=4, outputChannels=4,
                  weights=np.eye(4, dtype=np.float32)[[*order]])  # fmt: skip
    builder.layer("softmaxND", "soft", ["scores"], ["p"], axis=-1)
    builder.output("p")
    return mlferry.MLModel(builder.model(builder.classifier(LABELS, "p")))


def picture(best: int) -> np.ndarray:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[4 * (best // 2) :, 4 * (best % 2) :][:4, :4] = 9
    return pixels


FIRST, SECOND = letters(0, 1, 2, 3), letters(1, 0, 2, 3)  # a and b are the other way round
SAMPLES = [{"image": picture(best)} for best in (0, 0, 1, 2, 3, 3)]


def test_the_page_of_a_comparison() -> None:
    report = compare_models(FIRST, SECOND, SAMPLES, depth=True)
    text = report.html("one & two")
    page = read(text)
    assert not page.open
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    shown = " ".join(page.text)
    for told in ("50.00%", "3 of 6", "Agree least", "Agreement by class", "0 of 2", "0 of 1",
                 "2 of 2", "Difference over the depth"):  # fmt: skip
        assert told in shown, told
    assert re.search(r"a \(0\.\d+\)</div><div class=\"differs\">b \(0\.\d+\)", text)
    card = text[text.index('class="card"') :]
    data = b64decode(re.findall(r"base64,([^\"]*)", card)[0])
    worst = int(re.findall(r"<b>sample (\d)</b>", card)[0])
    opened = pytest.importorskip("PIL.Image").open(io.BytesIO(data))
    assert np.array_equal(np.asarray(opened), SAMPLES[worst]["image"])
    facts = json.loads(text.split('id="facts">')[1].split("</script>")[0])
    assert facts["depth"] == [vars(each) for each in report.depth]
    assert "pictures" not in facts
    assert facts["sizes"] == [FIRST.stored_size, SECOND.stored_size]


def test_the_difference_over_the_depth_is_that_of_the_values() -> None:
    matches = {each.layer: each for each in differences(FIRST, SECOND, SAMPLES[0])}
    assert [*matches] == ["squares", "flat", "ip", "soft"]
    assert matches["squares"].relative == matches["flat"].relative == 0
    assert matches["ip"].relative == pytest.approx(math.sqrt(2 * 9**2) / 9)
    chances = np.exp([9, 0, 0, 0]) / np.exp([9, 0, 0, 0]).sum()
    off = chances - chances[[1, 0, 2, 3]]
    expected = np.linalg.norm(off) / np.linalg.norm(chances)
    assert matches["soft"].relative == pytest.approx(expected, rel=1e-5)


def test_the_depth_is_left_out_where_there_is_none() -> None:
    report = compare_models(FIRST, lambda sample: {"p": np.eye(4)[0]}, SAMPLES, depth=True)
    assert report.depth == []
    assert report.sizes is None
    assert "over the depth" not in report.html()


@pytest.mark.parametrize(("other", "word"), [(FIRST, "agrees"), (SECOND, "differs")])
def test_one_picture_agrees_or_differs(other: mlferry.MLModel, word: str) -> None:
    report = compare_models(FIRST, other, SAMPLES[:1])
    text = str(report)
    assert re.search(rf"Top 1: +{word}\n", text)
    assert re.search(rf"Answers: +a \(0\.\d+\) and {'a' if word == 'agrees' else 'b'} \(", text)
    assert "%" not in text
    assert "expected" not in text
    shown = " ".join(read(report._repr_html_()).text)
    assert word in shown
    assert "Agree least" not in shown


def test_several_models_in_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    paths = [
        save_spec(model.get_spec(), tmp_path / f"{name}.mlmodel")
        for name, model in (("one", FIRST), ("two", SECOND), ("three", FIRST))
    ]
    (tmp_path / "photos").mkdir()
    for index, sample in enumerate(SAMPLES):
        image.fromarray(sample["image"]).save(tmp_path / "photos" / f"{index}.png")
    page = tmp_path / "page.html"
    command = ["compare", *map(str, paths), str(tmp_path / "photos"), "--html", str(page)]
    assert main(command) == 0
    assert f"{paths[1]}: Compared 6 samples" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    shown = read(text)
    assert not shown.open
    assert f"{paths[2]}: " in text
    assert text.count("<details>") == 2
    assert main([*command, "--json"]) == 0
    actual = json.loads(capsys.readouterr().out)
    assert [each["outputs"]["p"]["numbers"]["top1"] for each in actual.values()] == [0.5, 1]
    assert main(["compare", *map(str, paths[:2]), str(tmp_path / "photos"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 6


def test_labels_of_other_people_are_no_html() -> None:
    spec = FIRST.get_spec()
    spec.neuralNetworkClassifier.stringClassLabels.vector[0] = "<script>x</script>"
    evil = mlferry.MLModel(spec)
    text = compare_models(evil, evil, SAMPLES).html("<i>")
    assert "<script>x" not in text
    assert "&lt;script&gt;x" in text
    assert "<i>" not in text


# ---- pictures -----------------------------------------------------------------------------------

PREVIEWS: dict[str, tuple[Any, tuple[int, ...] | None]] = {
    "grey": (np.zeros((8, 9), np.uint8), (8, 9)),
    "colour": (np.zeros((8, 9, 3), np.uint8), (8, 9, 3)),
    "channels first": (np.zeros((1, 3, 8, 9), np.float32), (8, 9, 3)),
    "channels last": (np.zeros((1, 8, 9, 1)), (8, 9)),
    "large": (np.zeros((1120, 560)), (112, 56)),
    "very wide": (np.zeros((10, 5000), np.uint8), (1, 112)),
    "a vector": (np.zeros((1, 100)), None),
    "features": (np.zeros((1, 64, 8, 9)), None),
    "small": (np.zeros((4, 4)), None),
    "not finite": (np.full((8, 8), np.nan), None),
    "text": ("cat", None),
    "a dict": ({"a": 1}, None),
}


@pytest.mark.parametrize("name", PREVIEWS)
def test_previews(name: str) -> None:
    value, shape = PREVIEWS[name]
    actual = pixels.preview(value)
    assert (None if actual is None else actual.shape) == shape


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1), (112, 112, 3)])
def test_png_is_read_by_another_library(shape: tuple[int, ...]) -> None:
    image = pytest.importorskip("PIL.Image")
    result = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(np.asarray(image.open(io.BytesIO(pixels.png(result)))), result)


def test_numbers_are_spread_from_black_to_white() -> None:
    actual = pixels.preview(np.linspace(-2, 2, 64).reshape(8, 8))
    assert actual is not None
    assert (actual.min(), actual.max()) == (0, 255)


# ---- charts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values", [[0.0], [1.0, 1.0], [0.0, 9.7], [-3.0, 5.5], [1e-9, 2e-9], [3, 1e6]]
)
def test_axes_hold_their_values(values: list[float]) -> None:
    axis = charts.linear("x", values)
    assert axis.low <= min(values) <= max(values) <= axis.high
    assert 2 <= len(axis.ticks) <= 8
    assert all(0 <= axis.part(each) <= 1 for each in values)
    assert axis.part(axis.high) == 1


def test_labels_do_not_lie_upon_each_other() -> None:
    marks = [charts.Mark(1 + index / 100, 1.0, "", f"model {index}.mlmodel") for index in range(5)]
    x, y = charts.linear("x", [0, 10]), charts.percent("y", [1.0])
    text = charts.chart(marks, x, y)
    places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)">model', text)
    assert len({row for _, row in places}) == 5


def test_a_single_comparison_has_no_overview() -> None:
    report = compare_models(FIRST, SECOND, SAMPLES)
    assert "<details>" not in compare_html.page({"x": report}, "x")


# ---- other reports ------------------------------------------------------------------------------


def test_searches_shapes_and_checks_show_themselves_in_notebooks() -> None:
    rng = np.random.default_rng(0)
    builder = Builder()
    builder.input("x", (1, 8))
    builder.layer("innerProduct", "ip", ["x"], ["y"], inputChannels=8, outputChannels=4,
                  weights=rng.normal(size=(4, 8)).astype(np.float32))  # fmt: skip
    builder.output("y")
    model = mlferry.MLModel(builder.model())
    data = [{"x": rng.normal(size=(1, 8))} for _ in range(6)]
    search = mlferry.search_quantization(model, data, "snr", 20.0, bits=(8, 2), calibrate=False)
    text = search._repr_html_()
    page = read(text)
    assert not page.open
    for trial in search.trials:
        assert f"{trial.score:.2f} dB" in text
    assert "missed" in page.text
    shapes = mlferry.shapes(model, data[0])._repr_html_()
    assert "<th>y</th><td>1 x 4</td>" in shapes or "<th>y</th><td>(1, 4)</td>" in shapes
    program = mlferry.to_program(model)
    report = mlferry.check_precision(program, data)
    assert not read(report._repr_html_()).open
    assert "keep in float32" in report.html().lower()
