"""The compiled kernels beside naive loops in double precision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="Numba is not installed")

from mlferry import lanes
from mlferry.compiled import using, vectors
from mlferry.compiled.lstm import PackedLSTM
from mlferry.compiled.matrices import PackedColumns, PackedMatrix, packed_for_windows
from mlferry.compiled.products import PackedProduct, convolved
from mlferry.compiled.rows import normalize_rows
from mlferry.compiled.tasks import Table
from mlferry.errors import PredictionError
from mlferry.numerics import functions
from mlferry.numerics.functions import softmax_along
from mlferry.runtime.planned import compiled
from mlferry.runtime.planned.convolution import Window
from mlferry.runtime.planned.finish import Clipping, Finish, Rounding
from tests.compiled.references import finishes, normal

LANES = vectors.LANES


@dataclass(frozen=True)
class Windowed:
    """A function of windows: its input and result in maps that are larger, as plans have them."""

    size: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    result: tuple[int, int] = (5, 9)
    channels: int = 8
    count: int = 20
    apart: int = 0  # channels of other maps between the pixels of input and result
    beyond: int = 0  # columns of the input that no window reads, and beyond those of the result

    @property
    def window(self) -> Window:
        return Window(self.size, self.stride, self.dilation)

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """The input, and room for the result."""
        extent = [
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(self.result, self.stride, self.size, self.dilation, strict=True)
        ]
        extent[1] += self.beyond
        x = normal(*extent, self.channels + self.apart)[..., : self.channels]
        height, width = self.result
        y = np.full((height, width + self.beyond, self.count + self.apart), np.nan, np.float32)
        return x, y[:, :width, : self.count]

    def windows(self, x: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
        """The place of each result, and the values [kH, kW, C] of its window."""
        (down, across), (apart_y, apart_x) = self.stride, self.dilation
        for i, j in np.ndindex(*self.result):
            rows = slice(i * down, i * down + (self.size[0] - 1) * apart_y + 1, apart_y)
            columns = slice(j * across, j * across + (self.size[1] - 1) * apart_x + 1, apart_x)
            yield (i, j), x[rows, columns].astype(np.float64)


WINDOWED = {
    "three by three": Windowed(),
    "one pixel": Windowed(size=(1, 1)),
    "one pixel, apart": Windowed(size=(1, 1), apart=3),
    "one pixel of a wider map": Windowed(size=(1, 1), beyond=2),
    "one pixel of a wider map, one channel": Windowed(size=(1, 1), beyond=1, channels=1),
    "one pixel, steps": Windowed(size=(1, 1), stride=(2, 3)),
    "flat": Windowed(size=(1, 4)),
    "flat, apart": Windowed(size=(1, 4), apart=2),
    "tall": Windowed(size=(5, 1), stride=(2, 1)),
    "dilated": Windowed(dilation=(2, 3)),
    "steps and dilation": Windowed(stride=(3, 2), dilation=(1, 2)),
    "one result": Windowed(result=(1, 1)),
    "narrow": Windowed(result=(7, 1)),
    "one channel": Windowed(channels=1, count=1),
    "many blocks": Windowed(result=(61, 40), channels=40, count=24),
    "tiles over two lines": Windowed(result=(7, 7), stride=(2, 1), beyond=3),
    "tiles over two lines, apart": Windowed(result=(5, 3), apart=5, beyond=1),
    "a few channels": Windowed(result=(6, 21), channels=2 * LANES, count=3),
    "a few channels, apart": Windowed(channels=3 * LANES, apart=5, beyond=1, count=2),
    "a few channels, steps": Windowed(stride=(2, 3), dilation=(1, 2), channels=2 * LANES, count=3),
    "a few channels of one pixel": Windowed(size=(1, 1), channels=16 * LANES, count=1),
}
CHANNELS = [1, LANES - 1, LANES, LANES + 1, 2 * LANES, 2 * LANES + 3, 3 * LANES, 5 * LANES - 2]
STEPS = [
    (),
    ("relu",),
    ("add", "clip"),
    ("subtract", "relu"),
    ("double", "add"),
    ("round",),
    ("round", "relu", "round"),
    ("round", "add", "round", "clip"),
    ("add", "round"),
    ("round", "add"),
    ("tanh",),
    ("round", "tanh", "round"),
    ("clip", "affine", "subtract", "relu"),
]


def check_convolution(case: Windowed, steps: tuple[str, ...] = ()) -> None:
    x, y = case.maps()
    weights = normal(*case.size, case.channels, case.count, seed=3)
    matrix = weights.reshape(-1, case.count)
    finish, finished = finishes(y, steps)
    packed = packed_for_windows(matrix, case.channels)
    compiled.convolved(x, packed, case.window, y, finish)()
    right = np.empty(y.shape)
    for place, values in case.windows(x):
        right[place] = np.einsum("ijc,ijcm->m", values, weights)
    rounding = "round" in steps
    np.testing.assert_allclose(
        y, finished(right), rtol=2e-3 if rounding else 1e-5, atol=4e-3 if rounding else 1e-4
    )


@pytest.mark.parametrize("name", WINDOWED)
def test_convolution(name: str) -> None:
    check_convolution(WINDOWED[name])


@pytest.mark.parametrize("count", CHANNELS)
def test_channels_of_a_result(count: int) -> None:
    check_convolution(Windowed(count=count, apart=1), ("add", "relu"))


@pytest.mark.parametrize("width", [*range(1, 32), 56])
def test_pixels_of_a_row(width: int) -> None:
    """Tiles of any size cover a row, the last one perhaps twice."""
    check_convolution(Windowed(result=(2, width), count=LANES), ("add",))


LINES = [(3, 4), (7, 7), (4, 7), (5, 14), (9, 6), (2, 15), (6, 2), (8, 1)]


@pytest.mark.parametrize("size", [(1, 1), (3, 3)])
@pytest.mark.parametrize("apart", [0, 3])
@pytest.mark.parametrize("count", [LANES, 2 * LANES + 3])
@pytest.mark.parametrize("result", LINES)
def test_tiles_reach_into_the_next_line(
    result: tuple[int, int], count: int, apart: int, size: tuple[int, int]
) -> None:
    """Lines of the input, of the result and of what is added lie differently far apart."""
    case = Windowed(size, (2, 1), (1, 1), result, count=count, apart=apart, beyond=2)
    check_convolution(case, ("add", "relu"))


@pytest.mark.parametrize("size", [(1, 1), (3, 3)])
@pytest.mark.parametrize("apart", [0, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("result", [*LINES, (3, 17), (2, 61)])
def test_a_few_channels(
    result: tuple[int, int], count: int, apart: int, size: tuple[int, int]
) -> None:
    """Vectors of the input's channels are multiplied, and their lanes added up."""
    channels = 64 * LANES if size == (1, 1) else 4 * LANES
    matrix = normal(math.prod(size) * channels, count)
    kind = PackedColumns if count < LANES else PackedMatrix
    assert isinstance(packed_for_windows(matrix, channels), kind)
    case = Windowed(size, (2, 1), (1, 1), result, channels, count, apart=apart, beyond=2)
    check_convolution(case, ("add", "relu"))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_a_few_channels_of_what_is_no_number(value: float) -> None:
    """It shows in the windows that hold it, and nowhere else."""
    case = Windowed(result=(4, 11), channels=2 * LANES, count=2)
    x, y = case.maps()
    x[2, 5, LANES + 1] = value
    matrix = np.ones((9 * case.channels, 2), np.float32)
    packed = packed_for_windows(matrix, case.channels)
    compiled.convolved(x, packed, case.window, y, Finish(bias=np.zeros(2, np.float32)))()
    for (i, j), values in case.windows(x):
        np.testing.assert_allclose(y[i, j], np.full(2, values.sum()), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("machine", [vectors.Machine(4, 16), vectors.Machine(16, 32)])
def test_tiles_stay_in_registers(machine: vectors.Machine) -> None:
    """The sums, and what is read: weights for all pixels, one value at a time."""
    for pixels in range(1, machine.most_pixels + 1):
        wide = machine.most_vectors(pixels)
        assert wide * pixels <= 8 or wide * (pixels + 1) < machine.registers
    for columns in vectors.DOT_TILES:
        tiles = machine.dot_tiles(columns)
        assert tiles[-1] == 1
        assert max(tiles) * columns + columns + 1 <= machine.registers


@pytest.mark.parametrize(
    ("inner", "columns", "channels", "kind"),
    [
        (81 * 2 * LANES, 3, 2 * LANES, PackedColumns),
        (81 * 2 * LANES, 5, 2 * LANES, PackedMatrix),  # too many columns
        (81 * 2 * LANES, LANES, 2 * LANES, PackedMatrix),  # a whole vector of columns
        (9 * (LANES + 1), 3, LANES + 1, PackedMatrix),  # no whole vectors of channels
        (LANES, 3, LANES, PackedMatrix),  # adding up lanes would take longer
    ],
)
def test_how_weights_are_packed(inner: int, columns: int, channels: int, kind: type) -> None:
    packed = packed_for_windows(normal(inner, columns), channels)
    assert isinstance(packed, kind)


def test_channels_that_fill_no_vectors_are_refused() -> None:
    weights = PackedColumns.of(normal(9 * 8 * LANES, 2))
    x = normal(5, 5, LANES + 1)
    y = np.empty((3, 3, 2), np.float32)
    with pytest.raises(PredictionError, match="are no multiple of"):
        compiled.convolved(x, weights, Window((3, 3), (1, 1), (1, 1)), y, Finish())


@pytest.mark.parametrize("steps", STEPS, ids=" ".join)
@pytest.mark.parametrize(
    ("count", "channels"), [(LANES, 8), (LANES + 3, 8), (3, 8 * LANES), (1, 2 * LANES)]
)
def test_what_follows_a_convolution(steps: tuple[str, ...], count: int, channels: int) -> None:
    check_convolution(Windowed(count=count, channels=channels), steps)


@pytest.mark.parametrize("cores", [2, 3, 4])
@pytest.mark.parametrize(
    ("size", "channels", "count"),
    [
        ((7, 7), 20 * LANES, 20 * LANES),  # five panels
        ((7, 7), 10 * LANES, 12 * LANES + 3),
        ((14, 14), 4 * LANES, 6 * LANES),
        ((13, 13), 32 * LANES, 62 * LANES + 8),
    ],
)
def test_threads_have_as_much_to_do(
    size: tuple[int, int], channels: int, count: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows and of columns alike: no thread waits for another for more than a row and panel."""
    monkeypatch.setattr(lanes, "cores", lambda: cores)
    x, y = (np.zeros((*size, n), np.float32) for n in (channels, count))
    weights = PackedMatrix.of(np.zeros((channels, count), np.float32))
    table = compiled.convolved(x, weights, Window((1, 1), (1, 1), (1, 1)), y, Finish())
    assert isinstance(table, Table)
    (step,) = table.steps
    bounds = [-(-len(step) * core // cores) for core in range(cores + 1)]
    shares = [
        sum(task.y.size for task in step[first:end]) for first, end in itertools.pairwise(bounds)
    ]
    assert sum(shares) == y.size
    assert max(shares) - min(shares) <= max(size[1] * count, size[0] * size[1] * 2 * LANES)


@pytest.mark.parametrize(
    "values",
    [
        [65519.0, 65520.0, -65520.0, 1e30, 2.0**-14, 1.5 * 2.0**-24, 2.0**-25, 3e-8],
        [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.00048828125, 1.00146484375, -2049.0],
    ],
)
def test_rounding_is_that_of_float16(values: list[float]) -> None:
    """Ties go to even; numbers that are too large are infinite."""
    x = np.array(values, np.float32)[None, :, None]
    y = np.empty((1, len(values), LANES), np.float32)
    ones = PackedMatrix.of(np.ones((1, LANES), np.float32))
    finish = Finish(steps=[Rounding()])
    compiled.convolved(x, ones, Window((1, 1), (1, 1), (1, 1)), y, finish)()
    with np.errstate(over="ignore"):
        right = np.broadcast_to(x.astype(np.float16).astype(np.float32), y.shape)
    np.testing.assert_array_equal(y, right)


@pytest.mark.parametrize("name", WINDOWED)
@pytest.mark.parametrize("channels", [LANES, 2 * LANES + 1])
def test_depthwise_convolution(name: str, channels: int) -> None:
    case = Windowed(**(WINDOWED[name].__dict__ | {"channels": channels, "count": channels}))
    x, y = case.maps()
    taps = normal(*case.size, channels, seed=3)
    finish, finished = finishes(y, ("clip",))
    compiled.depthwise(x, taps, case.window, y, finish)()
    right = np.empty(y.shape)
    for place, values in case.windows(x):
        right[place] = (values * taps).sum(axis=(0, 1))
    np.testing.assert_allclose(y, finished(right), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("name", WINDOWED)
def test_pooling(name: str, average: bool) -> None:
    """NaN goes into the largest value of every window that has it."""
    channels = LANES + 2
    case = Windowed(**(WINDOWED[name].__dict__ | {"channels": channels, "count": channels}))
    x, y = case.maps()
    x[0, 0, 1], x[-1, -1, 2] = np.nan, np.inf
    divisor = np.full((*y.shape[:2], 1), 4, np.float32) if average else None
    compiled.pool(x, case.window, y, Finish(steps=[Clipping(np.float32(-1))]), divisor)()
    right = np.empty(y.shape)
    for place, values in case.windows(x):
        right[place] = values.sum(axis=(0, 1)) / 4 if average else values.max(axis=(0, 1))
    np.testing.assert_allclose(y, np.maximum(right, -1), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "steps", [(), ("relu",), ("add", "relu"), ("round", "add"), ("double",), ("affine", "tanh")]
)
@pytest.mark.parametrize("channels", [1, 3, LANES, 2 * LANES + 5, 4 * LANES])
@pytest.mark.parametrize("size", [(1, 16), (9, 48), (70, 32)])
def test_instance_normalization(
    size: tuple[int, int], channels: int, steps: tuple[str, ...]
) -> None:
    """With few channels, a vector holds several pixels."""
    x = normal(*size, channels) * 3 + 40
    gamma, beta = normal(channels, seed=1), normal(channels, seed=2)
    y = np.empty_like(x)
    finish, finished = finishes(y, steps)
    finish.bias = None
    assert compiled.takes_channels(x, y)
    for run in compiled.instance_normalized(x, gamma, beta, np.float32(1e-3), y, finish):
        run()
    wide = x.astype(np.float64)
    mean, variance = wide.mean((0, 1)), wide.var((0, 1))
    right = (wide - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    right = finished(right - normal(channels, seed=1))  # it adds this bias
    tolerance = 2e-3 if "round" in steps else 2e-4
    np.testing.assert_allclose(y, right, rtol=tolerance, atol=tolerance)


def test_a_large_mean_costs_no_digits_of_a_variance() -> None:
    x = normal(64, 60, LANES) + 5000
    y, one, zero = np.empty_like(x), np.ones(LANES, np.float32), np.zeros(LANES, np.float32)
    for run in compiled.instance_normalized(x, one, zero, np.float32(0), y, Finish()):
        run()
    np.testing.assert_allclose(y.astype(np.float64).std((0, 1)), 1, rtol=1e-4)


@pytest.mark.parametrize("count", [1, LANES // 2])
def test_factors_for_other_channels_are_refused(count: int) -> None:
    """Though their number divides that of the channels, as if these stood there several times."""
    x = normal(4, 5, LANES)
    given = normal(count), normal(count)
    with pytest.raises(PredictionError, match="factors and"):
        compiled.instance_normalized(x, *given, np.float32(0), np.empty_like(x), Finish())


@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
def test_values_without_variance_become_the_shift(size: tuple[int, int]) -> None:
    """As near as a mean, and its product with the large factor, are rounded."""
    x = np.broadcast_to(normal(LANES) * 3, (*size, LANES)).copy()
    one, shift = np.ones(LANES, np.float32), normal(LANES, seed=1)
    y = np.empty_like(x)
    for run in compiled.instance_normalized(x, one, shift, np.float32(1e-5), y, Finish()):
        run()
    most = 8 * np.spacing(np.abs(x).max() / np.float32(np.sqrt(1e-5)))
    np.testing.assert_allclose(y, np.broadcast_to(shift, y.shape), rtol=0, atol=most)


@pytest.mark.parametrize("width", [1, LANES - 1, LANES, 4 * LANES + 1])
def test_few_channels_go_together_where_a_line_fills_a_vector(width: int) -> None:
    x = normal(4, width + 2, 1)[:, :width]
    assert compiled.takes_channels(x, x) == (width >= LANES)


def test_windows_beyond_a_map_are_refused() -> None:
    x, y = Windowed().maps()
    matrix = PackedMatrix.of(normal(4 * 3 * 8, 20))
    with pytest.raises(PredictionError, match="reach beyond"):
        compiled.convolved(x, matrix, Window((4, 3), (1, 1), (1, 1)), y, Finish())


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 5), (3, 64, LANES), (29, 33, 4 * LANES + 1)])
@pytest.mark.parametrize("order", ["rows", "columns", "read only"])
def test_product(shape: tuple[int, int, int], order: str) -> None:
    count, inner, columns = shape
    rows, matrix, bias = normal(count, inner), normal(inner, columns, seed=1), normal(columns)
    given = np.asfortranarray(rows) if order == "columns" else rows.copy()
    given.flags.writeable = order != "read only"
    y = PackedProduct.of(matrix, bias)(given)
    np.testing.assert_allclose(y, rows.astype(float) @ matrix + bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", WINDOWED)
def test_convolution_of_arrays(name: str) -> None:
    case = WINDOWED[name]
    maps = [normal(*case.maps()[0].shape, seed=seed) for seed in (4, 5)]
    weights = normal(*case.size, case.channels, case.count, seed=3)
    x = np.stack(maps).transpose(0, 3, 1, 2)
    y = convolved(x, weights.transpose(3, 2, 0, 1), case.stride, case.dilation, case.result)
    for source, result in zip(maps, y, strict=True):
        for (i, j), values in case.windows(source):
            right = np.einsum("ijc,ijcm->m", values, weights)
            np.testing.assert_allclose(result[:, i, j], right, rtol=1e-5, atol=1e-4)


def test_weights_of_other_extents_are_refused() -> None:
    product = PackedProduct.of(normal(3, 5), None)
    with pytest.raises(PredictionError, match="its weights are 3 x 5"):
        product(normal(2, 4))
    x, y = Windowed().maps()
    with pytest.raises(PredictionError, match="its weights are 71 x 20"):
        compiled.convolved(x, PackedMatrix.of(normal(71, 20)), Windowed().window, y, Finish())


def test_a_product_of_no_rows() -> None:
    assert PackedProduct.of(normal(3, 5), None)(normal(0, 3)).shape == (0, 5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 128), (4, 200)])
def test_normalized_rows(shape: tuple[int, int]) -> None:
    x, gamma, beta = normal(*shape) + 3, normal(shape[1], seed=1), normal(shape[1], seed=2)
    y = np.empty_like(x)
    normalize_rows(x, gamma, beta, np.float32(1e-3), y)
    wide = x.astype(np.float64)
    mean, variance = wide.mean(1, keepdims=True), wide.var(1, keepdims=True)
    right = (wide - mean) / np.sqrt(variance + 1e-3) * gamma + beta
    np.testing.assert_allclose(y, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (2, LANES - 1), (5, LANES), (3, 4 * LANES + 1)])
@pytest.mark.parametrize("large", [False, True])
def test_softmax_of_rows(shape: tuple[int, int], large: bool) -> None:
    x = normal(*shape) * (300 if large else 1)
    x[0, -1] = 1e4 if large else 0
    y = softmax_along(x, -1)
    powers = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(y, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, LANES, LANES + 2])
def test_softmax_of_what_is_no_number(value: float, place: int) -> None:
    """As NumPy's: all of the row, unless the value is negative."""
    x = normal(2, LANES + 3)
    x[1, place] = value
    with using(False), np.errstate(invalid="ignore"):
        right = softmax_along(x, -1)
    np.testing.assert_allclose(softmax_along(x, -1), right, rtol=1e-5)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


ERF = np.vectorize(math.erf)
FUNCTIONS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], Any]]] = {
    "erf": (functions.erf, ERF),
    "exp": (functions.exp, np.exp),
    "gelu": (lambda x: functions.gelu(x, "EXACT"), lambda x: x * (1 + ERF(x / math.sqrt(2))) / 2),
    "sigmoid": (functions.sigmoid, sigmoid),
    "sigmoid in place": (lambda x: functions.sigmoid(x.copy(), x), sigmoid),
}


@pytest.mark.parametrize("shape", [(), (1,), (LANES + 1,), (3, 5, 7), (2, 4 * LANES)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_each_value(name: str, shape: tuple[int, ...]) -> None:
    x = np.asarray(normal(*shape) * 3, np.float32)
    actual, right = FUNCTIONS[name]
    wide = x.astype(np.float64)
    y = actual(x.T).T if x.ndim == 3 and name != "sigmoid in place" else actual(x)
    assert np.shape(y) == shape
    np.testing.assert_allclose(y, right(wide), rtol=1e-6, atol=4e-7)


@pytest.mark.parametrize(
    ("name", "limits"),
    [("erf", (-1, 1)), ("exp", (0, np.inf)), ("gelu", (np.nan, np.inf)), ("sigmoid", (0, 1))],
)
def test_functions_of_infinities(name: str, limits: tuple[float, float]) -> None:
    x = np.array([-np.inf, np.inf, np.nan, 0.0], np.float32)
    y = FUNCTIONS[name][0](x)
    np.testing.assert_allclose(y[:3], [*limits, np.nan], atol=1e-7)


@pytest.mark.parametrize("backward", [[False], [True], [False, True]])
@pytest.mark.parametrize(
    ("steps", "batch", "width", "units", "limit"),
    [
        (1, 1, 1, 1, 50), (5, 3, 4, LANES, 50), (9, 17, 7, LANES + 3, 0.4), (3, 2, 1, 2 * LANES, 9),
        (3, 1, 5, 5 * LANES, 50), (4, 2, 3, 3 * LANES, 50), (20, 18, 64, 128, 50),
    ],
)  # fmt: skip
def test_lstm(
    steps: int, batch: int, width: int, units: int, limit: float, backward: list[bool]
) -> None:
    directions = len(backward)
    inputs, recursions = (
        normal(directions, 4, units, n, seed=n) / np.float32(np.sqrt(n)) for n in (width, units)
    )
    biases = normal(directions, 4, units)
    x, before, cells = normal(steps, batch, width), *normal(2, directions, batch, units)
    y, last = PackedLSTM.of(inputs, recursions, biases)(
        x, before, cells, np.float32(limit), backward
    )
    assert y.shape == (steps, directions, batch, units)
    for d, back in enumerate(backward):
        state, cell = before[d].astype(np.float64), cells[d].astype(np.float64)
        for step, entry in enumerate(x[::-1] if back else x):
            i, f, o, z = (
                entry @ inputs[d, gate].T + state @ recursions[d, gate].T + biases[d, gate]
                for gate in range(4)
            )
            cell = np.clip(sigmoid(f) * cell + sigmoid(i) * np.tanh(z), -limit, limit)
            state = sigmoid(o) * np.tanh(cell)
            np.testing.assert_allclose(y[step, d], state, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(last[d], cell, rtol=1e-4, atol=1e-5)


@vectors.tile_of("x", "y")
def _exp(code: vectors.Instructions, args: Any) -> None:
    code.store(code.exp(code.load(args.x)), args.y)


@vectors.tile_of("x", "y")
def _tanh(code: vectors.Instructions, args: Any) -> None:
    code.store(code.tanh(code.load(args.x)), args.y)


@pytest.mark.parametrize(("name", "most"), [("exp", 2), ("tanh", 3)])
def test_functions_of_vectors(name: str, most: float) -> None:
    """Within some units of the last place, a subnormal number within one step."""
    tile = {"exp": _exp, "tanh": _tanh}[name]

    @numba.njit
    def over(x: np.ndarray, y: np.ndarray) -> None:
        for i in range(0, x.size, LANES):
            places = (vectors.address(x[i:]), vectors.address(y[i:]))
            tile(places, np.float32(0), np.float32(0))

    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-30, -1e-30, 88.7, -103.9, -87.4, 9.01, 20.0]
    x = np.concatenate([np.linspace(-110, 95, 1 << 16), np.linspace(-0.1, 0.1, 1 << 12), special])
    x = np.resize(x, -(-x.size // LANES) * LANES).astype(np.float32)
    y = np.empty_like(x)
    over(x, y)
    with np.errstate(over="ignore", under="ignore"):
        right = getattr(np, name)(x.astype(np.float64))
        single = right.astype(np.float32)
    space = np.spacing(np.abs(single[np.isfinite(single)]))
    error = np.abs(y[np.isfinite(single)] - right[np.isfinite(single)])
    assert (error <= most * space).all()
    np.testing.assert_array_equal(y[~np.isfinite(single)], single[~np.isfinite(single)])
