"""A slice of the random networks of each frontend, against its framework."""

from __future__ import annotations

import pytest

from tests.fuzz import sizes
from tests.fuzz.differential import FRAMEWORKS, run

SLICE = {"onnx": 150, "onnx_mixed": 100, "keras": 25, "keras_nested": 15, "tensorflow": 25}
# axes that vary are refused more often, and some graphs are none for onnxruntime
LEAST = {"onnx_mixed": 0.7}


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.filterwarnings("ignore")
def test_a_slice(framework: str) -> None:
    actual, wrong = run(framework, 5, SLICE[framework])
    assert wrong == []
    assert actual["same"] > LEAST.get(framework, 0.8) * SLICE[framework]


@pytest.mark.filterwarnings("ignore")
def test_a_slice_of_sizes_set_free_after_converting() -> None:
    actual, wrong = sizes.run(5, 300)
    assert wrong == []
    assert actual["right"] > 100
    assert actual["refused"] > 50
