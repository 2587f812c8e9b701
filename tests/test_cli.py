"""The `mlferry` command."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mlferry
from mlferry.cli import main
from mlferry.cli.app import Telling
from mlferry.layers.builder import Builder
from mlferry.spec import features
from mlferry.spec.io import load_spec, save_spec

EXAMPLE = mlferry.examples.FOLDER

HOOKS = """
import mlferry

def convert_sampler(node):
    size = {"output_height": node.output_height, "output_width": node.output_width}
    return mlferry.CustomLayerParams("GridSampler", "samples at a grid", size)

custom_conversion_functions = {"GridSampler": convert_sampler}
"""


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    builder = Builder()
    builder.input("x", (1, 3))
    builder.layer("activation", "relu", ["x"], ["y"], ReLU={})
    builder.output("y")
    return save_spec(builder.model(), tmp_path / "relu.mlmodel")


def test_convert_inspect_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hooks, model = tmp_path / "hooks.py", tmp_path / "stn.mlmodel"
    hooks.write_text(HOOKS)
    assert (
        main(["convert", str(EXAMPLE / "digits_stn.h5"), str(model), "--custom", str(hooks)]) == 0
    )
    assert "custom layer GridSampler" in capsys.readouterr().out
    assert main(["inspect", str(model)]) == 0
    assert "samples at a grid" in capsys.readouterr().out
    held = np.load(EXAMPLE / "digits_stn.npz")
    np.save(tmp_path / "digit.npy", held["x"][:1].astype(np.float32) / 255)
    inputs = f"image={tmp_path / 'digit.npy'}"
    layers = str(EXAMPLE / "grid_sampler.py")
    assert main(["predict", str(model), inputs, "--custom", layers]) == 0
    result = json.loads(capsys.readouterr().out)["digit"]
    np.testing.assert_allclose(result, held["predictions"][:1], atol=1e-5)
    out = tmp_path / "out.npz"
    assert main(["predict", str(model), inputs, "--custom", layers, "--out", str(out)]) == 0
    np.testing.assert_allclose(np.load(out)["digit"], held["predictions"][:1], atol=1e-5)


@pytest.mark.parametrize("name", ["file", "allow_pickle", "scope/y", "y"])
def test_outputs_of_any_name_are_written(name: str, tmp_path: Path) -> None:
    builder = Builder()
    builder.input("x", (3,))
    builder.layer("activation", "relu", ["x"], [name], ReLU={})
    builder.output(name)
    save_spec(builder.model(), tmp_path / "m.mlmodel")
    np.save(tmp_path / "x.npy", np.float32([-1, 2, 3]))
    out = tmp_path / "out.npz"
    inputs = [str(tmp_path / "m.mlmodel"), f"x={tmp_path / 'x.npy'}"]
    assert main(["predict", *inputs, "--out", str(out)]) == 0
    with np.load(out) as held:
        np.testing.assert_array_equal(held[name], [0, 2, 3])


def test_quantize_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    builder = Builder()
    builder.input("x", (1, 3, 8, 8), features.image(8, 8, "RGB"))
    weights = rng.normal(size=(16, 192)).astype(np.float32)
    builder.layer("innerProduct", "ip", ["x"], ["y"], inputChannels=192, outputChannels=16,
                  weights=weights)  # fmt: skip
    builder.output("y")
    model = save_spec(builder.model(), tmp_path / "net.mlmodel")
    small = tmp_path / "small.mlmodel"
    assert main(["quantize", str(model), "-o", str(small), "--bits", "8"]) == 0
    assert "linear 8" in capsys.readouterr().out
    assert small.stat().st_size < model.stat().st_size / 2
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(3):
        pixels = rng.integers(0, 256, (9, 12, 3)).astype(np.uint8)
        image.fromarray(pixels).save(folder / f"{index}.png")
    assert main(["compare", str(model), str(small), str(folder)]) == 0
    assert "y" in capsys.readouterr().out
    assert main(["compare", str(model), str(small), str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 3
    assert main(["quantize", str(model), "-o", str(small), "--bits", "9"]) == 1
    table = tmp_path / "table.py"
    table.write_text(
        "import numpy as np\n"
        "def lut_function(nbits, w):\n"
        "    table = np.linspace(w.min(), w.max(), 2**nbits)\n"
        "    return table, np.abs(w.ravel()[:, None] - table).argmin(axis=1)\n"
    )
    own = ["quantize", str(model), "-o", str(small), "--bits", "3", "--mode", "custom_lut"]
    assert main([*own, "--custom", str(table)]) == 0
    assert "lut 3" in capsys.readouterr().out
    assert main(own) == 1
    assert "lut_function" in capsys.readouterr().err


def out(capsys: pytest.CaptureFixture[str], *command: object) -> str:
    """What a command prints that ends well."""
    capsys.readouterr()
    assert main([str(part) for part in command]) == 0
    return capsys.readouterr().out


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    builder = Builder()
    builder.input("x", (1, 3))
    builder.layer("custom", "odd", ["x"], ["y"], output_shapes=[(1, 3)], className="CliOdd",
                  description="odd", parameters={"size": {"intValue": 3}})  # fmt: skip
    builder.output("y")
    return save_spec(builder.model(), tmp_path / "custom.mlmodel")


def test_inspect_as_json_and_html(
    custom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = json.loads(out(capsys, "inspect", custom, "--json"))
    assert facts["dependencies"][0]["class_name"] == "CliOdd"
    page = tmp_path / "page.html"
    assert str(page) in out(capsys, "inspect", custom, "--html", page)
    assert "CliOdd" in page.read_text(encoding="utf-8")
    assert "custom layer CliOdd" in out(capsys, "inspect", custom)


def test_view_writes_a_page(
    custom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    out(capsys, "view", custom, "-o", page, "--no-open", "--shape", "x=1,3")
    assert "CliOdd" in page.read_text(encoding="utf-8")
    assert main(["view", str(custom), "--no-open", "--shape", "z=1,3"]) == 1
    with pytest.raises(SystemExit):
        main(["view", str(custom), "--no-open", "--shape", "x"])
    assert main(["view", str(tmp_path / "none.mlmodel"), "--netron"]) == 1


def test_validate_tells_by_its_exit_code(
    relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert out(capsys, "validate", relu) == "no problems\n"
    spec = load_spec(relu)
    spec.specificationVersion = 1
    broken = tmp_path / "broken.mlmodel"
    broken.write_bytes(spec.SerializeToString())
    assert main(["validate", str(broken)]) == 1
    assert "version" in capsys.readouterr().out
    assert main(["validate", str(broken), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[0]["severity"] in ("warning", "error")


def test_scaffold_writes_files(
    custom: Path, relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "classes"
    written = json.loads(out(capsys, "scaffold", custom, "-o", folder, "--gpu", "--json"))
    assert [Path(path).name for path in written] == ["CliOdd.swift", "cli_odd.py"]
    assert "MTLCommandBuffer" in (folder / "CliOdd.swift").read_text()
    assert main(["scaffold", str(custom), "-o", str(folder)]) == 1
    out(capsys, "scaffold", custom, "-o", folder, "--language", "swift", "--force")
    assert "MTLCommandBuffer" not in (folder / "CliOdd.swift").read_text()
    assert main(["scaffold", str(relu)]) == 1


def test_convert_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    shape = [1, 3, 4, 4]
    graph = helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["x"], ["g"]),
         helper.make_node("Flatten", ["g"], ["y"])],
        "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )  # fmt: skip
    source, target = tmp_path / "net.onnx", tmp_path / "net.mlmodel"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), source)
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    text = out(
        capsys, "convert", source, target, "--image", "x", "--color", "bgr", "--scale", "0.5",
        "--bias=-1,-2,-3", "--labels", labels, "--json",
    )  # fmt: skip
    model = json.loads(text)["model"]
    assert model["labels"] == ["red", "green", "blue"]
    assert model["inputs"][0]["type"] == "image BGR 4 x 4"
    pixels = np.full((4, 4, 3), 10, np.uint8)
    image = pytest.importorskip("PIL.Image").fromarray(pixels)
    image.save(tmp_path / "grey.png")
    image.resize((12, 9)).save(tmp_path / "wide.png")  # scaled and cut to the input's size
    for name in ("grey.png", "wide.png"):
        actual = json.loads(out(capsys, "predict", target, f"x={tmp_path / name}", "--json"))
        assert actual["y"] == {"red": 4.0, "green": 3.0, "blue": 2.0}
    text = out(capsys, "convert", source, target, "--shape", "x=1,3,2..8,2..8", "--output", "y")
    assert "x: multi-array float32" in text
    assert "2..8" in text
    assert main(["convert", str(source), str(target), "--shape", "x=1", "--shape", "x=2"]) == 1
    assert "not [(1,), (2,)]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("--shape x=1,a", "ranges with two dots"),
        ("--shape x", "NAME=VALUE"),
        ("--shape x=1,2..3 --shape x=1,2", "a list without"),
        ("--scale 2", "add --image NAME"),
        ("--channels-last", "add --image NAME"),
        ("--image x --bias a", "or 1/255"),
        ("--image x --scale 1/0", "or 1/255"),
        ("--image x --type x=int32", "'x' is an image"),
        ("--value x=a", "or 1/255"),
        ("--label-output best", "add --labels FILE"),
        ("--keep y --precision float32", "everything stays"),
    ],
)
def test_wrong_options_of_convert_exit_with_2(
    wrong: str, told: str, relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(relu), str(tmp_path / "out.mlmodel"), *wrong.split()])
    assert caught.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_convert_takes_a_list_of_shapes(
    product: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "net.mlmodel"
    sizes = ["--shape", "x=1,3", "--shape", "x=4,3"]
    assert "one of 1 x 3, 4 x 3" in out(capsys, "convert", product, target, *sizes)


def test_convert_takes_values_and_types(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    helper = pytest.importorskip("onnx.helper")
    values = [helper.make_tensor_value_info(name, 1, [2]) for name in "abxy"]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "a"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])],
        "g", values[:3], values[3:],
    )  # fmt: skip
    source, target = tmp_path / "net.onnx", tmp_path / "net.mlmodel"
    source.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]).SerializeToString()
    )
    np.save(tmp_path / "b.npy", np.array([1, 2], np.float32))
    inputs = ["--value", "a=1/4", "--value", f"b={tmp_path / 'b.npy'}", "--type", "x=float64"]
    assert "x: multi-array float64 2" in out(capsys, "convert", source, target, *inputs)
    np.save(tmp_path / "x.npy", np.array([4, 8], np.float64))
    actual = json.loads(out(capsys, "predict", target, f"x={tmp_path / 'x.npy'}"))
    assert actual == {"y": [2, 4]}


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A classifier of pictures of 2 x 2 grey pixels, whose scores are the pixels."""
    pytest.importorskip("PIL")
    builder = Builder()
    builder.input("image", (1, 1, 2, 2), features.image(2, 2, "GRAYSCALE"))
    builder.layer("reshapeStatic", "flat", ["image"], ["scores"], targetShape=[1, 4])
    builder.output("scores")
    labels = ["é", "\u202ecod", "c", "d"]
    return save_spec(
        builder.model(builder.classifier(labels, "scores")), tmp_path / "letters.mlmodel"
    )


def test_classifiers_print_the_likeliest_classes(
    letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = np.array([[3, 2], [1, 0]], np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    inputs = f"image={tmp_path / 'a.png'}"
    first, second, third, fourth, messages = out(capsys, "predict", letters, inputs).splitlines()
    chances = np.exp([3, 2, 1, 0]) / np.exp([3, 2, 1, 0]).sum()
    assert first.split() == ["é", f"{chances[0]:.1%}", "█" * 19 + "▍"]
    assert second.startswith(r"\u202ecod")
    assert [third.split()[:2], fourth.split()[:2]] == [["c", "8.7%"], ["d", "3.2%"]]
    assert "softmax" in messages
    text = out(capsys, "predict", letters, inputs, "--json")
    assert text == out(capsys, "predict", letters, tmp_path / "a.png", "--json")
    with pytest.raises(SystemExit):
        main(["predict", str(letters), inputs, str(tmp_path / "a.png")])
    assert "NAME=FILE" in capsys.readouterr().err
    assert '"é": 3.0' in text
    assert '"\\u202ecod": 2.0' in text
    assert json.loads(text)["scores"] == {"é": 3.0, "\u202ecod": 2.0, "c": 1.0, "d": 0.0}


def test_json_is_escaped_where_the_stream_has_only_ascii(letters: Path, tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image").fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", "mlferry", "predict", str(letters), f"image={tmp_path / 'a.png'}",
         "--json"], capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )  # fmt: skip
    assert json.loads(done.stdout)["classLabel"] == "é"
    assert rb"\u00e9" in done.stdout


def test_compare_takes_an_engine(
    letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "photos" / "inside"
    folder.mkdir(parents=True)
    pytest.importorskip("PIL.Image").fromarray(np.eye(2, dtype=np.uint8)).save(folder / "a.png")
    options = ["--engine", "onnxruntime", "--threads", "1", "--nested", "--json"]
    actual = json.loads(out(capsys, "compare", letters, letters, tmp_path / "photos", *options))
    assert actual["count"] == 1
    assert main(["compare", str(letters), str(letters), str(folder), "--threads", "2"]) == 0
    with pytest.raises(SystemExit):
        main(["compare", str(letters), str(letters), str(folder), "--threads", "0"])
    assert "--threads" in capsys.readouterr().err


def test_warnings_look_like_warnings(
    letters: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    pytest.importorskip("PIL.Image").fromarray(np.eye(2, dtype=np.uint8)).save(folder / "a.png")
    (folder / "b.png").write_text("no picture")
    done = subprocess.run(
        [sys.executable, "-m", "mlferry", "compare", str(letters), str(letters), str(folder)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.startswith("mlferry: warning: b.png cannot be read")
    assert "\x1b" not in done.stderr
    record = logging.LogRecord("m", logging.WARNING, "", 1, "watch out", (), None)
    assert Telling(colored=True).format(record) == "\x1b[33mmlferry: warning: watch out\x1b[0m"


def test_examples_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a b"
    assert f"cd '{folder}'" in out(capsys, "examples", folder)
    written = json.loads(out(capsys, "examples", folder, "--json"))  # they are there: nothing to do
    assert all(Path(path).read_bytes() for path in written)
    (folder / "hooks.py").write_text("")
    (folder / "labels.txt").unlink()
    assert main(["examples", str(folder)]) == 1
    assert "another file" in capsys.readouterr().err
    assert not (folder / "labels.txt").exists()


# The name of the target, options, and the kind and numbers of what is written.
WRITTEN = {
    "mlmodel": ("net.mlmodel", "", "neuralNetwork", "float32"),
    "mlpackage": ("net.mlpackage", "", "mlProgram", "float16"),
    "mlpackage, network": ("net.mlpackage", "--to neuralnetwork", "neuralNetwork", "float32"),
    "mlpackage, program": ("net.mlpackage", "--to mlprogram", "mlProgram", "float16"),
    "float32": ("net.mlpackage", "--precision float32", "mlProgram", "float32"),
    "float16": ("net.mlpackage", "--to mlprogram --precision float16", "mlProgram", "float16"),
    "target": ("net.mlpackage", "--target iOS16", "mlProgram", "float16"),
    "target of a network": ("net.mlpackage", "--target iOS13 --to neuralnetwork", "neuralNetwork",
                            "float32"),
}  # fmt: skip


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """An ONNX file with one product of matrices, whose values need more than float16."""
    onnx = pytest.importorskip("onnx")
    weights = onnx.numpy_helper.from_array(np.full((3, 4), 1 + 2**-12, np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g", [onnx.helper.make_tensor_value_info("x", 1, [1, 3])],
        [onnx.helper.make_tensor_value_info("y", 1, [1, 4])], [weights],
    )  # fmt: skip
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset]), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.parametrize("name", WRITTEN)
def test_convert_to(
    name: str, product: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, options, kind, numbers = WRITTEN[name]
    target = tmp_path / file
    text = out(capsys, "convert", product, target, *options.split())
    assert f"written to {target}" in text
    assert load_spec(target).WhichOneof("Type") == kind
    np.save(tmp_path / "x.npy", np.ones((1, 3), np.float32))
    actual = json.loads(out(capsys, "predict", target, f"x={tmp_path / 'x.npy'}"))["y"]
    exact = 3 * (1 + 2**-12)
    assert actual == [[3.0 if numbers == "float16" else exact] * 4]


WRONG = {
    "a program is no mlmodel": ("net.mlmodel --to mlprogram", "net.mlpackage"),
    "a target without programs": ("net.mlpackage --target iOS14", "iOS14 has no ML Programs"),
    "another suffix": ("net.bin", ".mlmodel"),
    "a precision of networks": ("net.mlmodel --precision float16", "mlprogram"),
}


@pytest.mark.parametrize("name", WRONG)
def test_convert_refuses(
    name: str, product: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line, message = WRONG[name]
    file, *options = line.split()
    assert main(["convert", str(product), str(tmp_path / file), *options]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / file).exists()


def test_convert_takes_no_core_ml_model(
    relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "relu.mlpackage"
    assert main(["convert", str(relu), str(target)]) == 1
    line = re.search(r"mlferry\.to_program\(.*\)", capsys.readouterr().err)
    assert line is not None
    eval(line.group(), {"mlferry": mlferry})
    assert load_spec(target).WhichOneof("Type") == "mlProgram"


def test_quantize_and_convert_print_json(
    relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.mlmodel"
    result = json.loads(out(capsys, "quantize", relu, "-o", small, "--bits", "16", "--json"))
    assert result["after"] == small.stat().st_size


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "_MLFERRY_COMPLETE" in out(capsys, "completion", shell)


def test_shells_complete_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlferry"], capture_output=True, text=True, check=False,
        env={**os.environ, "_MLFERRY_COMPLETE": "bash_complete", "COMP_WORDS": "mlferry ins",
             "COMP_CWORD": "1"},
    )  # fmt: skip
    assert done.stdout == "plain,inspect\n"


COMMANDS = (
    "convert", "export", "predict", "quantize", "compare", "inspect", "view", "validate",
    "scaffold", "verify", "examples",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"  mlferry {command} " in out(capsys, command, "--help")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = out(capsys, "--help")
    assert all(command in text for command in COMMANDS)


def test_without_click_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "mlferry.cli.app", raising=False)
    monkeypatch.setitem(sys.modules, "click", None)
    assert main(["--help"]) == 1
    assert "pip install 'mlferry[shell]'" in capsys.readouterr().err


def test_hooks_that_raise_are_errors(
    relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.py"
    for text, expected in (("1 / 0", "ZeroDivisionError"), ("def", "SyntaxError")):
        broken.write_text(text)
        assert main(["predict", str(relu), "x=x.npy", "--custom", str(broken)]) == 1
        assert expected in capsys.readouterr().err
    broken.write_text("def convert_sampler(node): ...")
    assert main(["convert", str(relu), "out.mlmodel", "--custom", str(broken)]) == 1
    messages = capsys.readouterr().err
    assert "custom_conversion_functions = {'sampler': convert_sampler}" in messages
    broken.write_text("custom_conversion_functions = 3")
    assert main(["convert", str(relu), "out.mlmodel", "--custom", str(broken)]) == 1
    assert "is not a dict" in capsys.readouterr().err


def test_defects_are_paragraphs_too(
    relu: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no")

    monkeypatch.setattr("mlferry.spec.io.load_spec", fail)
    assert main(["inspect", str(relu)]) == 1
    text = capsys.readouterr().err
    assert "unexpected RuntimeError: no" in text
    assert "Traceback" not in text
    with pytest.raises(RuntimeError):
        main(["inspect", str(relu), "--debug"])


def test_errors_say_what_to_type_in_a_shell(
    custom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = EXAMPLE / "digits_stn.h5", tmp_path / "stn.mlmodel"
    assert main(["convert", str(source), str(target)]) == 1
    messages = capsys.readouterr().err
    function = messages[messages.index("def convert_") : messages.index("mlferry.convert(")]
    ending = next(
        line for line in messages.splitlines() if "custom_conversion_functions = {" in line
    )
    hooks = tmp_path / "hooks.py"
    hooks.write_text(f"import mlferry\n{function}\n{ending.strip()}\n")
    out(capsys, "convert", source, "-o", target, "--custom", hooks)
    np.save(tmp_path / "x.npy", np.ones((1, 3), np.float32))
    inputs = f"x={tmp_path / 'x.npy'}"
    assert main(["predict", str(custom), inputs]) == 1
    messages = capsys.readouterr().err
    command = next(line for line in messages.splitlines() if "mlferry scaffold" in line).split()[1:]
    command[-1] = str(tmp_path / "classes")
    out(capsys, *command)
    result = tmp_path / "classes" / "cli_odd.py"
    text = result.read_text()
    start = text.index("        raise NotImplementedError")
    result.write_text(f"{text[:start]}        return [2 * inputs[0]]\n")
    assert json.loads(out(capsys, "predict", custom, inputs, "--custom", result)) == {
        "y": [[2.0, 2.0, 2.0]]
    }


def test_open_shapes_are_given_in_a_shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    helper = pytest.importorskip("onnx.helper")
    values = [helper.make_tensor_value_info(name, 1, ["n", 3, "side"]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    source, target = tmp_path / "open.onnx", tmp_path / "open.mlmodel"
    source.write_bytes(helper.make_model(graph).SerializeToString())
    assert main(["convert", str(source), str(target)]) == 1
    messages = capsys.readouterr().err.splitlines()[-1]
    assert messages.startswith("In a shell: --shape x=1,3,16;")
    out(capsys, "convert", source, target, "--shape", messages.split()[4].rstrip(";"))


def test_limits_are_raised_in_a_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "stn.mlmodel"
    inputs = ["convert", str(EXAMPLE / "digits_stn.h5"), str(target), "--add-custom-layers"]
    assert main(["--limit", "depth=9", "--limit", "weights=100KiB", *inputs]) == 1
    messages = capsys.readouterr().err.splitlines()[-1].removeprefix("In a shell: mlferry ")
    out(capsys, *shlex.split(messages))
    assert target.exists()
    for wrong, why in (
        ("weight=3", "there are weights, expansion"),
        ("isolated=3", "yes or no"),
        ("isolated=4GiB", "yes or no"),
        ("seconds=soon", "a number, or one of KiB"),
        ("seconds", "a number, or one of KiB"),
    ):
        with pytest.raises(SystemExit):
            main(["--limit", wrong, *inputs])
        assert why in " ".join(capsys.readouterr().err.split())
    assert main(["--limit", "isolated=no", "--limit", "seconds=0.5", *inputs]) == 0


def test_errors_are_paragraphs(
    relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [
        ["inspect", str(tmp_path / "missing.mlmodel")],
        ["predict", str(relu), f"x={tmp_path / 'missing.npy'}"],
        ["predict", str(relu), "x=picture.png"],
        ["predict", str(relu), "z=picture.png"],
        ["inspect", str(EXAMPLE / "digits.onnx")],
        ["convert", str(relu), str(tmp_path / "out.mlmodel")],
        ["convert", str(relu), str(tmp_path / "out.mlmodel"), "--custom", "missing.py"],
    ]
    for command in commands:
        assert main(command) == 1
        text = capsys.readouterr().err
        assert text.startswith("mlferry: ")
        assert "Traceback" not in text


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        main(["--debug", "inspect", str(tmp_path / "missing.mlmodel")])


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("translate", "No such command 'translate'"),
        ("inspect", "Missing argument 'MODEL'"),
        ("convert digits.h5", "mlferry convert digits.h5 digits.mlmodel"),
        ("predict a.mlmodel", "Missing argument 'NAME=FILE...'"),
        (
            "quantize a.mlmodel -o b.mlmodel --bits many",
            "--bits many: write it as 4, or as 2,3,4,6",
        ),
    ],
)
def test_wrong_usage_exits_with_2(
    command: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_export(relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    onnx = pytest.importorskip("onnx")
    target = tmp_path / "relu.onnx"
    fields = json.loads(out(capsys, "export", relu, target, "--json", "--shape", "x=batch,3"))
    assert fields == {
        "path": str(target), "nodes": 1, "inputs": ["x"], "outputs": ["y"], "custom": []
    }  # fmt: skip
    dims = onnx.load(target).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == ["batch", 3]
    assert "1 node written to" in out(capsys, "export", relu, target)
    with pytest.raises(SystemExit):
        main(["export", str(relu), str(target), "--shape", "x=0,3"])
    assert "write extents with commas" in capsys.readouterr().err
    assert main(["export", str(relu), str(tmp_path / "relu.txt")]) == 1
    assert "the suffix must be .onnx" in capsys.readouterr().err


def test_predict_with_onnxruntime(
    relu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    np.save(tmp_path / "x.npy", np.array([[-1, 2, -3]], np.float32))
    inputs = f"x={tmp_path / 'x.npy'}"
    assert json.loads(out(capsys, "predict", relu, inputs, "--engine", "onnxruntime")) == {
        "y": [[0, 2, 0]]
    }
