"""Large initializers stay in their file, which changes nothing of what a model becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import mlferry
from mlferry.converters.onnx import storage
from mlferry.errors import MlferryError, ModelFileError

RNG = np.random.default_rng(5)
LARGE = 1 << 16  # bytes from which an initializer stays in its file
X = RNG.normal(size=(2, 128)).astype(np.float32)


def model(weight: TensorProto, *more: TensorProto, cast: bool = False) -> onnx.ModelProto:
    """x @ w, of 128 inputs and 256 outputs."""
    nodes = [helper.make_node("MatMul", ["x", "f" if cast else "w"], ["y"])]
    if cast:
        nodes.insert(0, helper.make_node("Cast", ["w"], ["f"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 128))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 256))], [weight, *more],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weight_of(kind: Any = np.float32, name: str = "w") -> TensorProto:
    return numpy_helper.from_array((RNG.normal(size=(128, 256)) * 9).astype(kind), name)


def as_floats() -> TensorProto:
    """In the field of floats, not of raw bytes."""
    values = RNG.normal(size=(128, 256)).astype(np.float32)
    return helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.ravel())


def as_brain_floats() -> TensorProto:
    values = RNG.normal(size=128 * 256).astype(np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    return helper.make_tensor("w", TensorProto.BFLOAT16, (128, 256), halves.tobytes(), raw=True)


def split_in_two(network: onnx.ModelProto) -> bytes:
    """The graph comes in two fields, which protobuf merges: initializers after the nodes."""
    first, second = onnx.ModelProto(), onnx.ModelProto()
    first.CopyFrom(network)
    second.graph.initializer.extend(network.graph.initializer)
    del first.graph.initializer[:]
    return first.SerializeToString() + second.SerializeToString()


def small_then_large() -> bytes:
    """Two initializers of one name: the last counts."""
    return model(weight_of(), weight_of()).SerializeToString()


def raw_twice() -> bytes:
    """Two fields of raw bytes: the last counts."""
    network = model(weight_of())
    other = weight_of()
    tail = TensorProto(raw_data=other.raw_data).SerializeToString()
    tensor = network.graph.initializer[0].SerializeToString() + tail
    del network.graph.initializer[:]
    graph = network.graph.SerializeToString() + _field(5, tensor)
    network.ClearField("graph")
    return network.SerializeToString() + _field(7, graph)


def _field(number: int, value: bytes) -> bytes:
    size, varint = len(value), bytearray()
    while size > 0x7F:
        varint.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *varint, size]) + value


FILES: dict[str, Callable[[], bytes]] = {
    "float32": lambda: model(weight_of()).SerializeToString(),
    "float16": lambda: model(weight_of(np.float16), cast=True).SerializeToString(),
    "float64": lambda: model(weight_of(np.float64), cast=True).SerializeToString(),
    "int32": lambda: model(weight_of(np.int32), cast=True).SerializeToString(),
    "bfloat16": lambda: model(as_brain_floats(), cast=True).SerializeToString(),
    "a field of floats": lambda: model(as_floats()).SerializeToString(),
    "two graphs": lambda: split_in_two(model(weight_of())),
    "two of one name": small_then_large,
    "raw bytes twice": raw_twice,
}


@pytest.mark.parametrize("kind", FILES)
def test_the_file_and_its_bytes_convert_alike(kind: str, tmp_path: Path) -> None:
    data = FILES[kind]()
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    from_file = mlferry.convert(path)
    assert from_file.spec.neuralNetwork == mlferry.convert(data).spec.neuralNetwork
    if kind != "two of one name":  # onnxruntime refuses it
        (expected,) = onnxruntime.InferenceSession(data).run(None, {"x": X})
        np.testing.assert_allclose(from_file.predict({"x": X})["y"], expected, rtol=1e-4, atol=1e-3)


def test_large_initializers_are_not_read(tmp_path: Path) -> None:
    weight = weight_of()
    path = tmp_path / "m.onnx"
    path.write_bytes(model(weight).SerializeToString())
    message = storage.Message.read(path)
    assert len(message.data) < len(weight.raw_data) // 10
    ((begin, end),) = message.places.values()
    assert path.read_bytes()[begin:end] == weight.raw_data


@pytest.mark.parametrize("size", [LARGE - 4, LARGE])
def test_from_which_size(size: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    weight = numpy_helper.from_array(np.zeros(size // 4, np.float32), "other")
    network = model(weight_of(), weight)
    path.write_bytes(network.SerializeToString())
    message = storage.Message.read(path)
    assert set(message.places) == ({0} if size < LARGE else {0, 1})


def wrong_size(tensor: TensorProto) -> None:
    tensor.dims[0] += 1


def negative(tensor: TensorProto) -> None:
    tensor.dims[0] = -tensor.dims[0]


def unknown_kind(tensor: TensorProto) -> None:
    tensor.data_type = 99


@pytest.mark.parametrize("damage", [wrong_size, negative, unknown_kind])
def test_damaged_ones(damage: Callable[[TensorProto], None], tmp_path: Path) -> None:
    """The error is that of the same model in memory."""
    network = model(weight_of())
    damage(network.graph.initializer[0])
    path = tmp_path / "m.onnx"
    path.write_bytes(network.SerializeToString())
    messages = []
    for source in (path, path.read_bytes()):
        with pytest.raises(MlferryError) as caught:
            mlferry.convert(source)
        messages.append(str(caught.value).replace(str(path), "the ONNX model"))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("cut", [1, 100, 70_000])
def test_cut_off(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model(weight_of()).SerializeToString()[:-cut])
    with pytest.raises(ModelFileError, match="cut off, damaged, or not an ONNX model"):
        mlferry.convert(path)


@pytest.mark.parametrize("target", ["neuralnetwork", "mlprogram"])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_the_file_can_go_afterwards(target: str, precision: str, tmp_path: Path) -> None:
    """An exporter may write the next model over it while the converted one is in use."""
    path = tmp_path / "m.onnx"
    path.write_bytes(model(weight_of()).SerializeToString())
    options = {"compute_precision": precision} if target == "mlprogram" else {}
    before = mlferry.convert(path.read_bytes(), convert_to=target, **options)
    after = mlferry.convert(path, convert_to=target, **options)
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    np.testing.assert_array_equal(after.predict({"x": X})["y"], before.predict({"x": X})["y"])


def test_too_many_fields_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of tiny fields is read at once, as protobuf does that faster."""
    monkeypatch.setattr(storage, "_FIELDS", 10)
    path = tmp_path / "m.onnx"
    path.write_bytes(model(weight_of()).SerializeToString())
    assert not storage.Message.read(path).places
    assert mlferry.convert(path).predict({"x": X})["y"].shape == (2, 256)
