"""Models that the onnx package ships with stored outputs, and real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import mlferry
from mlferry.errors import MlferryError

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
STORED = [
    path
    for kind in ("pytorch-converted", "pytorch-operator", "simple")
    for path in sorted((DATA / kind).glob("*"))
    if (path / "model.onnx").exists()
]
# Strings, training, six axes: by what the name of the case begins with.
REFUSED = ("test_strnorm", "test_gradient", "test_operator_permute2")


def tensors(folder: Path, kind: str) -> list[np.ndarray]:
    matches = sorted(folder.glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.rsplit("_", 1)[1]))
    result = []
    for path in matches:
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        result.append(onnx.numpy_helper.to_array(tensor))
    return result


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_stored_outputs(path: Path) -> None:
    model = onnx.load(path / "model.onnx")
    folder = path / "test_data_set_0"
    if path.name.startswith(REFUSED):
        with pytest.raises(MlferryError):
            mlferry.convert(model)
        return
    constants = {t.name for t in model.graph.initializer}
    names = [v.name for v in model.graph.input if v.name not in constants]
    inputs = dict(zip(names, tensors(folder, "input"), strict=True))
    fixed = {"test_expand_shape": 1}
    for prefix, place in fixed.items():
        if path.name.startswith(prefix):
            name = names[place]
            model.graph.initializer.append(onnx.numpy_helper.from_array(inputs.pop(name), name))
    shapes = [mlferry.TensorType(name=n, shape=x.shape) for n, x in inputs.items()]
    if any(x.size == 0 for x in inputs.values()):
        with pytest.raises(MlferryError, match="extents are positive"):
            mlferry.convert(model, inputs=shapes)
        return
    converted = mlferry.convert(model, inputs=shapes)
    if any(x.dtype == np.float64 and np.abs(x).max() > 1e38 for x in inputs.values()):
        with pytest.raises(MlferryError, match="float32 cannot hold"):
            converted.predict(inputs)
        return
    actual = converted.predict(inputs)
    for got, expected in zip(actual.values(), tensors(folder, "output"), strict=True):
        assert got.shape == (expected.shape or (1,))
        np.testing.assert_allclose(got, expected.reshape(got.shape), rtol=1e-3, atol=1e-4)


REAL = [
    "onnx/burn_mnist.onnx", "onnx/cntk_mnist.onnx", "onnx/pytorch_super_resolution.onnx",
    "onnx/winml_cifar_ImageClassifier.onnx", "onnx/yunet_n_320_320.onnx",
    "squeezenet/squeezenet_v1.1.onnx", "faststyle/fst_la_muse.onnx", "onnx/basicpitch_nmp.onnx",
    "onnx/winml_SqueezeNet_fp16.onnx",
]  # fmt: skip


def retyped(path: Path, old: int, new: int) -> onnx.ModelProto:
    """The model with every float of one type as one of another."""
    model = onnx.load(path)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(new)
    attributes = [a for node in model.graph.node for a in node.attribute]
    tensors = [*model.graph.initializer, *(a.t for a in attributes if a.HasField("t"))]
    for tensor in (t for t in tensors if t.data_type == old):
        array = onnx.numpy_helper.to_array(tensor).astype(dtype)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for attribute in attributes:
        if attribute.name == "to" and attribute.i == old:
            attribute.i = new
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == old:
            value.type.tensor_type.elem_type = new
    return model


def as_float32(path: Path, library: Callable[[str], Any], inputs: dict[str, Any]) -> list[Any]:
    data = retyped(path, onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT).SerializeToString()
    return list(library("onnxruntime").InferenceSession(data).run(None, inputs))


def in_double(path: Path, library: Callable[[str], Any], inputs: dict[str, Any]) -> list[Any]:
    model = retyped(path, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    doubles = {name: x.astype(np.float64) for name, x in inputs.items()}
    return list(library("onnx.reference").ReferenceEvaluator(model).run(None, doubles))


# onnxruntime itself computes the SqueezeNet in half precision. In basic-pitch, which takes
# logarithms of values near 0, its optimized and plain runs are 1e-4 of the range apart.
ORACLES = {
    "onnx/winml_SqueezeNet_fp16.onnx": as_float32,
    "onnx/basicpitch_nmp.onnx": in_double,
}


def by_onnxruntime(path: Path, library: Callable[[str], Any], inputs: dict[str, Any]) -> list[Any]:
    session = library("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, inputs))


def check(
    path: Path, library: Callable[[str], Any], oracle: Any, shape: tuple[int, ...] | None = None
) -> None:
    kinds = [mlferry.TensorType(shape=shape)] if shape else None
    model = mlferry.convert(path, inputs=kinds)
    rng = np.random.default_rng(5)
    inputs = {
        f.name: rng.uniform(0, 255, tuple(f.type.multiArrayType.shape)).astype(np.float32)
        for f in model.get_spec().description.input
    }
    expected = oracle(path, library, inputs)
    for right, got in zip(expected, model.predict(inputs).values(), strict=True):
        assert got.shape == right.shape
        assert np.abs(got - right).max() <= 1e-4 * max(float(np.ptp(right)), 1e-6)


@pytest.mark.parametrize("name", REAL)
def test_real_models(name: str, shared_data: Path, library: Callable[[str], Any]) -> None:
    check(shared_data / name, library, ORACLES.get(name, by_onnxruntime))


@pytest.mark.parametrize("size", [(320, 320), (160, 256), (224, 192)])
def test_a_dynamic_model_at_three_sizes(
    size: tuple[int, int], shared_data: Path, library: Callable[[str], Any]
) -> None:
    path = shared_data / "onnx/yunet_n_dynamic.onnx"
    with pytest.raises(mlferry.errors.ConversionError, match=r"input: \(batch, 3, height, width\)"):
        mlferry.convert(path)
    check(path, library, by_onnxruntime, (1, 3, *size))


def test_a_face_detector_at_any_size(shared_data: Path, library: Callable[[str], Any]) -> None:
    """It resizes maps to the sizes of others, and flattens them by shapes that it computes."""
    path = shared_data / "onnx/yunet_n_dynamic.onnx"
    side = mlferry.RangeDim(64, 640, 64)
    model = mlferry.convert(path, inputs=[mlferry.TensorType(shape=(1, 3, side, side))])
    for size in ((64, 96), (320, 192)):
        x = np.random.default_rng(5).uniform(0, 255, (1, 3, *size)).astype(np.float32)
        expected = by_onnxruntime(path, library, {"input": x})
        for right, got in zip(expected, model.predict({"input": x}).values(), strict=True):
            assert got.shape == right.shape
            np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5)
