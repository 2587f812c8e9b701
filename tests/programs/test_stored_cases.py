"""Programs that coremltools wrote, with the values that its own tests expect of them."""

from __future__ import annotations

import json
import lzma
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import MlferryError
from mlferry.programs.types import DTYPES
from mlferry.spec.proto import mil_pb2 as mil, model_pb2

ARCHIVE = Path(os.environ.get("MLFERRY_DATA", "/nonexistent")) / "mil_cases.tar.xz"
PARTS = 16  # tests, each with its share of the cases

# What is expected, and cannot be given, by case.
OTHERWISE = {
    "mil-01618": "a quotient of 121,364 is infinite in float16",
    "mil-02575": "values that are rounded to three decimals in the source of the test",
}
REFUSED = {
    "torch-00406": "the initial state of the lstm is of a batch of 10, x of 3",
    "torch-00784": "index 65535 into an axis of 4: -1 that became uint16",
    "mil-01030": "batch_norm of float32 whose output is described as float16",
}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not ARCHIVE.exists():
        pytest.skip("MLFERRY_DATA does not name a folder with mil_cases.tar.xz")
    folder = tmp_path_factory.mktemp("mil")
    with lzma.open(ARCHIVE) as stream, tarfile.open(fileobj=stream) as archive:
        archive.extractall(folder, filter="data")
    return folder / "mil_cases"


def model_path(base: Path) -> Path:
    package = base.with_suffix(".mlpackage")
    return package if package.exists() else base.with_suffix(".mlmodel")


def halves(block: mil.Block) -> bool:
    """Whether anything in a block is of float16."""
    return any(
        value.type.tensorType.dataType == DTYPES["fp16"].number
        for operation in block.operations
        for value in operation.outputs
    ) or any(halves(inner) for operation in block.operations for inner in operation.blocks)


def is_half(spec: model_pb2.Model) -> bool:
    kinds = [
        spec.mlProgram,
        *(inner.mlProgram for inner in spec.pipeline.models),
    ]
    return any(
        halves(block) or any(v.type.tensorType.dataType == mil.FLOAT16 for v in function.inputs)
        for program in kinds
        for function in program.functions.values()
        for block in function.block_specializations.values()
    )


def expected(stored: Any, step: int) -> Iterator[tuple[str, Any]]:
    prefix = f"out{step}:"
    for key in stored.files:
        name = key.removeprefix(prefix)
        if name == key or name.endswith(":values"):
            continue
        if name.endswith(":keys"):
            name = name.removesuffix(":keys")
            yield name, dict(zip(stored[key].tolist(), stored[f"{prefix}{name}:values"],
                                 strict=True))  # fmt: skip
        else:
            yield name, stored[key]


def close(actual: Any, reference: Any, atol: float, rtol: float) -> bool:
    if isinstance(reference, dict):
        return actual.keys() == reference.keys() and all(
            close(actual[key], value, atol, rtol) for key, value in reference.items()
        )
    if isinstance(actual, str | int):
        return bool(actual == reference.item())
    actual = np.asarray(actual)
    if reference.shape == () and actual.shape == (1,):
        actual = actual.reshape(())
    if actual.shape != reference.shape:
        return False
    if actual.dtype.kind == "f" or reference.dtype.kind == "f":
        one, two = actual.astype(np.float64), reference.astype(np.float64)
        return np.allclose(one, two, atol=atol, rtol=rtol, equal_nan=True)
    return bool((actual.astype(np.int64) == reference.astype(np.int64)).all())


# What onnxruntime leaves to NumPy: values are drawn, and labels are no arrays.
ON_NUMPY = {
    "classify", "random_bernoulli", "random_categorical", "random_normal", "random_uniform",
}  # fmt: skip


def difference(base: Path, engine: str) -> str:
    """What is wrong with a case; nothing where all is right."""
    stored = np.load(base.with_suffix(".npz"))
    meta = json.loads(str(stored["meta"]))
    function = meta.get("function")
    several = function not in (None, "", "main")
    model = mlferry.MLModel(
        model_path(base),
        images="array",
        function_name=function if several else None,
        engine=engine,
        threads=1 if engine == "onnxruntime" else None,
    )
    half = meta.get("half") or is_half(model.spec)
    atol, rtol = meta["atol"], meta["rtol"]
    if half:  # ten bits, and sums of rounded values; the sources compare at 0.5 and 0.05
        atol, rtol = max(atol, 5e-2), max(rtol, 1e-2)
    state = model.make_state() if meta.get("stateful") else None
    for step in range(meta["steps"]):
        prefix = f"in{step}:"
        inputs = {k.removeprefix(prefix): stored[k] for k in stored.files if k.startswith(prefix)}
        actual = model.predict(inputs, state)
        for name, reference in expected(stored, step):
            if not close(actual[name], reference, atol, rtol):
                return f"{name} differs in step {step}"
        if engine == "onnxruntime" and model.spec.WhichOneof("Type") == "mlProgram":
            left = left_to_numpy(model, inputs)
            if not left <= ON_NUMPY:
                return f"NumPy evaluates {left - ON_NUMPY}"
    return ""


def left_to_numpy(model: Any, inputs: dict[str, Any]) -> set[str]:
    """The ops that onnxruntime does not evaluate."""
    evaluator = model.evaluator
    actual = evaluator.session.on_numpy(evaluator.values(inputs))
    return {text.split()[0] for text in actual}


@pytest.mark.parametrize("engine", ["numpy", "onnxruntime"])
@pytest.mark.parametrize("part", range(PARTS))
def test_values_are_those_of_the_source(cases: Path, part: int, engine: str) -> None:
    pytest.importorskip(engine)
    bases = [path.with_suffix("") for path in sorted(cases.glob("*.npz"))]
    assert len(bases) > 1800
    wrong, refused = {}, {}
    for base in bases[part::PARTS]:
        try:
            actual = difference(base, engine)
        except MlferryError as error:
            refused[base.name] = str(error)
            continue
        if actual:
            wrong[base.name] = actual
    assert {name: text for name, text in wrong.items() if name not in OTHERWISE} == {}
    assert {name: text for name, text in refused.items() if name not in REFUSED} == {}


# ---- exported to ONNX ----------------------------------------------------------------------------

NOT_EXPORTED = {
    **REFUSED,
    "mil-01822": "the rank of what fill makes is not known",
    "mil-01825": "the rank of what fill makes is not known",
}
NUMBERS = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8, "tensor(int8)": np.int8,
}  # fmt: skip


def exported_difference(base: Path) -> str:
    """What is wrong with the ONNX model of a case; nothing where all is right."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    stored = np.load(base.with_suffix(".npz"))
    meta = json.loads(str(stored["meta"]))
    function = meta.get("function")
    several = function not in (None, "", "main")
    model = mlferry.MLModel(model_path(base), function_name=function if several else None)
    atol, rtol = meta["atol"], meta["rtol"]
    if meta.get("half") or is_half(model.spec):
        atol, rtol = max(atol, 5e-2), max(rtol, 1e-2)
    message = mlferry.export_onnx(model, pixels=bool(meta["images"]))
    onnx.checker.check_model(message, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = ort.InferenceSession(message.SerializeToString(), options)
        names = [each.name for each in session.get_outputs()]
        types = {each.name: NUMBERS[each.type] for each in session.get_inputs()}
        state = {
            each.name: np.zeros(each.shape, types[each.name])
            for each in session.get_inputs()
            if f"{each.name}_out" in names
        }
        for step in range(meta["steps"]):
            keys = [name for name in types if f"in{step}:{name}" in stored.files]
            inputs = {name: np.atleast_1d(stored[f"in{step}:{name}"]) for name in keys}
            feeds = {n: np.ascontiguousarray(x, types[n]) for n, x in inputs.items()} | state
            actual = dict(zip(names, session.run(None, feeds), strict=True))
            state = {name: actual[f"{name}_out"] for name in state}
            for name, reference in expected(stored, step):
                if name not in actual:  # the label of a classifier
                    continue
                result, value = actual[name], reference
                if isinstance(reference, dict):
                    result, value = result.ravel(), np.array(list(reference.values()))
                if not close(result, value, atol, rtol):
                    return f"{name} differs in step {step}"
    except Exception as error:  # onnxruntime has classes of errors of its own
        return f"onnxruntime: {error}"
    return ""


@pytest.mark.parametrize("part", range(PARTS))
def test_exported_graphs_give_the_same(cases: Path, part: int) -> None:
    bases = [path.with_suffix("") for path in sorted(cases.glob("*.npz"))]
    wrong = {}
    for base in bases[part::PARTS]:
        try:
            actual = exported_difference(base)
        except MlferryError as error:
            actual = str(error)
        if actual:
            wrong[base.name] = actual
    left_out = {**NOT_EXPORTED, **OTHERWISE}
    assert {name: text for name, text in wrong.items() if name not in left_out} == {}
