"""Every TensorFlow op: converted, run, and compared with eager TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.converters.tensorflow.ops import OPS
from tests.converters.tensorflow.cases import CASES, Case

Library = Callable[[str], Any]


def function_of(tf: Any, case: Case) -> Any:
    specs = [tf.TensorSpec(x.shape, x.dtype, name=f"x{i}") for i, x in enumerate(case.given)]
    called = tf.function(lambda *inputs: case.call(tf, *inputs), autograph=False)
    return called.get_concrete_function(*specs)


@pytest.mark.parametrize("name", list(CASES))
def test_op(name: str, library: Library) -> None:
    tf, case = library("tensorflow"), CASES[name]
    function = function_of(tf, case)
    expected = tf.nest.flatten(case.call(tf, *map(tf.constant, case.given)))
    converted = mlferry.convert(function)
    actual = converted.predict({f"x{i}": x for i, x in enumerate(case.given)})
    assert len(actual) == len(expected)
    for got, tensor in zip(actual.values(), expected, strict=True):
        right = np.asarray(tensor)
        assert got.shape == (right.shape or (1,))
        right = right.reshape(got.shape).astype(np.float64)
        span = max(1.0, float(np.abs(np.nan_to_num(right, posinf=0, neginf=0)).max()))
        np.testing.assert_allclose(got, right, rtol=case.tolerance, atol=case.tolerance * span)


# test_converting.py, test_graphs.py
RANDOM = {
    "RandomUniform", "RandomStandardNormal", "RandomUniformInt", "RandomShuffle", "Multinomial"
}  # fmt: skip
# what TensorFlow resolves itself when it freezes a graph, or runs in a graph only (test_graphs.py),
# or what only known values take
OTHERS = {
    "PartitionedCall", "StatefulPartitionedCall", "EmptyTensorList",
    "TensorListPushBack", "TensorListLength", "QuantizeAndDequantizeV2", "BitwiseOr", "BitwiseXor",
    "QuantizeAndDequantizeV3", "QuantizeAndDequantizeV4", "ParallelDynamicStitch", "Unique",
    "AccumulateNV2", "ParallelConcat", "TensorArrayV3", "TensorArrayReadV3", "TensorArrayWriteV3",
    "TensorArrayScatterV3", "TensorArrayGatherV3", "TensorArraySplitV3", "TensorArrayConcatV3",
    "TensorArraySizeV3",
}  # fmt: skip


def test_every_op_has_a_case() -> None:
    covered = {op for case in CASES.values() for op in case.ops.split()}
    assert set(OPS) - covered - RANDOM - OTHERS == set()
    assert covered - set(OPS) == set()
