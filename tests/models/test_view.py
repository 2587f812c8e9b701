"""The graph of a model: its boxes, its layout, and its page in a real browser."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import MissingDependencyError, ModelFileError, SpecError
from mlferry.layers.builder import Builder
from mlferry.models.view import open_netron, parse_shape
from mlferry.models.view.boxes import BoxGraph
from mlferry.models.view.graph import graph_of
from mlferry.models.view.layout import lay_out
from mlferry.models.view.page import page
from mlferry.spec import features
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

pytest.importorskip("igraph")


def network(name: str = "Odd") -> model_pb2.Model:
    """Two ways that meet again, a custom layer, and a branch."""
    builder = Builder()
    builder.input("photo", (1, 3, 8, 8), features.image(8, 8, "RGB"))
    builder.layer(
        "convolution", "conv <1>", ["photo"], ["a"], outputChannels=4, kernelChannels=3,
        kernelSize=[3, 3], same={}, weights=np.ones((4, 3, 3, 3), np.float32),
    )  # fmt: skip
    builder.layer("activation", "relu", ["a"], ["b"], ReLU={})
    builder.layer("activation", "elu", ["b"], ["c"], ELU={"alpha": 0.5})
    builder.layer("addBroadcastable", "sum", ["a", "c"], ["d"])
    builder.layer(
        "custom", "special", ["d"], ["e"], output_shapes=[(1, 4, 8, 8)], className=name,
        description="does something odd", parameters={"times": {"intValue": 3}},
    )  # fmt: skip
    builder.layer("reduceMax", "largest", ["d"], ["m"], reduceAll=True)
    body = nn.NeuralNetwork(arrayInputShapeMapping=nn.EXACT_ARRAY_MAPPING)
    inner = body.layers.add(name="inside", input=["e"], output=["f"])
    inner.activation.tanh.SetInParent()
    other = nn.NeuralNetwork(arrayInputShapeMapping=nn.EXACT_ARRAY_MAPPING)
    copied = other.layers.add(name="outside", input=["e"], output=["f"])
    copied.copy.SetInParent()
    branch = builder.layer("branch", "choice", ["m"], [], ifBranch=body, elseBranch=other)
    assert branch.HasField("branch")
    builder.shapes["f"] = (1, 4, 8, 8)
    builder.output("f")
    return builder.model()


def drawn(spec: model_pb2.Model, shapes: Any = None) -> BoxGraph:
    return graph_of(spec, {}, shapes or {})


def edges(graph: BoxGraph) -> set[tuple[str, str, str, str]]:
    return {
        (graph.boxes[e.start].name, graph.boxes[e.end].name, e.blob, e.label) for e in graph.edges
    }


SHAPE = "1 × 4 × 8 × 8"  # noqa: RUF001 - as the page shows it


def test_boxes_and_edges_with_shapes() -> None:
    graph = drawn(network())
    assert [box.name for box in graph.boxes] == [
        "photo", "conv <1>", "relu", "elu", "sum", "special", "largest", "choice", "f",
    ]  # fmt: skip
    assert edges(graph) == {
        ("photo", "conv <1>", "photo", "1 × 3 × 8 × 8"),  # noqa: RUF001
        ("conv <1>", "relu", "a", SHAPE),
        ("conv <1>", "sum", "a", SHAPE),
        ("relu", "elu", "b", SHAPE),
        ("elu", "sum", "c", SHAPE),
        ("sum", "special", "d", SHAPE),
        ("sum", "largest", "d", SHAPE),
        ("special", "choice", "e", "?"),
        ("largest", "choice", "m", "1"),
        ("choice", "f", "f", "?"),
    }
    rows = dict(graph.boxes[1].rows)
    assert rows["weights"] == "108 values, float32"
    assert rows["kernelSize"] == "3, 3"
    assert rows["stride"] == "1, 1 (default)"
    assert rows["same"] == "set"
    assert dict(graph.boxes[3].rows)["ELU.alpha"] == "0.5"
    special = graph.boxes[5]
    assert (special.role, special.kind) == ("custom", "Odd")
    assert dict(special.rows)["description"] == "does something odd"
    assert dict(special.rows)["parameter times"] == "3"


def test_branches_open_up() -> None:
    choice = drawn(network()).boxes[7]
    assert [title for title, _ in choice.inside] == ["if true", "else"]
    inside = choice.inside[0][1]
    assert [(box.name, box.role) for box in inside.boxes] == [("e", "input"), ("inside", "layer")]
    assert edges(inside) == {("e", "inside", "e", "?")}


def test_classes_of_custom_layers_tell_shapes() -> None:
    class Odd(mlferry.CustomLayer):
        pass

    graph = graph_of(network(), {"Odd": Odd}, {})
    assert ("choice", "f", "f", SHAPE) in edges(graph)


def test_other_sizes_and_layers_that_do_not_fit() -> None:
    graph = drawn(network(), {"photo": (16, 32)})
    assert ("conv <1>", "relu", "a", "1 × 4 × 16 × 32") in edges(graph)  # noqa: RUF001
    with pytest.raises(SpecError, match="no input 'picture'"):
        drawn(network(), {"picture": (1, 2)})
    builder = Builder()
    builder.input("x", (1, 6))
    builder.layer("reshapeStatic", "fixed", ["x"], ["y"], targetShape=[2, 3])
    builder.output("y")
    box = drawn(builder.model(), {"x": (1, 7)}).boxes[1]
    assert "does not fit" in dict(box.rows)


def test_classifiers_pipelines_and_other_models() -> None:
    builder = Builder()
    builder.input("x", (1, 3))
    builder.layer("softmaxND", "soft", ["x"], ["p"], axis=-1)
    builder.output("p")
    spec = builder.model(builder.classifier([*"abc"], "p"))
    assert ("soft", "classLabel", "p", "1 × 3") in edges(drawn(spec))  # noqa: RUF001
    whole = model_pb2.Model(specificationVersion=4)
    whole.description.CopyFrom(spec.description)
    whole.pipeline.models.append(spec)
    whole.pipeline.names.append("reader")
    graph = drawn(whole)
    assert [box.name for box in graph.boxes] == ["x", "reader", "p", "classLabel"]
    ((_, inner),) = graph.boxes[1].inside
    assert "soft" in [box.name for box in inner.boxes]
    made = mlferry.make_custom_model("Summer", {"x": features.multi_array((3,))},
                                     {"y": features.multi_array((1,))}, {"scale": 2.0})  # fmt: skip
    box = drawn(made.get_spec()).boxes[1]
    assert (box.role, dict(box.rows)["class"]) == ("custom", "Summer")


def deep(count: int) -> model_pb2.Model:
    """A long chain with a way around every third layer, and ways over hundreds of layers."""
    builder = Builder()
    builder.input("x0", (1, 8))
    for index in range(count):
        far = f"x{index - 300}" if index >= 300 and index % 100 == 0 else f"x{max(0, index - 3)}"
        if index % 4 == 3:
            builder.layer("addBroadcastable", f"add{index}", [f"x{index}", far], [f"x{index + 1}"])
        else:
            builder.layer("activation", f"act{index}", [f"x{index}"], [f"x{index + 1}"], ReLU={})
    builder.output(f"x{count}")
    return builder.model()


def test_layout_goes_down_and_nothing_lies_upon_another() -> None:
    graph = drawn(network())
    layout = lay_out(graph)
    for edge, route in zip(graph.edges, layout.routes, strict=True):
        heights = [y for _, y in route]
        assert heights == [heights[0] + step for step in range(len(route))]
        assert (route[0], route[-1]) == (layout.boxes[edge.start], layout.boxes[edge.end])
    places = layout.boxes + [point for route in layout.routes for point in route[1:-1]]
    for index, (x, y) in enumerate(places):
        for u, v in places[index + 1 :]:
            assert y != v or abs(x - u) >= 0.999


def test_two_thousand_layers_in_seconds() -> None:
    spec = deep(2000)
    start = time.perf_counter()
    text = page(drawn(spec), "deep")
    assert time.perf_counter() - start < 8
    assert text.count('class="box layer"') == 2000


def test_page_loads_nothing_and_escapes() -> None:
    text = page(drawn(network("</script><b>")), "<i>&")
    assert "<i>&" not in text
    assert "</script><b>" not in text
    assert not re.search(r"(src|href)\s*=|url\(|import\s|https?://", text)


def test_missing_packages_say_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "igraph", None)
    monkeypatch.setitem(__import__("sys").modules, "netron", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mlferry\[view\]'"):
        mlferry.visualize_spec(network(), open_browser=False)
    with pytest.raises(ModelFileError, match="no file"):
        open_netron(tmp_path / "none.mlmodel")
    (tmp_path / "some.mlmodel").touch()
    with pytest.raises(MissingDependencyError, match=r"pip install 'mlferry\[netron\]'"):
        open_netron(tmp_path / "some.mlmodel")


def test_opens_in_the_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    path = mlferry.visualize_spec(network())
    assert opened == [path.as_uri()]
    assert mlferry.MLModel(network()).visualize_spec().exists()
    assert len(opened) == 2


@pytest.mark.parametrize("text", ["", "1,a", "1,0", "-1"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match="positive extents"):
        parse_shape(text)
    assert parse_shape("1,3,8") == (1, 3, 8)


# ---- in a browser -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")
    with driver.sync_playwright() as started:
        made = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the page of a model, without any network; no script may have failed."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, offline=True)
    failures: list[str] = []

    def open_model(spec: model_pb2.Model) -> Any:
        path = mlferry.visualize_spec(spec, path=tmp_path / "model.html", open_browser=False)
        view = context.new_page()
        view.set_default_timeout(10_000)
        view.on("pageerror", lambda error: failures.append(str(error)))
        view.goto(path.as_uri())
        return view

    yield open_model
    context.close()
    assert not failures


def box(view: Any, name: str) -> Any:
    return view.locator(f'svg.shown .box[aria-label$="{name}"]')


def test_click_on_the_custom_layer_shows_its_parameters(opened: Any) -> None:
    view = opened(network())
    assert view.locator("#panel").is_hidden()
    box(view, "special").click()
    panel = view.locator("#panel")
    for text in ("special", "Odd", "does something odd", "times", "3", SHAPE):
        assert text in panel.inner_text()
    assert view.locator(".edge.lit").count() == 2
    colour = "element => getComputedStyle(element.querySelector('rect')).fill"
    assert box(view, "special").evaluate(colour) != box(view, "relu").evaluate(colour)
    view.keyboard.press("Escape")
    assert panel.is_hidden()


def test_shapes_are_on_the_edges(opened: Any) -> None:
    view = opened(network())
    shown = view.locator("svg.shown .label").all_inner_texts()
    assert SHAPE in view.locator("svg.shown").text_content()
    assert len(shown) == 8  # one a blob, below the box that makes it


def test_branch_opens_and_closes(opened: Any) -> None:
    view = opened(network())
    box(view, "choice").click()
    view.get_by_role("button", name="Open if true").click()
    assert box(view, "inside").is_visible()
    assert view.locator("#path").inner_text().endswith("choice: if true")
    view.keyboard.press("u")
    assert box(view, "special").is_visible()
    box(view, "choice").dblclick()
    assert box(view, "inside").is_visible()
    view.locator("#path button").click()
    assert box(view, "special").is_visible()


def test_search_and_keys(opened: Any) -> None:
    view = opened(deep(300))
    view.keyboard.press("/")
    view.keyboard.type("act250")
    assert view.locator("#count").inner_text() == "1 found"
    view.keyboard.press("Enter")
    assert view.locator("#panel h2").inner_text() == "act250"
    place = box(view, "act250").bounding_box()
    assert 0 < place["y"] < 800
    view.keyboard.press("Escape")
    before = box(view, "act250").bounding_box()["width"]
    view.keyboard.press("+")
    assert box(view, "act250").bounding_box()["width"] > before
    view.keyboard.press("0")
    places = [box(view, name).bounding_box() for name in ("x0", "x300")]
    assert all(0 <= place["y"] <= 800 for place in places)
    view.locator("svg.shown .box").first.focus()
    view.keyboard.press("Enter")
    assert view.locator("#panel h2").inner_text() == "x0"


def test_custom_layers_are_one_click_away(opened: Any) -> None:
    view = opened(network())
    view.locator("#customs").click()
    assert view.locator("#panel h2").inner_text() == "special"


def test_drag_moves_and_wheel_scrolls(opened: Any) -> None:
    view = opened(deep(50))
    before = box(view, "act4").bounding_box()
    view.mouse.move(600, 400)
    view.mouse.down()
    view.mouse.move(650, 440, steps=4)
    view.mouse.up()
    after = box(view, "act4").bounding_box()
    assert (round(after["x"] - before["x"]), round(after["y"] - before["y"])) == (50, 40)
    view.mouse.wheel(0, 30)
    view.wait_for_function("true")
    assert round(box(view, "act4").bounding_box()["y"] - after["y"]) == -30


def test_large_model_opens_in_seconds(opened: Any) -> None:
    start = time.perf_counter()
    view = opened(deep(2000))
    assert box(view, "x0").is_visible()
    assert time.perf_counter() - start < 20
