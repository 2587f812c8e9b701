"""Text of files is data: nothing that a command, an error or a report shows acts by it."""

from __future__ import annotations

import inspect
import io
import logging
import sys
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import mlferry
from mlferry import errors
from mlferry.cli import main
from mlferry.layers.builder import Builder
from mlferry.models.compare import compare_models, first_difference
from mlferry.models.inspect_rich import renderables
from mlferry.models.neural_network.printer import print_network_spec
from mlferry.models.problems import validate
from mlferry.progress import progress
from mlferry.spec.io import save_spec
from mlferry.spec.proto import model_pb2
from mlferry.text import indented, logger_of, printable

# Clears the screen, sets the title, links, goes back to the first column, writes from right to
# left, is not seen, begins a line of its own.
ACTS = "a\x1b[2J\x1b]0;title\x07\x1b]8;;http://x\x1b\\b\x9b1m\rc\u202ed\u2066e\u200bf\ufeffg\u2028h"
FORGED = "\nmlferry: no problems"
NAME = ACTS + FORGED
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def assert_safe(text: str) -> None:
    acting = {c for c in text if unicodedata.category(c) in HIDDEN and c not in "\n\t"}
    assert not acting, text
    assert FORGED not in text


def assert_shown(text: str) -> None:
    """The name is there, and does nothing."""
    assert_safe(text)
    assert r"\x1b[2J" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünïcode, 中文\u3000\u00a0😀", "plain, ünïcode, 中文\u3000\u00a0😀"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\u202e\u200b\u2028", r"\u202e\u200b\u2028"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),
        ("\x7f\x85\x9b", r"\x7f\x85\x9b"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_stay_where_they_may() -> None:
    assert printable("a\n\tb\r\x07", lines=True) == "a\n\tb\\r\\x07"
    assert indented("a\nb\x1b\n", 2) == "a\n  b\\x1b"
    assert indented("", 2) == ""


# ---- errors, logs, bars ------------------------------------------------------------------

MORE = {
    "limit": "weights", "problems": [ACTS], "ops": {ACTS: [ACTS]}, "shapes": {ACTS: (1,)},
    "layers": [(ACTS, ACTS, ACTS)], "operations": [(ACTS, ACTS, ACTS)], "class_names": [ACTS],
}  # fmt: skip
CLASSES = [
    found
    for _, found in inspect.getmembers(errors, inspect.isclass)
    if issubclass(found, errors.MlferryError)
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_errors(cls: type[errors.MlferryError]) -> None:
    taken = inspect.signature(cls).parameters
    error = cls(f"layer {ACTS}", **{name: MORE[name] for name in taken if name in MORE})
    error.add_context(f"converting {NAME}")
    assert_shown(str(error))


def test_logs(caplog: pytest.LogCaptureFixture) -> None:
    logger_of("mlferry.tests").warning("%s stays", ACTS)
    assert_shown(caplog.text)
    package = Path(mlferry.__file__).parent
    direct = [path for path in package.rglob("*.py") if "logging.getLogger(" in path.read_text()]
    assert direct == [package / "text.py"]
    assert logger_of("mlferry.tests") is logging.getLogger("mlferry.tests")


def test_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress([1, 2], ACTS)) == [1, 2]
    drawn = sys.stderr.getvalue()
    assert r"\x1b[2J" in drawn
    assert "\x1b[2J" not in drawn


# ---- models ------------------------------------------------------------------------------


def network(name: str = NAME) -> model_pb2.Model:
    """A network all of whose names and texts act."""
    builder = Builder()
    builder.input(f"x{name}", (1, 4))
    builder.layer("activation", f"relu{name}", [f"x{name}"], [f"y{name}"], ReLU={})
    builder.layer(
        "custom", f"odd{name}", [f"y{name}"], [f"z{name}"], output_shapes=[(1, 4)],
        className=f"Odd{name}", description=f"does{name}",
        parameters={f"k{name}": {"stringValue": name}}, weights=[np.ones(4, np.float32)],
    )  # fmt: skip
    builder.output(f"z{name}")
    spec = builder.model()
    spec.description.input[0].shortDescription = name
    metadata = spec.description.metadata
    metadata.shortDescription = metadata.author = metadata.license = name
    metadata.userDefined[name] = name
    return spec


def plain_network(name: str = NAME, factor: float = 1.0) -> mlferry.MLModel:
    builder = Builder()
    builder.input(f"x{name}", (1, 8))
    builder.layer(
        "innerProduct", f"dense{name}", [f"x{name}"], [f"y{name}"], inputChannels=8,
        outputChannels=64, weights=factor * np.ones((64, 8), np.float32),
    )  # fmt: skip
    builder.layer("unary", f"exp{name}", [f"y{name}"], [f"z{name}"], type="EXP")
    builder.output(f"z{name}")
    return mlferry.MLModel(
        builder.model(builder.classifier([name, *map(str, range(63))], f"z{name}"))
    )


def onnx_file(folder: Path) -> Path:
    """An op that nobody knows, under names that act."""
    graph = helper.make_graph(
        [helper.make_node(f"Odd{ACTS}", ["x"], [f"y{ACTS}"], name=NAME)],
        NAME,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info(f"y{ACTS}", TensorProto.FLOAT, [1, 4])],
    )
    path = folder / "odd.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    assert onnx.__name__
    return path


SHOWN: dict[str, Callable[[], str]] = {
    "description": lambda: str(mlferry.MLModel(network()).describe()),
    "model": lambda: repr(mlferry.MLModel(network())),
    "comparison": lambda: str(
        compare_models(plain_network(), plain_network(factor=1.5), [{f"x{NAME}": np.ones((1, 8))}])
    ),
    "difference": lambda: str(
        first_difference(plain_network(), plain_network(factor=2), {f"x{NAME}": np.ones((1, 8))})
    ),
    "shapes": lambda: repr(mlferry.shapes(plain_network(), {f"x{NAME}": np.ones((1, 8))})),
    "problems": lambda: "\n".join(map(str, validate(broken()))),
}


def broken() -> model_pb2.Model:
    spec = network()
    spec.neuralNetwork.layers[1].input[0] = f"nowhere{NAME}"
    return spec


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown(name: str) -> None:
    assert_shown(SHOWN[name]())


def test_terminals_and_listings(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    written = io.StringIO()
    Console(file=written, width=2000).print(*renderables(mlferry.MLModel(network()).describe()))
    assert_shown(written.getvalue())
    for style in ("", "coding"):
        print_network_spec(network(ACTS), style=style)
        assert_shown(capsys.readouterr().out)


# ---- commands ----------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    np.save(tmp_path / "x.npy", np.ones((1, 8), np.float32))
    (tmp_path / "samples").mkdir()
    np.savez(tmp_path / "samples" / "one.npz", **{f"x{NAME}": np.ones((1, 8), np.float32)})
    program = mlferry.to_program(plain_network())
    called = program.get_spec().description.input[0].name
    (tmp_path / "called").mkdir()
    np.savez(tmp_path / "called" / "one.npz", **{called: np.ones((1, 8), np.float32)})
    program.save(tmp_path / "program.mlpackage")
    return {
        "folder": str(tmp_path),
        "custom": str(save_spec(network(), tmp_path / "custom.mlmodel")),
        "broken": str(save_spec(broken(), tmp_path / "broken.mlmodel")),
        "plain": str(save_spec(plain_network().get_spec(), tmp_path / "plain.mlmodel")),
        "other": str(save_spec(plain_network(factor=1.5).get_spec(), tmp_path / "other.mlmodel")),
        "program": str(tmp_path / "program.mlpackage"),
        "onnx": str(onnx_file(tmp_path)),
        "missing": str(tmp_path / f"{ACTS.replace('/', '')}.mlmodel"),
    }


COMMANDS = [
    ("inspect {custom}", 0), ("inspect {program}", 0), ("inspect {missing}", 1),
    ("validate {broken}", 1), ("validate {custom}", 0),
    ("view {custom} --no-open -o {folder}/page.html", 0), ("predict {custom} x=1", 1),
    ("predict {plain} x={folder}/x.npy", 1),
    ("quantize {plain} -o {folder}/small.mlmodel --bits 8", 0),
    ("quantize {program} -o {folder}/small.mlpackage --bits 8", 0),
    ("compare {plain} {other} {folder}/samples", 0),
    ("compare {plain} {custom} {folder}/samples", 1),
    ("export {custom} {folder}/custom.onnx", 1), ("export {plain} {folder}/plain.onnx", 0),
    ("upgrade {plain} {folder}/new.mlpackage", 0), ("precision {program} {folder}/called", 0),
    ("convert {onnx} {folder}/odd.mlmodel", 1), ("scaffold {custom} -o {folder}/classes", 0),
    ("scaffold {custom} -o {folder}/classes --language python", 0),
    ("convert {onnx} {folder}/odd.mlmodel --add-custom-layers", 0),
    ("frobnicate {missing}", 2),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code"), COMMANDS, ids=[row[0] for row in COMMANDS])
def test_commands(
    command: str, code: int, files: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    words = [word.format(**files) for word in command.split()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            actual = main(words)
        except SystemExit as error:
            actual = error.code
    written = capfd.readouterr()
    assert (actual, written.out, written.err)[0] == code, written
    assert_safe(written.out + written.err)
    for path in Path(files["folder"]).glob("classes/*"):
        assert_shown(path.read_text())
