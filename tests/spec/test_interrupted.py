"""Writes that are killed, and disks that are full: the old file is whole, or the new one."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ModelFileError
from mlferry.layers.builder import Builder
from mlferry.spec import io
from mlferry.spec.proto import model_pb2

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")
ROOT = Path(__file__).parents[2]


def network(value: float, size: int = 64) -> model_pb2.Model:
    builder = Builder()
    builder.input("x", (1, size))
    builder.layer(
        "innerProduct", "dense", ["x"], ["y"], inputChannels=size, outputChannels=size,
        weights=np.full(size * size, value, np.float32),
    )  # fmt: skip
    builder.output("y")
    return builder.model()


def parts(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix == ".part"]


# ---- killed ------------------------------------------------------------------------------------

WORK = """
import sys, warnings
from pathlib import Path
import numpy as np
import mlferry
from tests.spec.test_interrupted import network

folder = Path(sys.argv[1])
print("ready", flush=True)
round = 0
while True:
    round += 1
    model = mlferry.MLModel(network(round % 7, 600))
    model.save(folder / "saved.mlmodel")
    mlferry.quantize_weights(model, 8, "linear").save(folder / "quantized.mlmodel")
    mlferry.convert(folder / "source.onnx").save(folder / "converted.mlmodel")
"""


def source(path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    weights = numpy_helper.from_array(np.ones((600, 600), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", 1, [1, 600])],
        [helper.make_tensor_value_info("y", 1, [1, 600])], [weights],
    )  # fmt: skip
    result = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(result.SerializeToString())
    onnx.checker.check_model(result)


@POSIX
def test_processes_that_are_killed(tmp_path: Path) -> None:
    source(tmp_path / "source.onnx")
    rng = random.Random(3)
    names = ("saved", "quantized", "converted")
    seen, rounds, longest = 0, 0, 0.6
    while rounds < 12 or seen <= 10:
        rounds += 1
        with subprocess.Popen(
            [sys.executable, "-c", WORK, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0.0, longest))
            process.send_signal(signal.SIGKILL)
        longest *= 1.5 if not seen else 1
        assert longest < 60  # something is written by then, on the slowest machine
        for name in names:
            path = tmp_path / f"{name}.mlmodel"
            if path.exists():
                seen += 1
                actual = mlferry.MLModel(path).predict({"x": np.ones((1, 600))})["y"]
                assert len(np.unique(actual)) == 1


STEPS = ("open", "fsync", "replace")


@POSIX
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(step: str, when: str, tmp_path: Path) -> None:
    path = io.save_spec(network(1), tmp_path / "m.mlmodel")
    new = network(2)
    child = os.fork()
    if child == 0:
        real: Callable[..., Any] = getattr(os, step)

        def dying(*arguments: Any, **named: Any) -> None:
            if when == "after":
                real(*arguments, **named)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(os, step, dying)
        io.save_spec(new, path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    written = step == "replace" and when == "after"
    assert io.load_spec(path) == (new if written else network(1))
    io.save_spec(new, path)
    assert io.load_spec(path) == new


# ---- disks and folders -------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = io.save_spec(network(1), tmp_path / "m.mlmodel")

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, step, full)
        with pytest.raises(ModelFileError, match="No space left on device"):
            io.save_spec(network(2), path)
    assert io.load_spec(path) == network(1)
    assert parts(tmp_path) == []


FULL = """
import resource, signal, sys
from mlferry.errors import ModelFileError
from mlferry.spec import io
from tests.spec.test_interrupted import network
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    io.save_spec(network(2), sys.argv[1])
except ModelFileError as error:
    print(error)
"""


@POSIX
def test_a_file_that_cannot_grow(tmp_path: Path) -> None:
    path = io.save_spec(network(1), tmp_path / "m.mlmodel")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"cannot write {path}: File too large" in done.stdout
    assert io.load_spec(path) == network(1)
    assert parts(tmp_path) == []


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelFileError, match=r"cannot write into .*missing: No such file"):
        io.save_spec(network(1), tmp_path / "missing" / "m.mlmodel")
    (tmp_path / "folder.mlmodel").mkdir()
    with pytest.raises(ModelFileError, match=r"cannot write .*folder.mlmodel: "):
        io.save_spec(network(1), tmp_path / "folder.mlmodel")
    path = io.save_spec(network(1), tmp_path / "m.mlmodel")
    path.chmod(0o444)
    # root may write anything: what the system would say to others
    monkeypatch.setattr(os, "access", lambda file, mode: bool(Path(file).stat().st_mode & 0o222))
    with pytest.raises(ModelFileError, match=r"the file exists and is read-only"):
        io.save_spec(network(2), path)
    assert io.load_spec(path) == network(1)
    assert parts(tmp_path) == []


def test_writers_of_one_file(tmp_path: Path) -> None:
    """Many threads write to one path: at the end there is what one of them wrote."""
    path = tmp_path / "m.mlmodel"
    threads = [
        threading.Thread(target=io.save_spec, args=(network(index), path)) for index in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert io.load_spec(path) in [network(index) for index in range(8)]
    assert parts(tmp_path) == []
