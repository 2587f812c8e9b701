"""Programs that ask for too much: refused, or computed within the limits."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import LimitError, MlferryError
from mlferry.spec.proto import model_pb2
from tests.programs import by_hand
from tests.programs.by_hand import block_of, literal, operation, tensor

Model = model_pb2.Model
MOST = 160 << 20  # bytes for all at once: some copies of the largest blob
LIMITS = {"blob": 16 << 20, "rounds": 100, "weights": 16 << 20}


def integers(spec: Model) -> Iterator[Any]:
    """The values of every constant of integers."""
    for each in block_of(spec).operations:
        held = [each.attributes["val"]] if each.type == "const" else []
        held += [b.value for a in each.inputs.values() for b in a.arguments if b.HasField("value")]
        for value in held:
            if value.immediateValue.tensor.ints.values:
                yield value.immediateValue.tensor.ints.values


def opened(spec: Model) -> None:
    """No extent of a result is told: what is computed decides."""
    for each in block_of(spec).operations:
        if each.type == "const" or each.type.startswith("constexpr_"):
            continue
        for value in each.outputs:
            for dimension in value.type.tensorType.dimensions:
                dimension.unknown.SetInParent()
    for feature in spec.description.output:
        feature.type.multiArrayType.ClearField("shape")


def rows() -> list[Any]:
    actual = pytest.importorskip("tests.programs.op_rows").ROWS
    newest = {row.op: row for row in actual}
    return list(newest.values())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.id)
def test_numbers_that_are_far_too_large(row: Any, tmp_path: Path) -> None:
    make = pytest.importorskip("tests.programs.make")
    sane = make.message(make.program(row.build, row.inputs, row.since), row.since, tmp_path)
    opened(sane)
    tracemalloc.start()
    inputs = dict(zip(make.NAMES, row.inputs, strict=False))
    for index, values in enumerate(integers(sane)):
        for place in range(min(len(values), 2)):
            for number in (2**31 - 1, -(2**31)):
                spec = Model()
                spec.CopyFrom(sane)
                list(integers(spec))[index][place] = number
                with mlferry.limits.changed(**LIMITS), contextlib.suppress(MlferryError):
                    mlferry.MLModel(spec, weights_dir=tmp_path).predict(inputs)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < MOST


X = tensor("fp32", (2,))
LONG = (2**20, 2**20)
LARGE: dict[str, Any] = {
    "fill": {"shape": literal("int32", LONG), "value": literal("fp32", 1.0)},
    "tile": {"x": "x", "reps": literal("int32", [2**30])},
    "pad": {"x": "x", "pad": literal("int32", [0, 2**30])},
    "range_1d": {"start": literal("int32", 0), "end": literal("int32", 2**30),
                 "step": literal("int32", 1)},
    "random_uniform": {"shape": literal("int32", LONG)},
    "random_normal": {"shape": literal("int32", LONG)},
    "random_bernoulli": {"shape": literal("int32", LONG)},
    "one_hot": {"indices": literal("int32", [1, 2]),
                "one_hot_vector_size": literal("int32", 2**30)},
}  # fmt: skip


@pytest.mark.parametrize("op", LARGE)
def test_large_results_are_refused_before_memory_is_taken(op: str) -> None:
    shape = {"tile": (2**31,), "pad": (2**30 + 2,), "range_1d": (2**30,), "one_hot": (2, 2**30)}
    dtype = "int32" if op in ("range_1d", "one_hot") else "fp32"
    out = tensor(dtype, shape.get(op, LONG))
    if op == "one_hot":
        LARGE[op] |= {"on_value": literal("int32", 1), "off_value": literal("int32", 0)}
    spec = by_hand.model({"x": X}, [operation(op, {"y": out}, LARGE[op])], ["y"])
    with mlferry.limits.changed(**LIMITS), pytest.raises(LimitError):
        mlferry.MLModel(spec).predict({"x": np.zeros(2)})
