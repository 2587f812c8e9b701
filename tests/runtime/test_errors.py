"""Impossible inputs: the layer is named, and what it takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlferry.errors import MlferryError
from tests.layers.case import network, run
from tests.layers.naive import values

CONV = {"outputChannels": 1, "kernelChannels": 2, "weights": values(1, 2, 3, 3)}
TABLE = {"vocabSize": 3, "embeddingSize": 2, "weights": values(2, 3)}
ROWS: list[tuple[str, dict[str, Any], list[Any], str]] = [
    ("convolution", CONV, [values(1, 3, 4, 4)], "has 3 channels, the layer takes 2"),
    ("convolution", CONV, [values(1, 2, 2, 4)], "a window of 3 does not fit into 2"),
    ("convolution", CONV, [values(2, 4, 4)], "needs at least 4 axes"),
    (
        "convolution",
        {**CONV, "weights": values(1, 2)},
        [values(1, 2, 4, 4)],
        "2 values are stored, 18",
    ),
    ("innerProduct", {"inputChannels": 2, "outputChannels": 1}, [[1, 2, 3]], "has 3 channels"),
    ("embeddingND", TABLE, [[[3]]], "indices go from 3 to 3; the embedding has 3 rows"),
    ("embeddingND", TABLE, [[[0, 1]]], "the last extent of the input"),
    ("gather", {"axis": 2}, [[[1]], [0]], "axis 2 does not exist in a blob of rank 2"),
    ("gather", {"axis": 0}, [[1, 2], [2]], "indices go from 2 to 2; the axis has 2 entries"),
    ("gatherND", {}, [[1, 2], [[0, 1]]], "indices of 2 axes"),
    ("scatter", {}, [[1, 2], [0], [1, 2]], r"updates of shape \(2,\); \(1,\) is needed"),
    ("topK", {"K": 1}, [[1, 2], [3]], "the top 3 of an axis of 2"),
    ("topK", {"K": 3}, [[1, 2]], r"K = 3 of axis 0 of \(2,\)"),
    ("addBroadcastable", {}, [[1, 2], [1, 2, 3]], "do not broadcast"),
    ("addBroadcastable", {}, [], "needs an input"),
    ("transpose", {"axes": (0, 0)}, [[[1]]], "not a permutation"),
    ("reshapeStatic", {"targetShape": (2, 2)}, [[1, 2]], "has 2 elements"),
    ("reshapeDynamic", {}, [[1, 2], [[2]]], "as a vector"),
    ("fillDynamic", {}, [[-1]], "no shape"),
    (
        "fillStatic",
        {"targetShape": (2,)},
        [[1]],
        "1 inputs do not fit a fillStatic",
    ),
    ("rangeDynamic", {}, [[1, 2]], "end is one number"),
    ("sliceStatic", {"beginIds": (1, 1)}, [[1, 2]], "2 begins for an input of rank 1"),
    ("sliceBySize", {"size": 2}, [[1, 2], [1]], "2 entries from 1 on in an axis of 2"),
    (
        "padding",
        {"reflection": {}, "paddingAmounts": {"borderAmounts": [{"startEdgeSize": 2}, {}]}},
        [[[1], [2]]],
        "reflection",
    ),
    ("crop", {"offset": (1, 1)}, [values(1, 2, 2), values(1, 2, 2)], "a crop of"),
    ("reduce", {"mode": "ARGMAX"}, [values(1, 2, 2)], "ARGMAX is over C, H or W, not over CHW"),
    ("gru", {"inputVectorSize": 2, "outputVectorSize": 1}, [values(1, 1, 2)], "needs 5 axes"),
    ("dot", {}, [values(2, 2, 1), values(2, 2, 1)], "height and width"),
    ("lrn", {}, [values(2, 2, 1)], "localSize"),
    (
        "reverseSeq",
        {"batchAxis": 0, "sequenceAxis": 1},
        [values(1, 2), [3]],
        "length 3 of sequences of 2",
    ),
    (
        "NonMaximumSuppression",
        {"maxBoxes": 1},
        [values(1, 2, 3), values(1, 2, 1)],
        r"boxes \(B, N, 4\)",
    ),
    ("NonMaximumSuppression", {}, [values(1, 2, 4), values(1, 2, 1)], "at least 1"),
    ("cropResize", {}, [values(1, 1, 1, 2, 2), np.full((1, 1, 5, 1, 1), 3)], "a box of image 3"),
    ("splitND", {"numSplits": 3}, [[1, 2]], "3 parts of axis 0"),
]


@pytest.mark.parametrize(
    ("kind", "params", "inputs", "message"), ROWS, ids=[row[0] for row in ROWS]
)
def test_message(kind: str, params: dict[str, Any], inputs: list[Any], message: str) -> None:
    model = network(kind, params, len(inputs), 1)
    with pytest.raises(MlferryError, match=message) as caught:
        run(model, [np.asarray(x) for x in inputs])
    assert f"while running {kind} 'it'" in str(caught.value)


def test_layer_of_no_kind() -> None:
    model = network("copy", {}, 1, 1)
    model.layers[0].ClearField("copy")
    with pytest.raises(MlferryError, match="has no kind"):
        run(model, [np.zeros(1)])
