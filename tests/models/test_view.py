"""The graph of a model: its boxes, its layout, and its page in a real browser."""

from __future__ import annotations

# ruff: noqa: RUF001 - the page writes sizes with multiplication signs, and so do its tests
import html
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import mlferry
from mlferry.errors import MissingDependencyError, ModelFileError, SpecError
from mlferry.layers.builder import Builder
from mlferry.models.compression import found_weights
from mlferry.models.view import open_netron, parse_shape
from mlferry.models.view.boxes import BoxGraph
from mlferry.models.view.graph import StoredFacts, graph_of
from mlferry.models.view.groups import folded
from mlferry.models.view.layout import lay_out
from mlferry.models.view.page import page
from mlferry.models.view.stored import weight_details
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


SHAPE = "1 × 4 × 8 × 8"


def test_boxes_and_edges_with_shapes() -> None:
    graph = drawn(network())
    assert [box.name for box in graph.boxes] == [
        "photo", "conv <1>", "relu", "elu", "sum", "special", "largest", "choice", "f",
    ]  # fmt: skip
    assert edges(graph) == {
        ("photo", "conv <1>", "photo", "1 × 3 × 8 × 8"),
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
    assert rows["padding"] == "same: top 1, bottom 1, left 1, right 1 (BOTTOM_RIGHT_HEAVY)"
    assert not [name for name in rows if name.startswith("same")]
    assert dict(graph.boxes[3].rows)["ELU.alpha"] == "0.5"
    special = graph.boxes[5]
    assert (special.role, special.kind) == ("custom", "Odd")
    assert dict(special.rows)["description"] == "does something odd"
    assert dict(special.rows)["parameter times"] == "3"


@pytest.mark.parametrize(
    ("kind", "params", "weights", "shown", "family"),
    [
        ("convolution", {"outputChannels": 4, "kernelChannels": 3, "kernelSize": [3, 3],
                         "stride": [2, 2], "valid": {}}, (4, 3, 3, 3), "3×3 / 2", "weights"),
        ("convolution", {"outputChannels": 3, "kernelChannels": 1, "kernelSize": [3, 1],
                         "nGroups": 3, "dilationFactor": [2, 1], "valid": {}}, (3, 1, 3, 1),
         "3×1 dilated 2×1 3 groups", "weights"),
        ("pooling", {"type": "MAX", "kernelSize": [3, 3], "stride": [2, 1], "valid": {}}, None,
         "MAX 3×3 / 2×1", "pooling"),
        ("pooling", {"type": "AVERAGE", "globalPooling": True, "valid": {}}, None,
         "AVERAGE, global", "pooling"),
        ("activation", {"ReLU": {}}, None, "ReLU", "activation"),
        ("activation", {"leakyReLU": {"alpha": 0.1}}, None, "leaky ReLU 0.1", "activation"),
        ("softmaxND", {"axis": -1}, None, "axis -1", "activation"),
        ("transpose", {"axes": [0, 2, 3, 1]}, None, "axes 0, 2, 3, 1", "shape"),
        ("reduceMax", {"axes": [1], "keepDims": True}, None, "axes 1, keepDims", "math"),
        ("batchnorm", {"channels": 3, "epsilon": 0.5, "gamma": np.ones(3, np.float32),
                       "beta": np.ones(3, np.float32), "mean": np.ones(3, np.float32),
                       "variance": np.ones(3, np.float32)}, None, "epsilon 0.5", "normal"),
    ],
)  # fmt: skip
def test_boxes_show_what_matters(
    kind: str, params: dict[str, Any], weights: tuple[int, ...] | None, shown: str, family: str
) -> None:  # fmt: skip
    builder = Builder()
    builder.input("x", (1, 3, 8, 8))
    if weights is not None:
        params = {**params, "weights": np.ones(weights, np.float32)}
    builder.layer(kind, "layer", ["x"], ["y"], **params)
    builder.output("y")
    spec = builder.model()
    known = StoredFacts({}, weight_details(found_weights(spec, None)))
    actual = graph_of(spec, {}, {}, known).boxes[1]
    assert actual.brief[0] == shown
    assert actual.family == family
    if weights is not None:
        assert actual.brief[1] == f"{'×'.join(map(str, weights))} float32"


PADDED = {
    "valid": ({"valid": {"paddingAmounts": {"borderAmounts": [
        {"startEdgeSize": 1, "endEdgeSize": 2}, {"startEdgeSize": 3, "endEdgeSize": 4}]}}},
        "top 1, bottom 2, left 3, right 4"),
    "none": ({"valid": {}}, "none"),
    "same, odd": ({"same": {}, "stride": [2, 2]},
                  "same: top 0, bottom 1, left 0, right 1 (BOTTOM_RIGHT_HEAVY)"),
    "same, top": ({"same": {"asymmetryMode": "TOP_LEFT_HEAVY"}, "stride": [2, 2]},
                  "same: top 1, bottom 0, left 1, right 0 (TOP_LEFT_HEAVY)"),
}  # fmt: skip


@pytest.mark.parametrize("name", PADDED)
def test_padding_is_spelled_out(name: str) -> None:
    options, shown = PADDED[name]
    builder = Builder()
    builder.input("x", (1, 1, 8, 8))
    builder.layer("pooling", "pool", ["x"], ["y"], type="MAX", kernelSize=[3, 3], **options)
    builder.output("y")
    assert dict(drawn(builder.model()).boxes[1].rows)["padding"] == shown


def test_enums_have_their_defaults() -> None:
    builder = Builder()
    builder.input("x", (1, 2))
    builder.layer("gelu", "gelu", ["x"], ["y"])
    builder.output("y")
    assert dict(drawn(builder.model()).boxes[1].rows)["mode"] == "EXACT (default)"


def test_weights_are_told_by_their_numbers() -> None:
    values = np.linspace(-1, 3, 40, dtype=np.float32).reshape(4, 10)
    values[0, 0] = 0
    builder = Builder()
    builder.input("x", (1, 10))
    bias = np.array([1, 2, 3, 0.5], np.float32)
    builder.layer("innerProduct", "ip", ["x"], ["y"], inputChannels=10, outputChannels=4,
                  hasBias=True, weights=values, bias=bias)  # fmt: skip
    builder.output("y")
    spec = builder.model()
    known = StoredFacts({}, weight_details(found_weights(spec, None)))
    actual = graph_of(spec, {}, {}, known).boxes[1]
    (_, matrix), (_, added) = actual.weights
    assert sum(matrix.bins) == 40
    assert matrix.bins == np.histogram(values, len(matrix.bins))[0].tolist()
    assert matrix.numbers["zeros"] == "2.5%"
    assert matrix.numbers["range"] == f"{values.min():.4g} to 3"
    assert matrix.numbers["mean"] == f"{values.mean():.4g}"
    assert dict(actual.rows)["bias"] == added.values == "1, 2, 3, 0.5"
    assert added.bins == []


def test_programs_tell_the_same() -> None:
    program = mlferry.to_program(mlferry.MLModel(deep(4)))
    graph = graph_of(program.get_spec(), {}, {})
    assert {box.kind: box.family for box in graph.boxes if box.role == "layer"} == {
        "relu": "activation", "add": "math", "cast": "math",
    }  # fmt: skip


def test_operations_show_what_matters() -> None:
    builder = Builder()
    builder.input("x", (1, 3, 8, 8))
    builder.layer("convolution", "conv", ["x"], ["y"], outputChannels=4, kernelChannels=3,
                  kernelSize=[3, 3], stride=[2, 2], valid={},
                  weights=np.ones((4, 3, 3, 3), np.float32))  # fmt: skip
    builder.layer("pooling", "pool", ["y"], ["z"], type="MAX", kernelSize=[2, 2], stride=[1, 1],
                  valid={})  # fmt: skip
    builder.layer("activation", "leaky", ["z"], ["w"], leakyReLU={"alpha": 0.25})
    builder.output("w")
    program = mlferry.to_program(mlferry.MLModel(builder.model()))
    spec = program.get_spec()
    known = StoredFacts({}, weight_details(found_weights(spec, program.program_weights)))
    matches = {box.kind: box.brief for box in graph_of(spec, {}, {}, known).boxes}
    assert matches["conv"] == ["3×3 / 2, valid", "4×3×3×3 fp16"]
    assert matches["max_pool"][0].startswith("2×2")
    assert matches["leaky_relu"] == ["alpha 0.25"]


def scoped() -> model_pb2.Model:
    """Two blocks with names in scopes, a way around them, and a scope that is in a circle."""
    builder = Builder()
    builder.input("x", (1, 8))
    blob = "x"
    for name in ("net/one/a", "net/one/b", "net/two/a", "net/two/b", "net/odd/a", "net/three/a",
                 "net/odd/b", "net/three/b"):  # fmt: skip
        builder.layer("activation", name, [blob], [f"{name}:out"], ReLU={})
        blob = f"{name}:out"
    builder.layer("addBroadcastable", "net/sum", ["net/one/b:out", blob], ["y"])
    builder.output("y")
    return builder.model()


def test_scopes_fold_where_they_can() -> None:
    whole = drawn(scoped())
    graph = folded(whole)
    assert graph is not None
    assert [(box.name, box.role) for box in graph.boxes if box.role == "group"] == [
        ("net/one", "group"), ("net/two", "group"),
    ]  # fmt: skip
    assert {box.name for box in graph.boxes if box.role == "layer"} == {
        "net/odd/a", "net/odd/b", "net/three/a", "net/three/b", "net/sum",
    }  # fmt: skip
    names = {(a, b) for a, b, _, _ in edges(graph)}
    assert {("x", "net/one"), ("net/one", "net/two"), ("net/one", "net/sum")} <= names
    one = next(box for box in graph.boxes if box.name == "net/one")
    ((_, inner),) = one.inside
    assert [(box.name, box.role) for box in inner.boxes] == [
        ("x", "input"), ("net/one/a", "layer"), ("net/one/b", "layer"),
    ]  # fmt: skip
    assert one.family == "activation"
    assert folded(drawn(network())) is None


def test_notebooks_show_the_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr("mlferry.models.view.in_notebook", lambda: True)
    path = mlferry.visualize_spec(network(), path=tmp_path / "page.html")
    assert opened == []
    shown = path._repr_html_()
    text = html.unescape(re.findall(r'srcdoc="([^"]*)"', shown)[0])
    assert text == path.read_text(encoding="utf-8")
    assert path.with_suffix(".txt") == tmp_path / "page.txt"


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
    assert ("conv <1>", "relu", "a", "1 × 4 × 16 × 32") in edges(graph)
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
    assert ("soft", "classLabel", "p", "1 × 3") in edges(drawn(spec))
    whole = model_pb2.Model(specificationVersion=4)
    whole.description.CopyFrom(spec.description)
    whole.pipeline.models.append(spec)
    whole.pipeline.names.append("reader")
    graph = drawn(whole)
    assert [box.name for box in graph.boxes] == ["x", "reader", "p", "classLabel"]
    ((_, inner),) = graph.boxes[1].inside
    assert "soft" in [box.name for box in inner.boxes]
    result = mlferry.make_custom_model("Summer", {"x": features.multi_array((3,))},
                                     {"y": features.multi_array((1,))}, {"scale": 2.0})  # fmt: skip
    box = drawn(result.get_spec()).boxes[1]
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
    assert text.count('class="box layer ') == 2000


def test_page_loads_nothing_and_escapes() -> None:
    text = page(drawn(network("</script><b>")), "<i>&")
    assert "<i>&" not in text
    assert "</script><b>" not in text
    assert not re.search(r"(src|href)=|url\((?!#arrow)|import\s|https?://(?!www.w3.org/2000)", text)


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
    actual = shutil.which("chromium") or shutil.which("chromium-browser")
    if actual is None:
        pytest.skip("no Chromium; on Debian: apt-get install chromium")
    with driver.sync_playwright() as started:
        result = started.chromium.launch(executable_path=actual, args=["--no-sandbox"])
        yield result
        result.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the page of a model, without any network; no script may have failed."""
    context = browser.new_context(viewport={"width": 1200, "height": 1000}, offline=True)
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
    assert all(0 <= place["y"] <= 1000 for place in places)
    view.locator("svg.shown .box").first.focus()
    view.keyboard.press("Enter")
    assert view.locator("#panel h2").inner_text() == "x0"


def test_groups_open_alone(opened: Any) -> None:
    view = opened(scoped())
    view.locator("#groups").click()
    assert box(view, "net/one").is_visible()
    assert view.locator("svg.shown .box").count() == 9
    box(view, "net/one").click()
    view.get_by_role("button", name="Open net/one").click()
    assert box(view, "net/one/b").is_visible()
    view.keyboard.press("u")
    view.keyboard.press("g")
    assert view.locator("svg.shown .box").count() == 11
    assert view.locator("#groups").get_attribute("aria-pressed") == "false"


def overlaps(view: Any) -> list[str]:
    """The boxes and frames beside each other that share a place on the screen."""
    return list(
        view.evaluate("""() => [...document.querySelectorAll('svg.shown, svg.shown svg')]
      .flatMap(svg => {
        const all = [...svg.querySelectorAll(':scope > .box:not(.open), :scope > .unfolded')];
        const places = all.map(one => one.querySelector('rect').getBoundingClientRect());
        return all.flatMap((one, i) => all.slice(i + 1).filter((other, j) => {
          const [a, b] = [places[i], places[i + 1 + j]];
          return a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
        }).map(other => one.textContent + ' / ' + other.textContent));
      })""")
    )


def loose_ends(view: Any) -> int:
    """Edges that do not begin below their first box and end above their second, of one drawing."""
    return int(
        view.evaluate("""() => [...document.querySelectorAll('svg.shown, svg.shown svg')]
      .flatMap(svg => [...svg.querySelectorAll(':scope > .edge')].filter(edge => {
        const place = index => svg.querySelector(`:scope > .unfolded[data-box="${index}"] > rect,` +
          ` :scope > .box:not(.open)[data-box="${index}"] > rect`).getBoundingClientRect();
        const [from, to] = [place(edge.dataset.from), place(edge.dataset.to)];
        const path = edge.querySelector('path');
        const ends = [path.getPointAtLength(0), path.getPointAtLength(path.getTotalLength())]
          .map(point => point.matrixTransform(path.getScreenCTM()));
        const near = (a, b) => Math.abs(a - b) < 2;
        return !(near(ends[0].x, (from.left + from.right) / 2) && near(ends[0].y, from.bottom)
          && near(ends[1].x, (to.left + to.right) / 2) && near(ends[1].y, to.top));
      })).length""")
    )


def test_groups_unfold_in_their_place(opened: Any) -> None:
    view = opened(scoped())
    view.locator("#groups").click()
    before = box(view, "net/sum").bounding_box()
    box(view, "net/one").dblclick()
    box(view, "net/two").click()
    view.get_by_role("button", name="Unfold here").click()
    assert view.locator("svg.shown .unfolded").count() == 2
    assert view.locator("#count").inner_text() == "13 boxes"
    assert box(view, "net/one/b").is_visible()
    assert box(view, "net/sum").bounding_box()["y"] > before["y"]  # it made room
    assert overlaps(view) == []
    assert loose_ends(view) == 0
    inner = view.locator('svg.shown .nested .box[aria-label$="net/one/b"]')
    inner.click()
    assert view.locator("#panel h2").inner_text() == "net/one/b"
    assert view.locator(".nested .edge.lit").count() == 1
    view.locator("#search").fill("two/a")
    assert view.locator("#count").inner_text() == "2 found"
    view.locator("#search").fill("")
    inner.click()
    view.locator("#stage").focus()
    view.keyboard.press("x")  # folds the frame around the chosen layer
    assert view.locator("svg.shown .unfolded").count() == 1
    view.locator(".fold").first.click()
    assert view.locator("svg.shown .unfolded").count() == 0
    assert view.locator("#count").inner_text() == "9 boxes"
    after = box(view, "net/sum").bounding_box()
    assert after["width"] == pytest.approx(before["width"])
    assert loose_ends(view) == 0


def test_models_of_a_pipeline_unfold(opened: Any) -> None:
    """Scopes inside of scopes, too: each makes room in the one around it."""
    spec = model_pb2.Model(specificationVersion=4)
    first, second = scoped(), scoped()
    second.description.input[0].name = second.neuralNetwork.layers[0].input[0] = "y"
    second.description.output[0].name = second.neuralNetwork.layers[-1].output[0] = "z"
    spec.pipeline.models.extend([first, second])
    spec.description.input.add().CopyFrom(first.description.input[0])
    spec.description.output.add().CopyFrom(second.description.output[0])
    view = opened(spec)
    for index in (1, 0):
        view.locator("svg.shown > .box.opens").nth(index).dblclick()
        view.keyboard.press("-")
    assert view.locator("svg.shown > .unfolded").count() == 2
    assert overlaps(view) == []
    assert loose_ends(view) == 0
    with view.expect_download() as saved:
        view.locator("#svg").click()
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    assert text.count('aria-label="activation net/one/a"') == 2


def test_a_link_opens_a_layer(opened: Any) -> None:
    view = opened(network())
    box(view, "relu").click()
    assert view.evaluate("location.hash") == "#relu"
    view.goto(view.url.partition("#")[0] + "#inside")  # in a branch
    assert view.locator("#panel h2").inner_text() == "inside"
    assert box(view, "inside").is_visible()
    view.goto(view.url.partition("#")[0] + "#none")
    assert view.locator("#panel").is_visible()


def test_the_panel_shows_histograms(opened: Any) -> None:
    view = opened(network())
    box(view, "conv <1>").click()
    assert view.locator("#panel .histogram rect").count() == 32
    assert "4×3×3×3 float32" in view.locator("#panel").inner_text()


def test_a_long_graph_is_shown_in_columns(opened: Any) -> None:
    view = opened(deep(1000))
    view.keyboard.press("0")
    map_ = view.locator("#map")
    assert map_.is_visible()
    wide = view.evaluate(
        "() => { const m = document.getElementById('map'); const p = m.getContext('2d');"
        " const d = p.getImageData(0, 0, m.width, m.height).data; let left = m.width, right = 0;"
        " for (let i = 0; i < d.length; i += 4) if (d[i + 3]) { const x = (i / 4) % m.width;"
        " left = Math.min(left, x); right = Math.max(right, x); } return right - left; }"
    )
    assert wide > 900  # of 1200: it fills the window
    map_.click(position={"x": 600, "y": 300})
    assert map_.is_hidden()
    places = [one.bounding_box() for one in view.locator("svg.shown .box").all()[300:700:5]]
    assert any(0 < place["y"] < 800 for place in places)
    view.keyboard.press("0")
    view.keyboard.press("Escape")
    assert map_.is_hidden()


def test_the_whole_graph_is_saved(opened: Any, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    view = opened(network())
    with view.expect_download() as started:
        view.locator("#svg").click()
    started.value.save_as(tmp_path / "graph.svg")
    text = (tmp_path / "graph.svg").read_text(encoding="utf-8")
    tree = ElementTree.fromstring(text)
    assert tree.tag.endswith("svg")
    assert text.count('class="box') == 9
    assert ".f-weights" in text
    with view.expect_download() as started:
        view.locator("#png").click()
    started.value.save_as(tmp_path / "graph.png")
    drawn = image.open(tmp_path / "graph.png")
    assert drawn.size == (2 * int(tree.get("width")), 2 * int(tree.get("height")))
    assert len(drawn.convert("RGB").getcolors(1 << 20)) > 20


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
    assert time.perf_counter() - start < 10  # 1 to 2 s on a machine that does nothing else
