"""Convolutions and pooling of maps by the kernels that Numba compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mlferry.compiled import arrays, vectors, windows
from mlferry.compiled.matrices import PANEL, PackedWeights
from mlferry.compiled.tasks import MapTask, Table, columns_evenly, evenly, shares_of
from mlferry.errors import PredictionError
from mlferry.runtime.planned.compiled_finish import following
from mlferry.runtime.planned.convolution import Run, Window
from mlferry.runtime.planned.finish import Finish
from mlferry.runtime.planned.maps import Array, rows_of
from mlferry.runtime.planned.products import by_rows, shared_blocks
from mlferry.runtime.threads import lane_count

_PIXEL = Window((1, 1), (1, 1), (1, 1))
_CACHE = 500_000  # bytes of input and result that are worked on at a time


@dataclass(frozen=True)
class _Kernel:
    """How a task of a kernel is cut into smaller ones.

    Attributes:
        window: its extent, steps and spacing.
        inner: multiplications for each result.
        columns: gives a task for some columns of the result.
        panel: the fewest columns of a task.
        in_tiles: makes a task ready to run.
    """

    window: Window
    inner: int
    columns: Callable[[MapTask, slice], MapTask]
    panel: int
    in_tiles: Callable[[MapTask], MapTask]

    def rows(self, task: MapTask, rows: slice) -> MapTask:
        """The task for some rows of the result."""
        addends = None if task.addends is None else task.addends[rows]
        start = rows.start * self.window.stride[0]
        return replace(task, x=task.x[start:], y=task.y[rows], addends=addends)

    def cut(self, whole: MapTask) -> Table:
        """Tasks of even size: of rows of the result, or of columns where weights are larger."""
        height, width, count = whole.y.shape
        line = 4 * width * (whole.x.shape[2] + count)  # bytes
        work = height * width * count * self.inner
        shares, lanes = shares_of(work), lane_count(work)
        if 4 * self.inner * count > height * line or height < shares:
            tasks = self.by_columns(whole, shares, lanes)
        else:
            number = max(-(-height * line // _CACHE), shares)
            tasks = [self.rows(whole, part) for part in evenly(height, number + -number % lanes)]
        return Table([[self.in_tiles(task) for task in tasks]])

    def by_columns(self, whole: MapTask, shares: int, lanes: int) -> list[MapTask]:
        """Tasks of columns; those that two threads would share are cut by rows, too.

        Args:
            whole: what they do together.
            shares: how many are worth it.
            lanes: how many threads share them.
        """
        height, _, count = whole.y.shape
        places = columns_evenly(count, shares, self.panel)
        ends = [len(places) * lane / lanes for lane in range(1, lanes)]
        tasks: list[MapTask] = []
        for number, place in enumerate(places):
            part = self.columns(whole, place)
            cuts = [round(height * (end - number)) for end in ends if number < end < number + 1]
            tasks += [
                self.rows(part, slice(top, end))
                for top, end in pairwise([0, *cuts, height])
                if top < end
            ]
        return tasks

    def finished(self, whole: MapTask, rest: Finish) -> Run:
        """The same, and what follows; Python does what compiled code does not know."""
        known = following(whole.y, whole.y, rest.steps)
        if known is not None:
            return Table([*self.cut(whole).steps, *known])
        return self.then(whole, lambda rows, top: rest(rows, rows, top))

    def then(self, whole: MapTask, rest: Callable[[Array, int], None]) -> Run:
        """Tasks of rows, and what Python does to each when it is computed."""
        height, width, count = whole.y.shape

        def block(top: int, number: int) -> Run:
            part = self.rows(whole, slice(top, top + number))
            table = Table([[self.in_tiles(part)]])

            def run() -> None:
                table()
                rest(part.y, top)

            return run

        held = _CACHE // (4 * width * (whole.x.shape[2] + count))
        return by_rows(shared_blocks(height, width, held), lambda: block)


def convolved(x: Array, weights: PackedWeights, window: Window, y: Array, finish: Finish) -> Run:
    """A convolution of any kernel.

    Args:
        x: [H, W, C], its border included.
        weights: [kH * kW * C, M].
        window: the kernel.
        y: [H', W', M].
        finish: what follows.
    """
    windows.check_reach(x, window.size, window.stride, window.dilation, y)
    offsets, run = windows.segments_of(x, window.size, window.dilation)
    inner = offsets.size * run
    weights.check(inner, y.shape[2], run)
    ends, rest = finish.split_for_tiles()
    whole = MapTask(
        windows.convolve, y, x, _steps(x, window), offsets, run, weights.values, 0,
        weights.padded(finish.bias), ends.addend, ends.rounds, ends.limits.least, ends.limits.most,
        function=weights.function,
    )  # fmt: skip

    def in_tiles(task: MapTask) -> MapTask:
        task = _flat(task) if window.size == window.stride == (1, 1) else task
        height, width, _ = task.y.shape
        return replace(task, tile=weights.tile_for(width, height))

    kernel = _Kernel(window, inner, _columns_of_product, PANEL, in_tiles)
    return kernel.finished(whole, rest)


def _steps(x: Array, window: Window) -> tuple[int, int]:
    return window.stride[0] * x.strides[0], window.stride[1] * x.strides[1]


def _flat(task: MapTask) -> MapTask:
    """A product of single pixels: where they lie evenly, they are one row."""
    height, width, _ = task.y.shape
    maps = [task.x[:height, :width], task.y, task.y if task.addends is None else task.addends]
    rows = [flat[None] for flat in map(rows_of, maps) if flat is not None]
    if len(rows) < len(maps):
        return task
    x, y, addends = rows
    given = None if task.addends is None else addends
    return replace(task, x=x, y=y, addends=given, steps=(x.strides[0], x.strides[1]))


def _columns_of_product(task: MapTask, place: slice) -> MapTask:
    assert task.weights is not None
    assert task.bias is not None
    return replace(
        task,
        y=task.y[..., place],
        addends=None if task.addends is None else task.addends[..., place],
        weights=task.weights[task.offsets.size * task.run * place.start :],
        bias=task.bias[place.start :],
    )


def depthwise(x: Array, weights: Array, window: Window, y: Array, finish: Finish) -> Run:
    """One kernel a channel, [kH, kW, C], of at least as many channels as a vector has lanes."""
    channels = y.shape[2]
    bias = np.zeros(channels, np.float32) if finish.bias is None else finish.bias
    matrix = np.ascontiguousarray(weights.reshape(-1, channels))
    return _windows(windows.WEIGHTED, x, window, matrix, bias, y, finish, None)


def pool(x: Array, window: Window, y: Array, finish: Finish, divisor: Array | None) -> Run:
    """The largest value of windows, or with a divisor, [H', W', 1], their mean."""
    channels = y.shape[2]
    function = windows.LARGEST if divisor is None else windows.SUM
    nothing = np.zeros(channels, np.float32)
    return _windows(function, x, window, nothing[None], nothing, y, finish, divisor)


def over_space(
    x: Array, y: Array, finish: Finish, *, largest: bool = False, divisor: int = 1
) -> Sequence[Run]:
    """The largest value, or a part of the sum, of each channel of a map [H, W, C], in some steps.

    Args:
        x: the map.
        y: [1, 1, C].
        finish: what follows.
        largest: whether it is the largest value.
        divisor: of the sum.
    """
    height, width, channels = x.shape
    nothing = np.zeros(channels, np.float32)
    window = Window((height, width), (1, 1), (1, 1))
    if largest or divisor == 1:
        function = windows.LARGEST if largest else windows.SUM
        return [_windows(function, x, window, nothing[None], nothing, y, finish, None)]
    factor = np.full((1, channels), 1 / divisor, np.float32)
    total = np.empty((1, 1, channels), np.float32)  # not `y`: the last vectors may be written twice
    return [
        _windows(windows.SUM, x, window, nothing[None], nothing, total, Finish(), None),
        _windows(windows.SCALED, total, _PIXEL, factor, nothing, y, finish, None),
    ]


def instance_normalized(
    x: Array, gamma: Array, beta: Array, epsilon: np.float32, y: Array, finish: Finish
) -> Sequence[Run]:
    """Each channel with mean 0 and variance 1, times a factor and plus a shift, in several steps.

    Args:
        x: [H, W, C]; see `takes_channels`.
        gamma: the factors, [C].
        beta: the shifts, [C].
        epsilon: what is added to variances.
        y: [H, W, C].
        finish: what follows.
    """
    together = _pixels_together(x, y)
    wide_x, wide_y = (_in_wider_pixels(z, together) for z in (x, y))
    height, width, columns = wide_x.shape
    lines = np.empty((height, 2, columns), np.float32)
    ends = np.empty((2, columns), np.float32)
    if gamma.shape != (x.shape[2],) or beta.shape != gamma.shape:
        raise PredictionError(f"{gamma.shape} factors and {beta.shape} shifts for {x.shape}")
    gamma, beta = (np.ascontiguousarray(z, np.float32) for z in (gamma, beta))
    runs: list[Run] = [
        Table(
            [
                arrays.described(wide_x, lines),
                arrays.factors(lines, width, gamma, beta, float(epsilon), ends),
            ]
        )
    ]

    def scaled(finish: Finish) -> Run:
        return _windows(windows.SCALED, wide_x, _PIXEL, ends[:1], ends[1], wide_y, finish, None)

    if together == 1:
        return [*runs, scaled(finish)]

    known = following(y, y, finish.steps)
    if known is not None:
        return [*runs, scaled(Finish()), Table(known)]

    def block(top: int, number: int) -> Run:
        rows = y[top : top + number]
        return lambda: finish.from_map(rows, rows, top)

    even = shared_blocks(height, y.shape[1], _CACHE // (4 * width * columns))
    return [*runs, scaled(Finish()), by_rows(even, lambda: block)]


def takes_channels(x: Array, y: Array) -> bool:
    """Whether `instance_normalized` takes such maps: with many channels, or with even lines."""
    return _pixels_together(x, y) > 0


def _pixels_together(x: Array, y: Array) -> int:
    """How many pixels of a line fill a vector; 0 where these do not lie side by side."""
    _, width, channels = x.shape
    if channels >= vectors.LANES:
        return 1
    if any(z.strides[1] != channels * vectors.BYTES for z in (x, y)):
        return 0
    divisors = (n for n in range(2, width + 1) if width % n == 0)
    return next((n for n in divisors if n * channels >= vectors.LANES), 0)


def _in_wider_pixels(x: Array, together: int) -> Array:
    """A map [H, W, C] as one of [H, W / n, n * C]."""
    height, width, channels = x.shape
    down, across, value = x.strides
    return np.lib.stride_tricks.as_strided(
        x, (height, width // together, together * channels), (down, together * across, value)
    )


def takes_windows(channels: int) -> bool:
    """Whether `depthwise` and `pool` take maps with so many channels."""
    return channels >= vectors.LANES


def _windows(
    function: int,
    x: Array,
    window: Window,
    weights: Array,
    bias: Array,
    y: Array,
    finish: Finish,
    divisor: Array | None,
) -> Run:
    ends, rest = finish.split_for_tiles()
    adds = ends.addend is not None and function != windows.SCALED
    if adds or divisor is not None:
        ends, rest = type(ends)(), Finish(steps=finish.steps)
    windows.check_reach(x, window.size, window.stride, window.dilation, y)
    offsets = windows.pixels_of(x, window.size, window.dilation).ravel()
    step = weights.strides[0] if function == windows.WEIGHTED else 0
    whole = MapTask(
        windows.reduce_windows, y, x, _steps(x, window), offsets, 1, weights, step, bias,
        ends.addend, ends.rounds, least=ends.limits.least, most=ends.limits.most, function=function,
    )  # fmt: skip

    def in_tiles(task: MapTask) -> MapTask:
        height, width, _ = task.y.shape
        return replace(task, tile=vectors.window_tile_for(width, height))

    kernel = _Kernel(window, 4 * offsets.size, _columns_of_windows, vectors.LANES, in_tiles)
    if divisor is None:
        return kernel.finished(whole, rest)

    def finished(rows: Array, top: int) -> None:
        np.divide(rows, divisor[top : top + len(rows)], out=rows)
        rest(rows, rows, top)

    return kernel.then(whole, finished)


def _columns_of_windows(task: MapTask, place: slice) -> MapTask:
    assert task.weights is not None
    assert task.bias is not None
    return replace(
        task,
        x=task.x[..., place],
        y=task.y[..., place],
        addends=None if task.addends is None else task.addends[..., place],
        weights=task.weights[:, place],
        bias=task.bias[place],
    )
