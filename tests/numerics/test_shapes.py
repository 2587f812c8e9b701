"""The arithmetic that shape rules share, against counting by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mlferry.errors import SpecError
from mlferry.layers.borders import borders
from mlferry.layers.params import Params
from mlferry.numerics import shapes as arithmetic, windows
from mlferry.spec.proto import neural_network_pb2 as nn

SIZES = st.integers(1, 12)


def test_need_rank() -> None:
    arithmetic.need_rank((1, 2, 3), 3)
    with pytest.raises(SpecError, match=r"input of shape \(1, \?\) needs at least 3 axes"):
        arithmetic.need_rank((1, None), 3)


@pytest.mark.parametrize(("axis", "actual"), [(0, 0), (2, 2), (-1, 2), (-3, 0)])
def test_axis_of(axis: int, actual: int) -> None:
    assert arithmetic.axis_of(axis, 3) == actual


@pytest.mark.parametrize("axis", [3, -4, 100])
def test_axis_that_is_not_there(axis: int) -> None:
    with pytest.raises(SpecError, match=f"axis {axis} does not exist in a blob of rank 3"):
        arithmetic.axis_of(axis, 3)


@pytest.mark.parametrize(
    ("extents", "product", "total"),
    [((), 1, 0), ((2, 3), 6, 5), ((0, 5), 0, 5), ((2, None), None, None), ((None,), None, None)],
)
def test_product_and_total(
    extents: tuple[int | None, ...], product: int | None, total: int | None
) -> None:
    assert arithmetic.product(extents) == product
    assert arithmetic.total(extents) == total


@pytest.mark.parametrize(
    ("shapes", "result"),
    [
        ([(2, 3)], (2, 3)),
        ([(2, 3), (3,)], (2, 3)),
        ([(2, 1), (1, 3)], (2, 3)),
        ([(), (2,)], (2,)),
        ([(4, 1), (None,)], (4, None)),
        ([(None, 3), (1, 3)], (None, 3)),
        ([(None,), (5,)], (5,)),
        ([(1,), (1,)], (1,)),
    ],
)
def test_broadcast(shapes: list[arithmetic.Shape], result: arithmetic.Shape) -> None:
    assert arithmetic.broadcast(*shapes) == result


@given(st.lists(st.lists(st.sampled_from([1, 2, 3]), max_size=3), min_size=1, max_size=3))
def test_broadcast_is_that_of_numpy(shapes: list[list[int]]) -> None:
    tuples = [tuple(shape) for shape in shapes]
    try:
        expected = np.broadcast_shapes(*tuples)
    except ValueError:
        with pytest.raises(SpecError, match="do not broadcast"):
            arithmetic.broadcast(*tuples)
    else:
        assert arithmetic.broadcast(*tuples) == expected


@pytest.mark.parametrize(
    ("axis", "result"), [(0, (9, 2, None)), (-1, (1, 2, 9)), (1, (1, 9, None))]
)
def test_replaced(axis: int, result: arithmetic.Shape) -> None:
    assert arithmetic.replaced((1, 2, None), axis, 9) == result


@pytest.mark.parametrize(
    ("shape", "text"),
    [(None, "unknown"), ((), "()"), ((3,), "(3,)"), ((1, None, 3), "(1, ?, 3)")],
)
def test_show(shape: Any, text: str) -> None:
    assert arithmetic.show(shape) == text


def padding(amounts: list[tuple[int, int]]) -> Params:
    layer = nn.NeuralNetworkLayer(name="pad")
    layer.padding.SetInParent()
    for start, end in amounts:
        layer.padding.paddingAmounts.borderAmounts.add(startEdgeSize=start, endEdgeSize=end)
    return Params.of(layer)


@pytest.mark.parametrize(
    ("amounts", "result"),
    [([], ((0, 0), (0, 0))), ([(1, 2), (3, 4)], ((1, 2), (3, 4)))],
)
def test_borders(amounts: list[tuple[int, int]], result: Any) -> None:
    assert borders(padding(amounts)) == result


@pytest.mark.parametrize("count", [1, 3])
def test_borders_of_other_axes(count: int) -> None:
    with pytest.raises(SpecError, match=f"amounts for {count} axes; two"):
        borders(padding([(1, 1)] * count))


def starts(size: int, span: int, stride: int) -> list[int]:
    """Where windows start that fit into `size`."""
    return [first for first in range(0, size, stride) if first + span <= size]


@given(SIZES, SIZES, st.integers(1, 5), st.integers(0, 3), st.integers(0, 3))
def test_slide_counts_windows(size: int, span: int, stride: int, start: int, end: int) -> None:
    fitting = starts(start + size + end, span, stride)
    if fitting:
        assert windows.slide(size, span, stride, (start, end)) == len(fitting)
    else:
        with pytest.raises(SpecError, match=f"a window of {span} does not fit into"):
            windows.slide(size, span, stride, (start, end))


@given(SIZES, SIZES, st.integers(1, 5), st.sampled_from(["BOTTOM_RIGHT_HEAVY", "TOP_LEFT_HEAVY"]))
def test_same_padding(size: int, span: int, stride: int, mode: str) -> None:
    start, end = windows.same_edges(size, span, stride, mode)
    expected = len(range(0, size, stride))
    assert windows.slide_same(size, stride) == expected
    assert len(starts(start + size + end, span, stride)) == expected
    lighter, heavier = (start, end) if mode == "BOTTOM_RIGHT_HEAVY" else (end, start)
    assert heavier - lighter in (0, 1)
    if start + end:
        assert len(starts(start + size + end - 1, span, stride)) < expected


@given(SIZES, st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
def test_complete_windows_hold_a_pixel(size: int, span: int, stride: int, pad: int) -> None:
    """Windows go on until the padded end is reached; the last must not start behind it."""
    if span > size + 2 * pad:
        with pytest.raises(SpecError, match="does not fit"):
            windows.slide_complete(size, span, stride, (pad, pad))
        return
    first, count = 0, 1
    while first + span < size + 2 * pad:
        first, count = first + stride, count + 1
    if first >= size + pad:
        count -= 1
    assert windows.slide_complete(size, span, stride, (pad, pad)) == count


@pytest.mark.parametrize(
    ("size", "span", "stride", "pad", "count"),
    [(7, 3, 2, 0, 3), (8, 3, 2, 0, 4), (13, 3, 2, 0, 6), (14, 3, 2, 0, 7), (4, 2, 2, 1, 3),
     (5, 2, 2, 1, 3), (2, 1, 4, 0, 1)],
)  # fmt: skip
def test_complete_windows(size: int, span: int, stride: int, pad: int, count: int) -> None:
    assert windows.slide_complete(size, span, stride, (pad, pad)) == count


def test_unknown_extents_stay_unknown() -> None:
    assert windows.slide(None, 3, 1, (0, 0)) is None
    assert windows.slide_same(None, 2) is None
    assert windows.slide_complete(None, 3, 1, (0, 0)) is None
    with pytest.raises(SpecError, match="only at run time"):
        windows.same_edges(None, 3, 1, "BOTTOM_RIGHT_HEAVY")
