"""Classes written for a model: Swift that parses, Python that runs."""

from __future__ import annotations

import base64
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.custom import CUSTOM_MODELS
from mlferry.errors import (
    CustomLayerError,
    MissingCustomLayerError,
    ModelFileError,
    SpecError,
)
from mlferry.layers.builder import Builder
from mlferry.models.scaffold import app_files, python_files, swift_files, swift_tests, write_files
from mlferry.models.scaffold.elementwise import FORMULAS, Formula
from mlferry.models.scaffold.needs import Need
from mlferry.models.scaffold.swift import vectors
from mlferry.spec import features
from mlferry.spec.proto import model_pb2

ROOT = Path(__file__).parents[2]
PARAMETERS = {
    "output_height": {"intValue": 3}, "far": {"longValue": 1 << 40}, "rate": {"doubleValue": 0.5},
    "mode": {"stringValue": 'a "b"\n'}, "on": {"boolValue": True}, "default": {"intValue": 1},
    'odd "key"': {"intValue": 2}, "2nd": {"intValue": 2},
}  # fmt: skip


def network(**changes: Any) -> model_pb2.Model:
    inputs: dict[str, Any] = {
        "className": "WarpGrid", "parameters": PARAMETERS,
        "description": "samples\nat a grid \\ \"\"\"here\"\"\"",
        "weights": [np.ones(4, np.float32), np.ones(3, np.float16), np.ones(2, np.uint8)],
    }  # fmt: skip
    builder = Builder()
    builder.input("x", (1, 4))
    builder.input("theta", (1, 6))
    builder.layer("custom", "one", ["x", "theta"], ["y"], output_shapes=[(1, 4)],
                  **(inputs | changes))  # fmt: skip
    builder.layer("custom", "two", ["y"], ["z"], output_shapes=[(1, 4)], className="Bent",
                  parameters={"beta": {"intValue": 1}})  # fmt: skip
    builder.layer("custom", "three", ["z"], ["a"], output_shapes=[(1, 4)], className="Bent",
                  parameters={"beta": {"doubleValue": 1.5},
                              "extra": {"boolValue": True}})  # fmt: skip
    builder.output("a")
    return builder.model()


def custom_model() -> model_pb2.Model:
    return mlferry.make_custom_model(
        "Summer", {'x"': features.multi_array((3,))}, {"y": features.multi_array((1,))},
        {"scale": 2.5, "table": b"\x01"}, "adds up",
    ).get_spec()  # fmt: skip


@pytest.fixture(scope="module")
def swift() -> Any:
    """Swift's grammar; gives the tree of a text that has no error."""
    tree_sitter = pytest.importorskip("tree_sitter")
    grammar = pytest.importorskip("tree_sitter_swift")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))

    def parse(text: str) -> Any:
        root = parser.parse(text.encode()).root_node
        assert not root.has_error, text
        return root

    return parse


def nodes(root: Any, kind: str) -> Iterator[Any]:
    if root.type == kind:
        yield root
    for child in root.children:
        yield from nodes(child, kind)


def text_of(node: Any, field: str) -> str:
    return node.child_by_field_name(field).text.decode()


@pytest.mark.parametrize("gpu", [False, True])
def test_swift_layers_have_the_protocol(swift: Any, gpu: bool) -> None:
    files = swift_files(network(), gpu=gpu)
    assert [*files] == ["WarpGrid.swift", "Bent.swift"]
    for name, text in files.items():
        root = swift(text)
        (result,) = nodes(root, "class_declaration")
        assert text_of(result, "name") == name.removesuffix(".swift")
        assert [n.text for n in nodes(result, "inheritance_specifier")] == [
            b"NSObject", b"MLCustomLayer",
        ]  # fmt: skip
        methods = {text_of(node, "name") for node in nodes(result, "function_declaration")}
        expected = {"setWeightData", "outputShapes", "evaluate", "failure"}
        assert methods == expected | ({"encode"} if gpu else set())
        assert len([*nodes(result, "init_declaration")]) == 1
        assert ("import Metal" in text) == gpu


def test_swift_reads_exactly_the_parameters(swift: Any) -> None:
    first, second = swift_files(network()).values()
    properties = [node.text.decode() for node in nodes(swift(first), "property_declaration")]
    for expected in (
        "let outputHeight: Int", "let far: Int", "let rate: Double", "let mode: String",
        "let on: Bool", "let defaultValue: Int", "let oddKey: Int", "let value2nd: Int",
    ):  # fmt: skip
        assert expected in properties
    for key in PARAMETERS:
        escaped = key.replace('"', '\\"')
        assert f'parameters["{escaped}"]' in first
    assert "weights.count == 3" in first
    for kind in ("[Float]", "[UInt16]", "Data()"):
        assert kind in first
    # a parameter that only some layers have, and one that is int here and float there
    assert "let extra: Bool?" in second
    assert "let beta: Double\n" in second


def test_swift_models_have_the_protocol(swift: Any) -> None:
    spec = model_pb2.Model(specificationVersion=3)
    spec.pipeline.models.append(custom_model())
    ((name, text),) = swift_files(spec).items()
    assert name == "Summer.swift"
    root = swift(text)
    assert b"MLCustomModel" in [n.text for n in nodes(root, "inheritance_specifier")]
    assert "prediction" in {text_of(n, "name") for n in nodes(root, "function_declaration")}
    assert "let scale: Double" in text
    assert "let table: Data" in text


@pytest.mark.parametrize("name", ["com.example.Layer", "1st layer", "naïve", "Lay-er"])
def test_names_that_are_no_names(swift: Any, name: str) -> None:
    spec = network(className=name)
    swift(next(iter(swift_files(spec).values())))
    compile(next(iter(python_files(spec).values())), "made.py", "exec")


def test_python_classes_register_and_say_what_is_missing(tmp_path: Path) -> None:
    spec = network()
    for path in write_files(python_files(spec), tmp_path):
        runpy.run_path(str(path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bent.py", "warp_grid.py"]
    model = mlferry.MLModel(spec)
    sample = {"x": np.ones((1, 4)), "theta": np.ones((1, 6))}
    with pytest.raises(CustomLayerError, match="evaluate is not written yet"):
        model.predict(sample)


def test_python_class_reads_the_parameters(tmp_path: Path) -> None:
    (path,) = write_files(
        {k: v for k, v in python_files(network()).items() if "warp" in k}, tmp_path
    )
    cls = runpy.run_path(str(path))["WarpGrid"]
    values = {key: next(iter(value.values())) for key, value in PARAMETERS.items()}
    result = cls(values)
    assert (result.output_height, result.rate, result.on, result.mode) == (3, 0.5, True, 'a "b"\n')
    result.set_weights([1, 2, 3])
    assert (result.weight0, result.weight2) == (1, 3)
    assert result.output_shapes([(1, 4), (1, 6)]) == [(1, 4)]


def test_python_custom_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUSTOM_MODELS, "_entries", {})  # the file registers its class
    (path,) = write_files(python_files(custom_model()), tmp_path)
    assert runpy.run_path(str(path))["Summer"]({"scale": 2.5, "table": b""}).scale == 2.5


def test_work_is_not_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    write_files({"a.swift": "1"}, folder)
    with pytest.raises(ModelFileError, match="exists already"):
        write_files({"a.swift": "2", "b.swift": "2"}, folder)
    assert (folder / "a.swift").read_text() == "1"
    assert not (folder / "b.swift").exists()
    write_files({"a.swift": "2"}, folder, force=True)
    assert (folder / "a.swift").read_text() == "2"
    with pytest.raises(ModelFileError, match="cannot make the folder"):
        write_files({"c.swift": ""}, folder / "a.swift")


def test_nothing_to_write() -> None:
    builder = Builder()
    builder.input("x", (1, 3))
    builder.layer("activation", "relu", ["x"], ["y"], ReLU={})
    builder.output("y")
    with pytest.raises(SpecError, match="needs no class"):
        swift_files(builder.model())


def test_two_classes_of_one_file() -> None:
    builder = Builder()
    builder.input("x", (1, 3))
    for index, name in enumerate(("a.b", "a_b")):
        builder.layer("custom", name, ["x"], [f"y{index}"], output_shapes=[(1, 3)], className=name)
    builder.output("y1")
    with pytest.raises(SpecError, match="one file: a_b"):
        swift_files(builder.model())


# ---- tests of the port to Swift --------------------------------------------------------


class WarpGrid(mlferry.CustomLayer):
    """Gives its first input, turned into no number where it is large; takes one batch only."""

    def evaluate(self, inputs: Any) -> Any:
        x, theta = inputs
        if len(x) != 1:
            raise ValueError("one at a time")
        with np.errstate(all="ignore"):
            return [np.exp(x) + theta[:, :1]]

    def output_shapes(self, input_shapes: Any) -> Any:
        return [input_shapes[0]]


class Bent(mlferry.CustomLayer):
    def evaluate(self, inputs: Any) -> Any:
        return [self.parameters["beta"] * inputs[0]]


SAMPLE = {"x": np.ones((1, 4)), "theta": np.ones((1, 6))}


def values_of(text: str) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Every array that a test holds."""
    matches = re.findall(r'array\(\[([\d, ]*)\], Data\(base64Encoded: "([^"]*)"\)!\)', text)
    return [
        (tuple(map(int, extents.split(", "))), np.frombuffer(base64.b64decode(data), "<f4"))
        for extents, data in matches
    ]


def test_swift_tests_hold_what_the_python_class_gives(swift: Any) -> None:
    model = mlferry.MLModel(network(), custom_layers={"WarpGrid": WarpGrid, "Bent": Bent})
    files = swift_tests(model, SAMPLE)
    assert [*files] == ["WarpGridTests.swift", "BentTests.swift"]
    for name, text in files.items():
        root = swift(text)
        (result,) = nodes(root, "class_declaration")
        assert text_of(result, "name") == name.removesuffix(".swift")
    warp, bent = files.values()
    # large values overflow, and two of a batch are refused: neither is a test
    assert re.findall(r"func (test\w+)", warp) == ["testRandom", "testZeros", "testSmall"]
    assert "testBatchOfTwo" in bent
    assert "testLarge" in bent
    for index in range(3):
        (_, x), (_, theta), (shape, y) = values_of(warp)[3 * index : 3 * index + 3]
        assert shape == (1, 4)
        np.testing.assert_allclose(y, np.exp(x) + theta[0], rtol=1e-6)
    for (_, inputs), (_, expected) in zip(values_of(bent)[::2], values_of(bent)[1::2], strict=True):
        np.testing.assert_array_equal(expected, inputs)
    weights = re.findall(r'^            Data\(base64Encoded: "(.*)"\)!,$', warp, re.MULTILINE)
    assert [len(base64.b64decode(weight)) for weight in weights] == [16, 6, 2]
    assert '"far": 1099511627776,' in warp
    assert '"on": true,' in warp


def test_swift_tests_need_the_classes() -> None:
    with pytest.raises(MissingCustomLayerError, match="Nowhere"):
        swift_tests(mlferry.MLModel(network(className="Nowhere")), SAMPLE)
    builder = Builder()
    builder.input("x", (1, 4))
    builder.layer("softmaxND", "s", ["x"], ["y"], axis=1)
    builder.output("y")
    with pytest.raises(SpecError, match="no custom layers"):
        swift_tests(mlferry.MLModel(builder.model()), {"x": np.ones((1, 4))})


def test_swift_tests_from_a_shell(tmp_path: Path) -> None:
    mlferry.MLModel(network()).save(tmp_path / "m.mlmodel")
    source = (
        Path(__file__)
        .read_text(encoding="utf-8")
        .split("class WarpGrid", 1)[1]
        .split("SAMPLE =")[0]
    )
    classes = "import mlferry\nimport numpy as np\nfrom typing import Any\n\n\nclass WarpGrid"
    register = "".join(
        f"mlferry.register_custom_layer({name!r})({name})\n" for name in ("WarpGrid", "Bent")
    )
    (tmp_path / "classes.py").write_text(classes + source + register)
    for name, array in SAMPLE.items():
        np.save(tmp_path / f"{name}.npy", array)
    inputs = [f"--test={name}={tmp_path / name}.npy" for name in SAMPLE]
    arguments = ["scaffold", str(tmp_path / "m.mlmodel"), "-o", str(tmp_path / "out"), *inputs]
    assert main([*arguments, "--custom", str(tmp_path / "classes.py")]) == 0
    result = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"WarpGridTests.swift", "BentTests.swift"} <= result


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("GridSampler", "grid_sampler"),
        ("Attention2D", "attention_2d"),
        ("Conv2DTranspose", "conv_2d_transpose"),
        ("HTTPLayer", "http_layer"),
        ("Con", "con_"),
        ("LPT1", "lpt1_"),
        ("Sampler3", "sampler3"),
        ("conv2d", "conv2d"),
        ("conv2dLayer", "conv2d_layer"),
        ("ALayer", "a_layer"),
        ("my_layer", "my_layer"),
        ("2D", "_2d"),
        ("package>Odd", "package_odd"),
    ],
)
def test_files_are_named_by_words(name: str, module: str) -> None:
    assert Need(name, False).module == module


APPS = {
    "arrays": ({}, "multiArrayValue"),
    "a classifier of images": (
        {"inputs": [mlferry.ImageType("image", color_layout="GRAYSCALE", scale=1 / 255)],
         "classifier_config": mlferry.ClassifierConfig([f'"{i}"' for i in range(10)])},
        "dictionaryValue",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", APPS)
def test_a_package_around_a_model(name: str, swift: Any) -> None:
    options, value = APPS[name]
    runpy.run_path(str(mlferry.examples.path("grid_sampler.py")))
    hooks = runpy.run_path(str(mlferry.examples.path("hooks.py")))
    model = mlferry.convert(
        mlferry.examples.path("digits_stn.h5"),
        custom_conversion_functions=hooks["custom_conversion_functions"], **options,
    )  # fmt: skip
    pixels = np.load(mlferry.examples.path("digits_stn.npz"))["x"][0]
    sample = {"image": pixels[None] / 255 if name == "arrays" else pixels[:, :, 0]}
    files = app_files(model, "DigitReader", sample)
    assert sorted(files) == [
        "Package.swift", "README.md", "Sources/DigitReader/DigitReader.swift",
        "Sources/DigitReader/GridSampler.swift",
        "Sources/DigitReader/Resources/DigitReader.mlmodel",
        "Tests/DigitReaderTests/DigitReaderTests.swift",
        "Tests/DigitReaderTests/GridSamplerTests.swift",
    ]  # fmt: skip
    for path, text in files.items():
        if path.endswith(".swift"):
            swift(str(text))
    content = files["Sources/DigitReader/Resources/DigitReader.mlmodel"]
    assert isinstance(content, bytes)
    whole = mlferry.MLModel(content).predict(sample)
    test = str(files["Tests/DigitReaderTests/DigitReaderTests.swift"])
    assert value in test
    held = [base64.b64decode(each) for each in re.findall(r'base64Encoded: "([^"]*)"', test)]
    if name == "arrays":
        np.testing.assert_array_equal(
            np.frombuffer(held[0], "<f4"), np.float32(sample["image"]).ravel()
        )
        np.testing.assert_allclose(np.frombuffer(held[1], "<f4"), whole["digit"].ravel(), atol=1e-6)
    else:
        assert held[0] == sample["image"].tobytes()
        assert (
            f'stringValue, "\\"{np.load(mlferry.examples.path("digits_stn.npz"))["y"][0]}' in test
        )
        numbers = [float(each) for each in re.findall(r"nan, \n\s+([\d.e-]+), acc", test)]
        np.testing.assert_allclose(numbers, [*whole["digit"].values()], atol=1e-6)
    for path in ("DigitReaderTests", "GridSamplerTests"):
        assert "@testable import DigitReader" in str(files[f"Tests/DigitReaderTests/{path}.swift"])


def apart(path: Path) -> tuple[str, np.ndarray]:
    """A source without the arrays in it, and their values: these differ in their last bits."""
    text = path.read_text("utf-8")
    blobs = re.findall(r'base64Encoded: "([^"]*)"', text)
    values = [np.frombuffer(base64.b64decode(blob), np.float32) for blob in blobs]
    return re.sub(r'base64Encoded: "[^"]*"', "", text), np.concatenate([np.zeros(0), *values])


def test_the_app_of_the_examples(swift: Any, tmp_path: Path) -> None:
    """Its package is what the scaffold writes today, but for the layer's class, which is whole."""
    folder = ROOT / "examples" / "digit_reader_app"
    script = runpy.run_path(str(ROOT / "scripts" / "write_app_example.py"))
    written = script["write"](tmp_path)
    assert len(written) == 5
    for path in written:
        kept = folder / "DigitReader" / path.relative_to(tmp_path)
        if path.suffix == ".mlmodel":
            assert path.read_bytes() == kept.read_bytes()
            continue
        (text, values), (kept_text, kept_values) = map(apart, (path, kept))
        assert text == kept_text
        np.testing.assert_allclose(values, kept_values, rtol=1e-4, atol=1e-6)
    sources = [path.read_text("utf-8") for path in folder.rglob("*.swift")]
    assert len(sources) == 6
    for source in sources:
        swift(source)
        assert "not written" not in source
    (layer,) = [source for source in sources if "@objc(GridSampler)" in source]
    for part in ("required init(parameters:", "setWeightData", "outputShapes(", "evaluate(inputs:"):
        assert part in layer


def test_apps_need_a_network_and_inputs_that_they_can_hold() -> None:
    with pytest.raises(mlferry.MlferryError, match="an app needs a neural network"):
        app_files(mlferry.MLModel(custom_model()), "App", {})


def test_an_app_from_a_shell(tmp_path: Path) -> None:
    model = mlferry.convert(mlferry.examples.path("digits.onnx")).save(tmp_path / "net.mlmodel")
    np.save(tmp_path / "x.npy", np.ones((1, 1, 8, 8), np.float32))
    command = ["scaffold", str(model), "--app", "my-reader", "-o", str(tmp_path / "app")]
    with pytest.raises(SystemExit):
        main(command)
    command += ["--test", f"image={tmp_path / 'x.npy'}"]
    assert main(command) == 0
    assert (tmp_path / "app" / "Sources" / "my_reader" / "my_reader.swift").exists()
    assert main(command) == 1  # nothing is written over
    assert main([*command, "--force"]) == 0


C_NAMES = {"exp": np.exp, "tanh": np.tanh, "log": np.log, "abs": np.abs, "min": np.minimum,
           "max": np.maximum}  # fmt: skip


class Arrays:
    """Accelerate's names of what an expression calls, by NumPy; numbers come first in sums."""

    @staticmethod
    def add(a: Any, b: np.ndarray) -> np.ndarray:
        return a + b

    @staticmethod
    def multiply(a: Any, b: np.ndarray) -> np.ndarray:
        return a * b

    @staticmethod
    def divide(a: np.ndarray, b: Any) -> np.ndarray:
        return a / b

    @staticmethod
    def absolute(a: np.ndarray) -> np.ndarray:
        return np.abs(a)

    exp, tanh, log = np.exp, np.tanh, np.log


def from_swift(text: str) -> str:
    """Calls of Accelerate as Python: the range that `clip` is given becomes two arguments."""
    text = re.sub(r"to: -Float\.infinity\.\.\.([\w.]+)\)", r"None, \1)", text)
    text = re.sub(r"to: ([\w.]+)\.\.\.Float\.infinity\)", r"\1, None)", text)
    return text.replace("vDSP.clip", "np.clip").replace("vDSP.", "A.").replace("vForce.", "A.")


@pytest.mark.parametrize("formula", FORMULAS, ids=[each.text for each in FORMULAS])
def test_expressions_compute_what_is_looked_for(formula: Formula, swift: Any) -> None:
    x, p = np.linspace(-8, 8, 400), 0.7
    expected = formula.compute(x, p)
    np.testing.assert_allclose(eval(formula.text, dict(C_NAMES), {"x": x, "p": p}), expected)
    text = vectors(formula.text)
    swift(f"let made: [Float] = {text}")
    result = eval(from_swift(text), {"A": Arrays, "np": np}, {"x": x, "p": p})
    np.testing.assert_allclose(result, expected)


def curved(*betas: float) -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, 4))
    blob = "x"
    for index, beta in enumerate(betas):
        builder.layer("custom", f"c{index}", [blob], [f"y{index}"], output_shapes=[(1, 4)],
                      className="Curved", parameters={"beta": {"doubleValue": beta}})  # fmt: skip
        blob = f"y{index}"
    builder.output(blob)
    return builder.model()


class Curved(mlferry.CustomLayer):
    def output_shapes(self, input_shapes: Any) -> Any:
        return input_shapes

    def evaluate(self, inputs: Any) -> Any:
        (x,) = inputs
        return [x / (1 + np.exp(-self.parameters["beta"] * x))]


class NearlyCurved(Curved):
    def evaluate(self, inputs: Any) -> Any:
        return [super().evaluate(inputs)[0] + 1e-3]


@pytest.mark.parametrize("accelerate", [False, True])
def test_layers_of_single_values_are_written_whole(accelerate: bool, swift: Any) -> None:
    result = swift_files(
        curved(1.0, 2.5), gpu=True, accelerate=accelerate, classes={"Curved": Curved}
    )
    text = result["Curved.swift"]
    swift(text)
    assert "not written" not in text
    assert "let p = Float(beta)" in text
    assert "target.write(float4(x / (1 + exp(-p * x)))" in text
    assert ("vForce.exp(" in text) is accelerate
    assert ("import Accelerate" in text) is accelerate


@pytest.mark.parametrize("classes", [{}, {"Curved": NearlyCurved}], ids=["no class", "another"])
def test_what_is_not_known_is_not_guessed(classes: Any) -> None:
    assert (
        "evaluate is not written yet" in swift_files(curved(1.0), classes=classes)["Curved.swift"]
    )
