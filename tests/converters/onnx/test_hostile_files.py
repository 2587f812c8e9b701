"""ONNX models that were made to harm: nothing else is read, and time and memory stay."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mlferry
from mlferry.errors import LimitError, MlferryError, ModelFileError

FLOAT = TensorProto.FLOAT


def model(nodes: list[Any], *constants: Any, functions: Any = (), opset: int = 17) -> Any:
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", FLOAT, None)], constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=8)


def add(constant: Any) -> Any:
    return model([helper.make_node("Add", ["x", "w"], ["y"])], constant)


def elsewhere(location: str, count: int = 4, **told: int) -> Any:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[count], data_location=1)
    for key, value in {"location": location, **told}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


OUTSIDE = ["../secret", "/etc/hostname", "link", "sub/../../secret", "", "folder", "pipe", "none"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_data_outside_of_the_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(64))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    path = folder / "m.onnx"
    path.write_bytes(add(elsewhere(location)).SerializeToString())
    with pytest.raises(ModelFileError, match=r"outside the model's folder|there is no file"):
        mlferry.convert(path)


@pytest.mark.parametrize(
    "told", [{"offset": -1}, {"offset": 65}, {"offset": 60, "length": 16}, {"length": -5},
             {"length": 10**30}, {"offset": 2**70}]
)  # fmt: skip
def test_offsets_that_do_not_fit(told: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(64))
    path = tmp_path / "m.onnx"
    path.write_bytes(add(elsewhere("data", **told)).SerializeToString())
    with pytest.raises(ModelFileError, match="too short for 'w'"):
        mlferry.convert(path)


def test_many_tensors_of_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(1 << 20))
    names = [f"w{index}" for index in range(300)]
    tensors = []
    for name in names:
        tensors.append(elsewhere("data", 1 << 18, length=1 << 20))
        tensors[-1].name = name
    path = tmp_path / "m.onnx"
    proto = model([helper.make_node("Sum", ["x", *names], ["y"])], *tensors)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(LimitError, match=r"overlap, and take 314,572,800 bytes, 300 times"):
        mlferry.convert(path)


def test_data_elsewhere_of_tensors_in_any_place(tmp_path: Path) -> None:
    """In attributes, subgraphs, functions and sparse tensors: none is read from the working
    folder, where onnx itself would look."""
    tensor = elsewhere("/etc/hostname")
    constant = helper.make_node("Constant", [], ["w"], value=tensor)
    body = helper.make_graph(
        [constant, helper.make_node("Identity", ["w"], ["o"])], "b", [],
        [helper.make_tensor_value_info("o", FLOAT, None)],
    )  # fmt: skip
    plus = helper.make_node("Add", ["x", "w"], ["y"])
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "f", ["x"], ["y"], [constant, plus], opsets)
    sparse = onnx.SparseTensorProto(values=tensor, dims=[4])
    sparse.indices.CopyFrom(numpy_helper.from_array(np.arange(4), ""))
    cases = [
        model([constant, plus]),
        model([helper.make_node("If", ["c"], ["w"], then_branch=body, else_branch=body), plus],
              numpy_helper.from_array(np.array(True), "c")),
        model([helper.make_node("f", ["x"], ["y"], domain="own")], functions=[function]),
        model([helper.make_node("Constant", [], ["w"], sparse_value=sparse), plus]),
    ]  # fmt: skip
    for proto in cases:
        for source in (proto, proto.SerializeToString()):
            with pytest.raises(ModelFileError, match="give the model's path"):
                mlferry.convert(source)


def shape(*extents: int) -> Any:
    return numpy_helper.from_array(np.array(extents, np.int64), "s")


def chain(count: int, op: str = "Identity") -> list[Any]:
    names = ["x", *(f"v{index}" for index in range(count - 1)), "y"]
    return [helper.make_node(op, [a], [b]) for a, b in itertools.pairwise(names)]


def nested(depth: int) -> Any:
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["o"])], "b", [],
        [helper.make_tensor_value_info("o", FLOAT, None)],
    )  # fmt: skip
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["o"], then_branch=body, else_branch=body)
        body = helper.make_graph([node], "b", [], list(body.output))
    return body


def deep(depth: int) -> bytes:
    """Subgraphs in subgraphs, written by hand: objects would need as many levels in Python."""
    data = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # AttributeProto.g, its node, its graph
            data = tag + varint(len(data)) + data
    return b"\x08\x08\x3a" + varint(len(data)) + data


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def doubling(levels: int, recursive: bool = False) -> Any:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(levels):
        last = level == levels - 1
        op, domain = ("Neg", "") if last else (f"f{level + 1}", "own")
        if last and recursive:
            op, domain = "f0", "own"
        body = [helper.make_node(op, ["a"], ["b"], domain=domain),
                helper.make_node(op, ["b"], ["c"], domain=domain)]  # fmt: skip
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["c"], body, opsets))
    return model([helper.make_node("f0", ["x"], ["y"], domain="own")], functions=functions)


def loops(depth: int) -> Any:
    """Loops in loops, each of 8 rounds: few enough to be unrolled."""
    out = [helper.make_tensor_value_info("i_c", TensorProto.BOOL, []),
           helper.make_tensor_value_info("o", FLOAT, None)]  # fmt: skip
    inputs = [helper.make_tensor_value_info("i", TensorProto.INT64, []),
             helper.make_tensor_value_info("i_c", TensorProto.BOOL, []),
             helper.make_tensor_value_info("v", FLOAT, None)]  # fmt: skip
    body = helper.make_graph([helper.make_node("Neg", ["v"], ["o"])], "b", inputs, out)
    for _ in range(depth):
        node = helper.make_node("Loop", ["s", "", "v"], ["o"], body=body)
        body = helper.make_graph([node], "b", inputs, out)
    return model([helper.make_node("Loop", ["s", "", "x"], ["y"], body=body)],
                 numpy_helper.from_array(np.array(8), "s"))  # fmt: skip


def filled(extents: tuple[int, ...]) -> Any:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["w"]),
             helper.make_node("Add", ["x", "w"], ["y"])]  # fmt: skip
    return model(nodes, shape(*extents))


def computed(op: str, *arrays: Any, **attributes: Any) -> Any:
    names = [f"c{index}" for index in range(len(arrays))]
    named = zip(arrays, names, strict=True)
    constants = [numpy_helper.from_array(np.asarray(array), name) for array, name in named]
    return model([helper.make_node(op, names, ["w"], **attributes),
                  helper.make_node("Add", ["x", "w"], ["y"])], *constants)  # fmt: skip


def squared(count: int) -> Any:
    """Each constant twice as long as the one before."""
    nodes = [helper.make_node("Concat", [f"c{n}", f"c{n}"], [f"c{n + 1}"], axis=0)
             for n in range(count)]  # fmt: skip
    return model([*nodes, helper.make_node("Add", ["x", f"c{count}"], ["y"])],
                 numpy_helper.from_array(np.ones((1, 4), np.float32), "c0"))  # fmt: skip


ONE = np.ones((1, 1), np.float32)
BIG = 1 << 20
HOSTILE: dict[str, tuple[Callable[[], Any], str]] = {
    "a giant tensor": (
        lambda: add(TensorProto(name="w", data_type=FLOAT, dims=[1 << 32, 1 << 32])), "weights=",
    ),
    "a tensor without its bytes": (
        lambda: add(TensorProto(name="w", data_type=FLOAT, dims=[1 << 20])), "do not fit its shape",
    ),
    "a tensor of fewer than no elements": (
        lambda: add(TensorProto(name="w", data_type=FLOAT, dims=[-1, 4])), r"of shape \[-1, 4\]",
    ),
    "functions of functions": (lambda: doubling(60), r"nodes: 2,305,843.*nodes="),
    "a function of itself": (lambda: doubling(3, recursive=True), "calls itself"),
    "loops of loops": (lambda: loops(6), r"unrolled=8192\)"),
    "deep subgraphs": (lambda: deep(2000), "damaged|not an ONNX model"),
    "subgraphs that double": (
        lambda: model([helper.make_node("If", ["c"], ["y"], then_branch=nested(9),
                                        else_branch=nested(9))],
                      numpy_helper.from_array(np.array(True), "c")), "",
    ),
    "ConstantOfShape": (lambda: filled((BIG, BIG, BIG)), "constants="),
    "ConstantOfShape of too much": (lambda: filled((1 << 40, 1 << 40)), "constants=|fit|shape"),
    "Expand": (lambda: computed("Expand", ONE, np.array([BIG, BIG])), "constants="),
    "Tile": (lambda: computed("Tile", ONE, np.array([BIG, BIG])), "constants="),
    "Range": (
        lambda: computed("Range", np.array(0), np.array(1 << 50), np.array(1)), "constants=",
    ),
    "Pad": (lambda: computed("Pad", ONE, np.array([BIG, BIG, BIG, BIG])), "constants="),
    "OneHot": (
        lambda: computed("OneHot", np.zeros(4, np.int64), np.array(1 << 50),
                         np.array([0.0, 1.0], np.float32)), "constants=|memory|fit|shape",
    ),
    "a product that grows": (
        lambda: computed("Mul", np.ones((BIG, 1), np.float32), np.ones((1, BIG), np.float32)),
        "constants=",
    ),
    "MatMul": (
        lambda: computed("MatMul", np.ones((BIG, 1), np.float32), np.ones((1, BIG), np.float32)),
        "constants=",
    ),
    "Conv": (  # which is not computed while converting
        lambda: computed("Conv", ONE[None, None], ONE[None, None], pads=[BIG] * 4),
        "do not broadcast",
    ),
    "a chain that doubles": (lambda: squared(60), "constants="),
}  # fmt: skip


FAR = 1 << 31
IMAGE, REGIONS = (1, 2, 6, 6), np.array([[0, 1, 2, 3]], np.float32)


def giant(
    op: str, shape: tuple[int, ...], *arrays: Any, outputs: int = 1, **attributes: Any
) -> Any:
    """One node whose option asks for much."""
    names = [f"c{index}" if array is not None else "" for index, array in enumerate(arrays)]
    named = zip(arrays, names, strict=True)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], [f"y{i}" for i in range(outputs)], **attributes)],
        "g", [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_empty_tensor_value_info(f"y{i}") for i in range(outputs)],
        [numpy_helper.from_array(np.asarray(array), name) for array, name in named if name],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


KERNEL = np.ones((2, 1, 2, 2), np.float32)
GIANT: dict[str, tuple[Callable[[], Any], str]] = {
    "bins of regions": (
        lambda: giant("RoiAlign", IMAGE, REGIONS, np.array([0]), output_height=FAR,
                      sampling_ratio=2), "constants=",
    ),
    "bins of the largest": (
        lambda: giant("MaxRoiPool", IMAGE, np.float32([[0, 0, 1, 2, 3]]), pooled_shape=[FAR, 1]),
        "constants=",
    ),
    "entries of a window": (
        lambda: giant("MaxPool", IMAGE, outputs=2, kernel_shape=[FAR, 1], pads=[FAR, 0, 0, 0]),
        "unrolled=",
    ),
    "places of a window": (
        lambda: giant("MaxPool", IMAGE, outputs=2, kernel_shape=[2, 1], pads=[1 << 26, 0, 0, 0]),
        "constants=|kernel",
    ),
    "frequencies": (
        lambda: giant("DFT", (1, 8, 1), np.array(FAR), axis=1), "constants=",
    ),
    "a frame": (
        lambda: giant("STFT", (1, 64, 1), np.array(4), None, np.array(1 << 26)), "constants=",
    ),
    "parts": (lambda: giant("Split", (4, 2), outputs=2, num_outputs=1 << 26), "and 2 outputs"),
    "pixels": (
        lambda: giant("Resize", IMAGE, None, None, np.array([1, 2, FAR, 6]), mode="linear"),
        "constants=",
    ),
    "a dilated kernel": (
        lambda: giant("ConvTranspose", IMAGE, KERNEL, dilations=[FAR, 1]), "constants=",
    ),
    "an input": (lambda: giant("Abs", (FAR, 4)), "blob="),
}  # fmt: skip


@pytest.mark.parametrize("name", GIANT)
def test_giant_options(name: str) -> None:
    """Arrays of a conversion are counted before they are made."""
    build, message = GIANT[name]
    start = time.monotonic()
    small = mlferry.limits.changed(constants=64 << 20, blob=64 << 20)
    with small, pytest.raises(MlferryError, match=message) as actual:
        mlferry.convert(build())
    assert not isinstance(actual.value.__cause__, MemoryError)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_models(name: str) -> None:
    build, message = HOSTILE[name]
    result = build()
    data = result if isinstance(result, bytes) else result.SerializeToString()
    start = time.monotonic()
    with mlferry.limits.changed(constants=64 << 20, unrolled=5000):
        if message:
            with pytest.raises(MlferryError, match=message):
                mlferry.convert(data)
        else:
            mlferry.convert(data)
    assert time.monotonic() - start < 30


def test_many_nodes_in_the_wrong_order() -> None:
    start = time.monotonic()
    proto = model(chain(3000, "Neg")[::-1])
    actual = mlferry.convert(proto).predict({"x": np.ones((1, 4))})
    np.testing.assert_array_equal(actual["y"], np.ones((1, 4)))
    assert time.monotonic() - start < 30


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.onnx")
    with pytest.raises(MlferryError):
        mlferry.convert(tmp_path / "m.onnx")


def test_what_aborts_the_onnx_package() -> None:
    """The process that helps is replaced; the next file is read."""
    from tests.fuzz.run import FAULTS

    data = (FAULTS / "onnx.abort_in_inference.bin").read_bytes()
    for _ in range(2):
        for source in (data, onnx.ModelProto.FromString(data)):
            with pytest.raises(MlferryError):  # some releases of onnx survive it
                mlferry.convert(source)
        mlferry.convert(model(chain(1, "Relu")).SerializeToString())


WORKERS: dict[str, tuple[str, str]] = {
    "no end": ("while True: pass", r"takes more than 0 seconds of processor time"),
    "memory": ("raise MemoryError", r"bytes of memory.*changed\(reader_memory="),
    "too much memory": ("bytearray(1 << 40)", r"bytes of memory.*changed\(reader_memory="),
    "rubbish": ("os.write(1, b'{\\n')", r"crashed on it"),
    "silence": ("os._exit(0)", r"crashed on it \(exit 0"),
    "a signal": ("os.kill(os.getpid(), 11)", r"crashed on it \(exit -11"),
    "an error": ("raise ValueError('no')", "^no"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORKERS)
def test_what_the_helping_process_may_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlferry.converters.isolated import Worker
    from mlferry.converters.onnx import read

    program, message = WORKERS[name]
    script = tmp_path / "answers.py"
    script.write_text(
        f"import os\ndef load(): pass\ndef answer(told, data):\n    {program}\n"
        "CALLS = {'prepare': answer}",
        encoding="utf-8",
    )
    monkeypatch.setattr(read, "_ONNX", Worker(str(script), "the onnx package"))
    with mlferry.limits.changed(seconds=0.05), pytest.raises(MlferryError, match=message):
        mlferry.convert(model(chain(1, "Relu")).SerializeToString())


@pytest.mark.parametrize("form", ["bytes", "object"])
def test_no_process_helps_where_none_is_wanted(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlferry.converters.onnx import read

    monkeypatch.setattr(read, "_ONNX", None)
    proto = model(chain(1, "Relu"))
    with mlferry.limits.changed(isolated=False):
        mlferry.convert(proto.SerializeToString() if form == "bytes" else proto)
