"""Large weights stay in files: memory, equal results, and what a message cannot hold.

Weights count as large here from 64 bytes on.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry import lanes, limits
from mlferry.converters import convert as converting
from mlferry.errors import LimitError
from mlferry.spec import mapped, weights
from tests.spec.test_interrupted import ROOT

Library = Callable[[str], Any]
Made = tuple[Any, list[np.ndarray[Any, Any]]]  # nodes of ONNX, and the weights that they read

RNG = np.random.default_rng(8)


def floats(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.normal(size=shape).astype(np.float32)


def product(helper: Any) -> Made:
    """Turned for the network, and not turned back for the program."""
    return [helper.make_node("MatMul", ["x", "w0"], ["y"])], [floats(24, 16)]


def turned_product(helper: Any) -> Made:
    node = helper.make_node("Gemm", ["x", "w0", "w1"], ["y"], transB=1)
    return [node], [floats(40, 24), floats(40)]


def one_for_two(helper: Any) -> Made:
    nodes = [
        helper.make_node("Gemm", ["x", "w0"], ["h"], transB=1),
        helper.make_node("Gemm", ["h", "w0"], ["y"], transB=1),
    ]
    return nodes, [floats(24, 24)]


def equal_ones(helper: Any) -> Made:
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("MatMul", ["h", "w1"], ["y"]),
    ]
    weight = floats(24, 24)
    return nodes, [weight, weight]


def normalized(helper: Any) -> Made:
    """A factor and a shift that go into the weights of a convolution."""
    nodes = [
        helper.make_node("Reshape", ["x", "w0"], ["image"]),
        helper.make_node("Conv", ["image", "w1"], ["c"], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "w2", "w3", "w4", "w5"], ["y"]),
    ]
    sizes = np.array([1, 6, 2, 2], np.int64)
    spread = [floats(20), floats(20), floats(20), np.abs(floats(20)) + 1]
    return nodes, [sizes, floats(20, 6, 3, 3), *spread]


def added(helper: Any) -> Made:
    """A weight that is a layer of its own, beyond the range of float16 in one place."""
    weight = floats(16, 24)
    weight[3, 4], weight[5, 6] = 1e6, 1e-9
    return [helper.make_node("Add", ["x", "w0"], ["y"])], [weight]


def looked_up(helper: Any) -> Made:
    """Turned for the network, and turned back for the program."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["i"], axis=1),
        helper.make_node("Gather", ["w0", "i"], ["y"]),
    ]
    return nodes, [floats(24, 30)]


MODELS = (product, turned_product, one_for_two, equal_ones, normalized, added, looked_up)


def onnx_file(make: Callable[[Any], Made], library: Library, folder: Path) -> Path:
    """A model with its weights in another file."""
    onnx = library("onnx")
    nodes, arrays = make(onnx.helper)
    held = [onnx.numpy_helper.from_array(array, f"w{i}") for i, array in enumerate(arrays)]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", (1, 24)), ("y", None))
    ]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    path = folder / f"{make.__name__}.onnx"
    onnx.save(
        model, path, save_as_external_data=True, location=f"{path.stem}.data", size_threshold=128
    )
    return path


def keras_file(suffix: str, library: Library, folder: Path) -> Path:
    layers = library("keras").layers
    model = library("keras").Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(16, 3),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(40, activation="relu"),
            layers.Dense(10),
        ]
    )
    path = folder / f"model{suffix}"
    model.save(path)
    return path


def small_weights_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LEAST", 64)
    monkeypatch.setattr(mapped, "IN_MEMORY", 0)
    monkeypatch.setattr(mapped, "_SEGMENT", 1 << 12)
    # three threads take a few numbers at a time
    monkeypatch.setattr(lanes, "_AT_ONCE", 16)
    monkeypatch.setattr(lanes, "cores", lambda: 3)
    monkeypatch.setattr(lanes, "free_cores", lambda awake=0: 2)
    monkeypatch.setattr(lanes, "_helpers", lanes._Helpers())


def contents(path: Path) -> dict[str, bytes]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return {str(f.relative_to(path)): f.read_bytes() for f in files if f.is_file()}


WAYS: dict[str, dict[str, Any]] = {
    "network.mlmodel": {},
    "half.mlpackage": {"convert_to": "mlprogram"},
    "full.mlpackage": {"convert_to": "mlprogram", "compute_precision": "float32"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
def test_large_and_small_weights_give_the_same_files(
    make: Callable[[Any], Made],
    way: str,
    library: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where weights lie changes nothing of what is written, and onnxruntime computes the same."""
    source = onnx_file(make, library, tmp_path)
    plain = mlferry.convert(source, **WAYS[way]).save(tmp_path / f"plain-{way}")
    small_weights_too(monkeypatch)
    converted = mlferry.convert(source, **WAYS[way])
    x = floats(1, 24)
    session = library("onnxruntime").InferenceSession(str(source))
    (expected,) = session.run(None, {"x": x})
    source.with_suffix(".data").write_bytes(b"")  # nothing is read from it any more
    mixed = tmp_path / way
    converted.save(mixed)
    assert contents(mixed) == contents(plain)
    again = mlferry.MLModel(mixed)
    tolerance = 1e-4 if way.startswith(("network", "full")) else 2e-2
    for model in (converted, again):
        actual = model.predict({"x": x})["y"]
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * 10)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_keras(
    suffix: str, way: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = keras_file(suffix, library, tmp_path)
    plain = mlferry.convert(source, **WAYS[way]).save(tmp_path / f"plain-{way}")
    small_weights_too(monkeypatch)
    model = mlferry.convert(source, **WAYS[way])
    source.write_bytes(b"")
    assert contents(model.save(tmp_path / way)) == contents(plain)


def test_custom_layers_have_their_weights(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipeline has networks in it, whose weights lie in the message."""
    source = onnx_file(turned_product, library, tmp_path)
    kernel = floats(24, 24)

    def by_hand(node: Any) -> mlferry.CustomLayerParams:
        return mlferry.CustomLayerParams("Own", weights=[kernel], output_shapes=[(1, 40)])

    small_weights_too(monkeypatch)
    model = mlferry.convert(
        source, convert_to="mlprogram", custom_conversion_functions={"Gemm": by_hand}
    )
    (held,) = weights.all_weights(model.spec)
    np.testing.assert_array_equal(weights.read(held, (24, 24)), kernel)


def test_arrays_of_a_user_are_taken_as_they_are_when_given(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function may fill the same array again for the next layer."""
    source = onnx_file(equal_ones, library, tmp_path)
    buffer = np.zeros((24, 24), np.float32)

    def by_hand(node: Any, builder: Any) -> None:
        buffer[:] = len(builder.network.layers) + 1
        builder.layer(
            "innerProduct", node.name, [node.inputs[0].name], [node.outputs[0].name],
            inputChannels=24, outputChannels=24, weights=buffer,
        )  # fmt: skip

    small_weights_too(monkeypatch)
    model = mlferry.convert(
        source,
        convert_to="mlprogram",
        compute_precision="float32",
        custom_conversion_functions={"MatMul": by_hand},
    )
    buffer[:] = -1
    actual = model.predict({"x": np.ones((1, 24), np.float32)})["y"]
    np.testing.assert_allclose(actual, 24 * 1 * 24 * 2)


def test_several_at_a_time(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [onnx_file(make, library, tmp_path) for make in MODELS]
    apart = [contents(_saved(source, tmp_path / "apart")) for source in sources]
    small_weights_too(monkeypatch)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        result = threads.map(
            lambda source: contents(_saved(source, tmp_path / "together")), sources
        )
        assert list(result) == apart


def _saved(source: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{source.stem}.mlpackage"
    return mlferry.convert(source, convert_to="mlprogram").save(path)


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_quantized(
    precision: str,
    bits: int,
    library: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = onnx_file(looked_up, library, tmp_path)
    program = mlferry.convert(source, convert_to="mlprogram", compute_precision=precision)
    program = mlferry.MLModel(program.save(tmp_path / "program.mlpackage"))
    mode = {} if bits > 8 else {"selector": lambda site: site.count > 64}
    plain = mlferry.quantize_weights(program, bits, **mode).save(tmp_path / "plain.mlpackage")
    small_weights_too(monkeypatch)
    model = mlferry.quantize_weights(program, bits, **mode).save(tmp_path / "made.mlpackage")
    assert contents(model) == contents(plain)
    assert contents(model) != contents(tmp_path / "program.mlpackage") or bits == 16


# ---- what a message cannot hold ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["onnx", ".h5", ".keras"])
def test_a_network_beyond_a_message_is_refused_before_it_is_made(
    kind: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the way, which works; and nothing was converted before."""
    source = (
        onnx_file(turned_product, library, tmp_path)
        if kind == "onnx"
        else keras_file(kind, library, tmp_path)
    )
    small_weights_too(monkeypatch)
    monkeypatch.setattr(limits, "MODEL_BYTES", 3000 if kind == "onnx" else 30_000)
    with monkeypatch.context() as patch:
        patch.setattr(converting, "lower", lambda *_, **__: pytest.fail("it was converted"))
        with pytest.raises(LimitError) as refused:
            mlferry.convert(source)
    message = str(refused.value)
    assert 'mlferry.convert(model, convert_to="mlprogram")' in message
    assert "in a shell: mlferry convert MODEL model.mlpackage" in message
    model = mlferry.convert(source, convert_to="mlprogram")
    mlferry.MLModel(model.save(tmp_path / "model.mlpackage"))


def test_the_shell_says_so_too(library: Library, tmp_path: Path) -> None:
    """With a limit of 3,000 bytes in the place of 2 GB."""
    source = onnx_file(turned_product, library, tmp_path)
    script = (
        "import sys\nfrom mlferry import limits\nlimits.MODEL_BYTES = 3000\n"
        "from mlferry.cli.app import run\nsys.exit(run(sys.argv[1:]))"
    )
    for target, status in (("model.mlmodel", 1), ("model.mlpackage", 0)):
        done = subprocess.run(
            [sys.executable, "-c", script, "convert", source, tmp_path / target],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert bool(done.returncode) == bool(status), done.stderr
        assert ("mlferry convert MODEL model.mlpackage" in done.stderr) == bool(status)
        assert (tmp_path / target).exists() == (not status)


# ---- memory ------------------------------------------------------------------------------------

# The most memory at the peak beyond that before, in multiples of the weights of the source: own
# memory, and all that is resident with the pages of mapped files. Of 60 MB in pieces of 4 MB.
MOST = {
    "network": (1.4, 1.4),
    "half_program": (0.3, 0.4),
    "full_program": (0.3, 0.4),
    "quantized": (0.25, 0.35),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peaks of memory from /proc")
def test_memory(tmp_path: Path) -> None:
    """A peak of 1.6 times the weights for a network, and of 1.2 for a program, is the promise."""
    from benchmarks import large_models

    large_models.write_source(tmp_path / large_models.SMALL, 0.1, 64)
    size = large_models.write_source(tmp_path / large_models.LARGE, 60, 1024)
    results = {}
    for name in MOST:
        done = subprocess.run(
            [sys.executable, large_models.__file__, "--task", name, tmp_path, "1"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": tempfile.gettempdir()},
        )
        fields = json.loads(done.stdout.splitlines()[-1])
        results[name] = (fields["own"] / size, fields["resident"] / size)
    over = {
        n: results[n]
        for n, most in MOST.items()
        if any(a > b for a, b in zip(results[n], most, strict=True))
    }
    assert not over, results
