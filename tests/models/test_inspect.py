"""What is told of a model: as text, JSON, HTML, and in a terminal."""

from __future__ import annotations

import html.parser
import io
import json
from pathlib import Path

import numpy as np
import pytest

import mlferry
from mlferry.layers.builder import Builder
from mlferry.models.inspect import Description
from mlferry.models.inspect_html import page
from mlferry.models.inspect_rich import renderables
from mlferry.spec import features
from mlferry.spec.proto import model_pb2


def classifier() -> mlferry.MLModel:
    """An image classifier with a custom layer, quantized, with metadata."""
    builder = Builder()
    builder.input("photo", (1, 3, 4, 4), features.image(4, 4, "BGR"))
    builder.layer("activation", "relu", ["photo"], ["a"], ReLU={})
    builder.layer(
        "custom", "odd <1>", ["a"], ["b"], output_shapes=[(1, 48)], className="Odd",
        description="flattens <b>oddly</b>", parameters={"times": {"intValue": 3}},
        weights=[np.ones(5, np.float16)],
    )  # fmt: skip
    weights = np.random.default_rng(0).normal(size=(7, 48)).astype(np.float32)
    builder.layer("innerProduct", "ip", ["b"], ["y"], inputChannels=48, outputChannels=7,
                  weights=weights)  # fmt: skip
    builder.output("y")
    spec = builder.model(builder.classifier([*"abcdefg"], "y"))
    model = mlferry.MLModel(spec)
    model.author, model.license, model.version = "Ada", "BSD", "1.2"
    model.short_description = "tells letters"
    model.input_description["photo"] = "of a letter"
    model.user_defined_metadata["trained on"] = "letters & digits"
    return mlferry.quantize_weights(model, 4)


def described() -> Description:
    return classifier().describe()


FACTS = [
    "neuralNetworkClassifier", "tells letters", "Ada", "BSD", "1.2", "letters & digits",
    "image BGR 4 x 4", "of a letter", "dictionary string to double", "iOS 13", "macOS 10.15",
    "Odd", "flattens <b>oddly</b>", "times", "5 float16", "linear 4", "336", "innerProduct",
    "a, b, c, d, e, f", "odd <1>",
]  # fmt: skip


class Text(html.parser.HTMLParser):
    """The text of a page, and the tags that are still open."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.addresses += [v or "" for name, v in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(text: str) -> Text:
    parser = Text()
    parser.feed(text)
    assert not parser.open
    return parser


def terminal() -> str:
    console = pytest.importorskip("rich.console").Console(
        width=200, record=True, file=io.StringIO()
    )
    for part in renderables(described()):
        console.print(part)
    return console.export_text()


@pytest.mark.parametrize(
    "text",
    [
        lambda: str(described()),
        lambda: repr(classifier()),
        terminal,
        lambda: " ".join(read(classifier()._repr_html_()).text),
        lambda: " ".join(read(page(described())).text),
    ],
    ids=["text", "repr", "terminal", "notebook", "page"],
)
@pytest.mark.parametrize("fact", FACTS)
def test_every_way_tells_every_fact(text, fact: str) -> None:
    assert fact in text()


def test_dict_is_json_and_complete() -> None:
    facts = json.loads(json.dumps(described().to_dict()))
    assert facts["kind"] == "neuralNetworkClassifier"
    assert facts["labels"] == [*"abcdefg"]
    assert facts["weights"] == {"linear 4": 336, "float16": 5}
    assert facts["layers"] == {"activation": 1, "custom": 1, "innerProduct": 1}
    (needed,) = facts["dependencies"]
    assert needed["parameters"] == {"times": 3}
    assert facts["systems"]["iOS"] == "13"
    assert facts["size"] == classifier().get_spec().ByteSize()


def test_pages_load_nothing_and_hold_the_facts() -> None:
    actual = described()
    parser = read(page(actual))
    assert not parser.addresses
    text = page(actual)
    start = text.index('id="facts">') + len('id="facts">')
    assert json.loads(text[start : text.index("</script>", start)]) == actual.to_dict()


def test_custom_models_in_pipelines_are_dependencies() -> None:
    inner = mlferry.make_custom_model(
        "Summer", {"x": features.multi_array((3,))}, {"y": features.multi_array((1,))},
        {"scale": 2.5, "table": b"\x01\x02"}, "adds up",
    ).get_spec()  # fmt: skip
    spec = model_pb2.Model(specificationVersion=3)
    spec.pipeline.models.append(inner)
    spec.description.CopyFrom(inner.description)
    actual = mlferry.MLModel(spec).describe()
    (needed,) = actual.dependencies
    assert (needed.kind, needed.class_name) == ("custom model", "Summer")
    assert [model.kind for model in actual.models] == ["customModel"]
    assert "adds up" in str(actual)
    facts = json.loads(json.dumps(actual.to_dict()))
    assert facts["dependencies"][0]["parameters"]["table"] == "0102"


def test_problems_are_told() -> None:
    spec = classifier().get_spec()
    spec.specificationVersion = 1
    assert any("version" in problem for problem in mlferry.MLModel(spec).describe().problems)


def test_real_models_show_themselves(shared_data: Path) -> None:
    paths = sorted((shared_data / "mlmodel").glob("*.mlmodel"))
    assert paths
    for path in paths:
        actual = mlferry.MLModel(path).describe()
        assert json.dumps(actual.to_dict())
        assert actual.kind in str(actual)
        read(page(actual, path.name))


def test_a_class_is_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    builder = Builder()
    builder.input("x", (1, 3))
    blob = "x"
    for index in range(6):
        builder.layer("custom", f"layer {index}", [blob], [f"y{index}"], output_shapes=[(1, 3)],
                      className="Swish", description="swish",
                      parameters={"beta": {"doubleValue": float(index == 5)}})  # fmt: skip
        blob = f"y{index}"
    builder.output(blob)
    actual = mlferry.MLModel(builder.model()).describe()
    text = str(actual)
    assert text.count("Swish") == 1
    assert "Swish (6 layers: layer 0, layer 1, layer 2, layer 3, ...)" in text
    assert text.count("description: swish") == 1
    assert "parameter beta: 1.0 (layer 5)" in text
    assert page(actual).count("<b>custom layer Swish") == 1
    assert len(actual.to_dict()["dependencies"]) == 6


def test_weights_are_told_layer_by_layer() -> None:
    actual = described()
    (odd, ip) = actual.by_layer
    assert (odd.layer, odd.kind, odd.count, odd.encoding) == ("odd <1>", "custom", 5, "float16")
    assert (ip.layer, ip.kind, ip.shape, ip.count) == ("ip", "innerProduct", [7, 48], 336)
    assert ip.size == pytest.approx(336 / 2 + 7 * 8, abs=40)  # codes, scales and biases
    text = page(actual)
    assert "7 \N{MULTIPLICATION SIGN} 48" in text
