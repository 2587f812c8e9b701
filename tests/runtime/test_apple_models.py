"""Models that coremltools writes, run here: each kind of layer that it makes of TensorFlow's ops.

`python -m tests.runtime.apple` runs every row; these are a few that have all kinds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.converters.tensorflow.cases import CASES
from tests.runtime.apple import THEIRS, TOLERANCE, difference, written

ROWS = (
    "Acos", "Add, broadcast", "ArgMax -1", "ArgMin", "Asin", "Atan", "Atanh", "BatchToSpaceND",
    "BlockLSTM", "BroadcastTo", "Conv3D SAME", "Cos", "Cosh", "Cumsum {}", "Erf",
    "EuclideanNorm [1, 2] True", "FloorDiv", "FusedBatchNorm", "GatherNd", "GatherV2 of a table",
    "GreaterEqual", "If, yes", "InTopKV2", "LRN", "LSTMBlockCell", "Less", "LessEqual",
    "LogSoftmax", "LogicalXor", "MatrixBandPart", "Maximum", "Min [1, 2] True", "Minimum",
    "Minimum, broadcast", "NonMaxSuppressionV3", "OneHot of one", "Pack", "Pad", "PadV2", "Pow",
    "Prod [1, 2] True", "ResizeBilinear {'half_pixel_centers': True} (12, 21)",
    "ResizeBilinear {} (12, 21)", "ReverseSequence", "ReverseV2", "Round", "Sign", "Sin", "Sinh",
    "Softmax -1", "StridedSlice, new axes", "Tan", "TensorScatterAdd", "Where", "While, computed",
    "flattened, then scaled", "max pool SAME", "max pool of volumes SAME",
    "per-image standardization",
)  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_coremltools(name: str, library: Callable[[str], Any]) -> None:
    coremltools, tf = library("coremltools"), library("tensorflow")
    spec = written(coremltools, tf, CASES[name])
    assert difference(tf, CASES[name], spec) < TOLERANCE


def test_what_is_excused_is_a_row() -> None:
    assert set(THEIRS) <= set(CASES)
    assert not set(THEIRS) & set(ROWS)
