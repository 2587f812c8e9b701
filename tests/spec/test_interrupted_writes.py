"""Every kind of output while the disk fills up, or the process is killed, at each step.

A hook counts the calls that change files, and fails or kills at the one of a given number. What is
at the path then is whole: the old output or the new one.
"""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pytest

import mlferry
from mlferry import examples
from mlferry.errors import MlferryError
from mlferry.models.curve import curve_picture
from mlferry.models.scaffold import write_files
from mlferry.models.view import draw
from mlferry.spec import mapped
from tests.spec.test_interrupted import ROOT, network, parts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="forks and kills its processes")

CHANGES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.utime", "shutil.copyfile", "ctypes.dlopen",
}  # fmt: skip
SAMPLE = {"x": np.ones((1, 600), np.float32)}
FULL, KILLED = "full", "killed"
DONE, REFUSED, RAISED = 0, 3, 4  # how a child ends


class Output(NamedTuple):
    """Something that is written.

    Attributes:
        write: writes one of two versions to a path.
        read: the version that is there, or a text that says how it is broken; None for nothing.
        between: what several files may be, each of them whole, while they get their names.
    """

    write: Callable[[Path, int], Any]
    read: Callable[[Path], object]
    between: Sequence[object] = ()


def model(version: int) -> mlferry.MLModel:
    return mlferry.MLModel(network(version, 600))


def program(version: int) -> mlferry.MLModel:
    return mlferry.to_program(model(version), compute_precision="float32")


def program_in_a_scratch_file(version: int) -> mlferry.MLModel:
    """As a large one: its weights lie in a temporary file before it is saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mapped, "LEAST", 1)
        patch.setattr(mapped, "IN_MEMORY", 0)
        return program(version)


def small_program(version: int) -> mlferry.MLModel:
    return mlferry.quantize_weights(program(version), 8)


def predicted(path: Path) -> object:
    if not path.exists():
        return None
    (value,) = np.unique(np.round(mlferry.MLModel(path).predict(SAMPLE)["y"] / 600))
    return int(value)


def by_onnxruntime(path: Path) -> object:
    import onnxruntime

    if not path.exists():
        return None
    session = onnxruntime.InferenceSession(str(path))
    (actual,) = session.run(None, SAMPLE)
    return int(np.unique(np.round(actual / 600))[0])


def whole_text(*texts: str) -> Callable[[Path], object]:
    """Which of some texts a file has in it, which must have its last line."""

    def read(path: Path) -> object:
        if not path.exists():
            return None
        text = path.read_text(encoding="utf-8")
        if not text.rstrip().endswith("</html>"):
            return "cut off"
        return next((version for version, part in enumerate(texts, 1) if part in text), "neither")

    return read


def scaffold(path: Path, version: int) -> None:
    write_files({"a.py": f"{version}" * 5000, "inner/b.py": f"{version}"}, path, force=True)


def scaffolded(path: Path) -> object:
    texts = [path / name for name in ("a.py", "inner/b.py")]
    if not any(text.exists() for text in texts):
        return None
    contents = {text.read_text(encoding="utf-8")[:1] if text.exists() else "" for text in texts}
    first = path / "a.py"
    sizes = first.exists() and first.stat().st_size != 5000
    return "cut off" if sizes else int(contents.pop()) if len(contents) == 1 else "mixed"


def some_examples(path: Path, version: int) -> None:
    """All files; in the first version one is missing."""
    examples.copy(path)
    if version == 1:
        (path / "digits_stn.h5").unlink()


def copied_examples(path: Path) -> object:
    if not path.exists():
        return None
    for file in path.rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            source = examples.FOLDER / file.relative_to(path)
            if file.read_bytes() != source.read_bytes():
                return f"{file.name} is cut off"
    return 1


def picture(path: Path) -> object:
    from PIL import Image

    if not path.exists():
        return None
    with Image.open(path) as image:
        image.load()
    return path.stat().st_size


OUTPUTS = {
    "m.mlmodel": Output(lambda path, v: model(v).save(path), predicted),
    "m.mlpackage": Output(lambda path, v: program(v).save(path), predicted),
    "large.mlpackage": Output(lambda path, v: program_in_a_scratch_file(v).save(path), predicted),
    "small.mlpackage": Output(lambda path, v: small_program(v).save(path), predicted),
    "m.onnx": Output(lambda path, v: mlferry.export_onnx(model(v), path), by_onnxruntime),
    "view.html": Output(
        lambda path, v: draw(network(v), {}, {}, path, f"version {v}", open_browser=False),
        whole_text("version 1", "version 2"),
    ),
    "scaffold": Output(scaffold, scaffolded, ["mixed"]),
    "examples": Output(some_examples, copied_examples, [1]),
    "curve.png": Output(lambda path, v: curve_picture([2.0, 1.0 / v], path), picture),
}


def hooked(number: int, how: str) -> None:
    """Let the change of a number fail, or kill this process. A hook stays: in a child only."""
    counter = itertools.count()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            flags = arguments[2]
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if not writes or str(arguments[0]) == os.devnull:
                return
        elif event not in CHANGES:
            return
        if next(counter) != number:
            return
        if how == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "No space left on device")

    sys.addaudithook(hook)


def written_in_a_child(output: Output, path: Path, number: int, how: str) -> int:
    """Write the second version; how the child ended, below 0 by a signal."""
    child = os.fork()
    if child == 0:
        _work(output, path, number, how)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _work(output: Output, path: Path, number: int, how: str) -> NoReturn:
    status = RAISED
    try:
        hooked(number, how)
        output.write(path, 2)
        status = DONE
    except MlferryError as error:
        status = REFUSED if "No space left on device" in str(error) else RAISED
    finally:
        os._exit(status)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("is_there", [True, False], ids=["over another", "new"])
@pytest.mark.parametrize("how", [FULL, KILLED])
@pytest.mark.parametrize("name", OUTPUTS)
def test_each_step(name: str, how: str, is_there: bool, tmp_path: Path) -> None:
    output = OUTPUTS[name]
    reference = tmp_path / "reference"
    reference.mkdir()
    output.write(reference / name, 2)
    new = output.read(reference / name)
    steps = 0
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / name
        if is_there:
            output.write(path, 1)
        old = output.read(path)
        status = written_in_a_child(output, path, number, how)
        assert status in (DONE, REFUSED, -signal.SIGKILL)
        actual = output.read(path)
        assert actual in (old, new, *output.between), f"step {number}: {actual}"
        if status == REFUSED:
            assert actual in (old, *output.between)
            assert parts(folder) == []
        if status == DONE:
            assert actual == new
        output.write(path, 2)  # what is left there keeps nobody from it
        assert output.read(path) == new
        if status == DONE and number >= 2:
            break
        steps += status != DONE
        assert number < 400
    assert steps >= 1


LIMITED = """
import resource, signal, sys
from pathlib import Path
from mlferry.errors import MlferryError
from tests.spec.test_interrupted_writes import OUTPUTS
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
name, path, size = sys.argv[1:]
import matplotlib, onnx
resource.setrlimit(resource.RLIMIT_FSIZE, (int(size), int(size)))
try:
    OUTPUTS[name].write(Path(path), 2)
    print("written")
except MlferryError as error:
    print(error)
"""


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_disk_that_fills_up_while_a_file_grows(name: str, tmp_path: Path) -> None:
    output = OUTPUTS[name]
    path = tmp_path / name
    output.write(path, 1)
    old = output.read(path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED, name, str(path), "700"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "File too large" in done.stdout, done.stdout + done.stderr
    assert output.read(path) == old
    assert parts(tmp_path) == []


WRITER = """
import sys
from pathlib import Path
from tests.spec.test_interrupted_writes import OUTPUTS
for round in range(12):
    OUTPUTS[sys.argv[1]].write(Path(sys.argv[2]), round % 2 + 1)
"""


@pytest.mark.parametrize("name", ["m.mlmodel", "m.mlpackage", "small.mlpackage"])
def test_processes_that_save_to_one_path(name: str, tmp_path: Path) -> None:
    """While two write, a third always reads one version or the other."""
    path = tmp_path / name
    OUTPUTS[name].write(path, 1)
    command = [sys.executable, "-W", "ignore", "-c", WRITER, name, str(path)]
    writers = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
    stop, seen = threading.Event(), set()
    try:
        while any(writer.poll() is None for writer in writers):
            seen.add(OUTPUTS[name].read(path))
    finally:
        stop.set()
        errors = [writer.communicate()[1].decode() for writer in writers]
    assert errors == ["", ""]
    assert seen <= {1, 2}
    assert OUTPUTS[name].read(path) in (1, 2)
    assert [item.name for item in tmp_path.iterdir()] == [name]
