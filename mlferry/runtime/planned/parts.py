"""The parts of plans: convolutions, pooling, functions of each value, sums and concatenations.

`layers` maps the layers of a network to them, and `ops` the operations of a program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.compiled.transforms import transformed
from mlferry.numerics import half
from mlferry.runtime.planned import convolution as conv, transposed, winograd
from mlferry.runtime.planned.finish import Affine, Combination, Finish, Pointwise
from mlferry.runtime.planned.maps import Array, Border, borders_of
from mlferry.runtime.planned.plan import NotPlannedError, Part, Plan, PlannedStep, Shape
from mlferry.runtime.planned.pooling import pool
from mlferry.runtime.planned.products import Block, by_rows, shared_blocks

Pair = tuple[int, int]
Edges = Sequence[Pair]  # of height and width: before and behind

_ROWS = 60_000  # values that are worked on at a time


# ---- value by value --------------------------------------------------------------------


def _alone(plan: Plan, step: PlannedStep, finish: Finish) -> None:
    """A layer that follows nothing: it and what follows, some rows at a time."""
    finish, name = plan.finish(step, finish)
    x, y = plan.map(step.inputs[0]).inner, plan.map(name).inner
    if plan.compiled:
        from mlferry.compiled.tasks import Table
        from mlferry.runtime.planned.compiled_finish import following

        known = following(x, y, finish.steps)
        if known is not None:
            plan.add(Table(known))
            return
    height, width, channels = y.shape

    def block(top: int, number: int) -> conv.Run:
        return lambda: finish.from_map(x[top : top + number], y[top : top + number], top)

    even = shared_blocks(height, width, _ROWS // (width * channels))
    plan.add(by_rows(even, lambda: block))


class Valuewise(Part):
    """A function of each value, in any order of axes.

    Args:
        function: from its first argument, whose last axis are the channels, into the second.
    """

    in_place = True

    def __init__(self, function: Pointwise) -> None:
        super().__init__()
        self.function = function

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        finish = Finish()
        finish.steps.append(self.function)
        _alone(plan, step, finish)

    def follow(self, plan: Plan, name: str, step: PlannedStep, finish: Finish) -> bool:
        finish.steps.append(self.function)
        return True


class ByChannel(Part):
    """A factor and a shift for each channel.

    Args:
        affine: gives both for a number of channels; None unless there is one per channel.
    """

    in_place = True

    def __init__(self, affine: Callable[[int], tuple[Array, Array] | None]) -> None:
        super().__init__()
        self.affine = affine

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        vectors = self.affine(plan.size(step.inputs[0])[2])
        if vectors is None:
            raise NotPlannedError(str(step))
        finish = Finish()
        finish.steps.append(Affine(*vectors))
        _alone(plan, step, finish)

    def follow(self, plan: Plan, name: str, step: PlannedStep, finish: Finish) -> bool:
        """Fold it into weights and bias if it comes first; otherwise add a function."""
        vectors = self.affine(plan.size(name)[2])
        if vectors is None:
            return False
        factor, shift = vectors
        if finish.factor is None or finish.steps:
            finish.steps.append(Affine(factor, shift))
            return True
        finish.factor = finish.factor * factor
        finish.bias = shift if finish.bias is None else finish.bias * factor + shift
        finish.folded = (*finish.folded, str(step))
        return True


class InstanceNormalization(Part):
    """By mean and variance of each channel, by products with ones; then one pass.

    Args:
        gamma: gives the factors; likewise `beta` the shifts.
        beta: see `gamma`.
        epsilon: what is added to variances.
    """

    def __init__(
        self, gamma: Callable[[int], Array], beta: Callable[[int], Array], epsilon: float
    ) -> None:
        super().__init__()
        self.gamma, self.beta, self.epsilon = gamma, beta, np.float32(epsilon)

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        finish, name = plan.finish(step, Finish())
        x, y = plan.map(step.inputs[0]).inner, plan.map(name).inner
        height, width, channels = x.shape
        gamma, beta = self.gamma(channels), self.beta(channels)
        if plan.compiled:
            from mlferry.runtime.planned import compiled

            if compiled.takes_channels(x, y):
                arguments = x, gamma, beta, self.epsilon, y, finish
                plan.add(*compiled.instance_normalized(*arguments))
                return
        even = shared_blocks(height, width, _ROWS // (width * channels))
        pixels = even[0][1] * width
        ones = np.ones((1, pixels), np.float32)
        sums = np.zeros((len(even), channels), np.float32)  # of each block
        mean, factor, shift = (np.zeros(width * channels, np.float32) for _ in range(3))
        place = {top: index for index, (top, _) in enumerate(even)}

        def adding(of: Callable[[Array, Array], None]) -> conv.Run:
            """Sums of a function of the values."""

            def lane() -> Block:
                buffer = plan.work.take(even[0][1], width, channels)

                def block(top: int, number: int) -> conv.Run:
                    part, source = buffer[:number], x[top : top + number]
                    flat, total = part.reshape(-1, channels), sums[place[top] : place[top] + 1]

                    def run() -> None:
                        of(source, part)
                        np.matmul(ones[:, : number * width], flat, out=total)

                    return run

                return block

            return by_rows(even, lane)

        def average() -> Array:
            means: Array = (sums.sum(axis=0, dtype=np.float64) / (height * width)).astype(
                np.float32
            )
            return means

        def squares(source: Array, out: Array) -> None:
            np.subtract(source, mean[:channels], out=out)
            np.multiply(out, out, out=out)

        def lane() -> Block:
            buffer = plan.work.take(even[0][1], width, channels)

            def block(top: int, number: int) -> conv.Run:
                part, source, target = buffer[:number], x[top : top + number], y[top : top + number]
                rows = part.reshape(number, -1)

                def run() -> None:
                    np.copyto(part, source)
                    np.multiply(rows, factor, out=rows)
                    np.add(rows, shift, out=rows)
                    finish(part, target, top)

                return run

            return block

        add, add_squares, scale = adding(_copied), adding(squares), by_rows(even, lane)

        def run() -> None:
            add()
            mean[:] = np.tile(average(), width)
            add_squares()
            by_channel = gamma / np.sqrt(average() + self.epsilon)
            factor[:] = np.tile(by_channel, width)
            shift[:] = np.tile(beta - mean[:channels] * by_channel, width)
            scale()

        plan.add(run)


def _copied(source: Array, out: Array) -> None:
    np.copyto(out, source)


# ---- several inputs --------------------------------------------------------------------


class Joined(Part):
    """A function of maps that broadcast, two at a time.

    Args:
        combine: the function, as a ufunc.
        broadcasts: see `Part`.
    """

    def __init__(self, combine: np.ufunc, *, broadcasts: bool) -> None:
        super().__init__()
        self.combine = combine
        self.broadcasts = broadcasts  # type: ignore[misc]

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        finish, name = plan.finish(step, Finish())
        first, *others = [plan.map(blob).inner for blob in step.inputs]
        y = plan.map(name).inner
        height, width, channels = y.shape
        # those that broadcast along the height have one row for all
        maps = [np.broadcast_to(x, (height, *x.shape[1:])) for x in (first, *others)]
        if plan.compiled and others:
            from mlferry.compiled.tasks import Table
            from mlferry.runtime.planned.compiled_finish import following, joined

            whole = [np.broadcast_to(x, y.shape) for x in maps]
            known, after = joined(self.combine, whole, y), following(y, y, finish.steps)
            if known is not None and after is not None:
                plan.add(Table([*known, *after]))
                return

        def block(top: int, number: int) -> conv.Run:
            target = y[top : top + number]
            current, *rest = [x[top : top + number] for x in maps]

            def run() -> None:
                total = current
                for other in rest:
                    self.combine(total, other, out=target)
                    total = target
                finish(target, target, top)

            return run

        even = shared_blocks(height, width, _ROWS // (width * channels))
        plan.add(by_rows(even, lambda: block))

    def follow(self, plan: Plan, name: str, step: PlannedStep, finish: Finish) -> bool:
        """With one map of the same shape that is there already."""
        others = [other for other in step.inputs if other != name]
        if len(step.inputs) != 2 or len(others) != 1 or others[0] not in plan.made:
            return False
        if plan.shapes[others[0]] != plan.shapes[name]:
            return False
        swapped = step.inputs[0] != name
        finish.steps.append(Combination(self.combine, plan.map(others[0]).inner, swapped))
        return True


class Concatenation(Part):
    """A concatenation of channels: most parts are in their places already; others are copied."""

    joins = True

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        (whole,) = step.outputs
        target = plan.map(whole).inner
        start = 0
        for name in step.inputs:
            count = plan.size(name)[2]
            part, source = target[..., start : start + count], plan.map(name).inner
            if not np.shares_memory(part, source):
                plan.copy(part, source)
            start += count


# ---- windows ---------------------------------------------------------------------------


def _border_of(edges: Edges) -> Border:
    (above, below), (left, right) = edges
    return above, below, left, right


@dataclass(frozen=True)
class Filters:
    """The weights of a convolution, which are read when a plan needs them.

    Attributes:
        count: channels of the result.
        channels: channels that one filter reads.
        window: its extent, steps and spacing.
        groups: parts of the channels on their own.
        weights: gives [count, channels, kH, kW]; of a transposed convolution [C, count, kH, kW].
        bias: gives one value a channel, or None.
        stored: gives the weights as float16, where they stay so in memory, and are widened
            whenever they are used; None where they do not.
    """

    count: int
    channels: int
    window: conv.Window
    groups: int
    weights: Callable[[], Array]
    bias: Callable[[], Array | None]
    stored: Callable[[], NDArray[np.float16]] | None = None


class PlannedConvolution(Part):
    """A factor and a shift of the channels behind it go into the weights.

    Args:
        filters: its weights.
        edges: gives the padding for the shape of an input.
    """

    worth = True

    def __init__(self, filters: Filters, edges: Callable[[Shape], Edges]) -> None:
        super().__init__()
        self.filters, self.edges = filters, edges

    @property
    def _depthwise(self) -> bool:
        f = self.filters
        return f.groups > 1 and f.channels == 1 and f.groups == f.count

    @property
    def worth_alone(self) -> bool:
        f = self.filters
        return f.window.size != (1, 1) and (f.groups == 1 or f.channels == 1)

    def padding(self, plan: Plan, step: PlannedStep, shape: Shape) -> tuple[Border, float]:
        """Tiles of Winograd's may reach beyond the end."""
        above, below, left, right = _border_of(self.edges(shape))
        tile = self._tile(plan, step)
        if tile:
            height, width, _ = plan.size(step.outputs[0])
            below, right = below + -height % tile, right + -width % tile
        return (above, below, left, right), 0.0

    def _tile(self, plan: Plan, step: PlannedStep) -> int:
        f = self.filters
        if (
            f.stored is not None
            or not plan.winograd
            or f.window != conv.Window((3, 3), (1, 1), (1, 1))
            or f.groups > 1
        ):
            return 0
        height, width, count = plan.size(step.outputs[0])
        if plan.compiled:
            from mlferry.compiled.winograd import side_for

            return side_for(height, width, f.channels, count)
        return winograd.tile_for(height, width, f.channels, count)

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        f = self.filters
        (source,) = step.inputs
        one = np.ones(f.count, np.float32)
        finish, name = plan.finish(step, Finish(factor=one, bias=f.bias()))
        border, fill = self.padding(plan, step, plan.shapes[source])
        x, y = plan.padded(source, border, fill), plan.map(name).inner

        def weights() -> Array:
            stored = f.weights()
            if not finish.folded or finish.factor is None:
                return stored
            return stored * finish.factor[:, None, None, None]

        def once(purpose: str, make: Callable[[], Any]) -> Any:
            return self.once(f"{purpose} with {finish.folded}", make)

        tile = self._tile(plan, step)
        if plan.compiled and tile:
            from mlferry.compiled.winograd import PackedTiles
            from mlferry.runtime.planned import compiled_winograd

            tiles = once(f"packed tiles of {tile}", lambda: PackedTiles.of(weights(), tile))
            plan.add(compiled_winograd.convolved(x, tiles, y, finish))
            return
        if plan.compiled and self._add_compiled(plan, x, weights, once, y, finish):
            return
        if self._depthwise:
            taps = once("taps", lambda: _taps(weights()))
            plan.add(conv.depthwise(x, taps, f.window, y, finish, plan.work))
            return
        if f.stored is not None and f.groups == 1:
            self._add_widened(plan, f.stored, x, y, finish)
            return
        if tile:
            spread = once(f"tiles of {tile}", lambda: transformed(weights(), tile))
            plan.add(winograd.convolved(x, spread, tile, y, finish, plan.work))
            return
        matrices = once("matrices", lambda: _matrices(weights(), f.groups))
        if len(matrices) > 1:
            plan.add(*conv.grouped(x, matrices, f.window, y, finish, _convolving(plan)))
            return
        plan.add(self._product(plan, x, matrices[0], y, finish))

    def _add_compiled(
        self,
        plan: Plan,
        x: Array,
        weights: Callable[[], Array],
        once: Callable[[str, Callable[[], Any]], Any],
        y: Array,
        finish: Finish,
    ) -> bool:
        """Add the compiled convolution, unless it takes no such weights."""
        from mlferry.compiled.matrices import packed_for_windows
        from mlferry.runtime.planned import compiled

        f = self.filters
        if self._depthwise and compiled.takes_windows(f.count):
            taps = once("taps", lambda: _taps(weights()))
            plan.add(compiled.depthwise(x, taps, f.window, y, finish))
            return True
        if f.groups > 1 or f.stored is not None:
            return False
        packed = once("packed", lambda: packed_for_windows(_matrices(weights(), 1)[0], f.channels))
        plan.add(compiled.convolved(x, packed, f.window, y, finish))
        return True

    def _product(self, plan: Plan, x: Array, matrix: Array, y: Array, finish: Finish) -> conv.Run:
        window = self.filters.window
        run = None
        if window.size == (1, 1) and window.stride == (1, 1):
            run = conv.pointwise(x, matrix, y, finish, plan.work)
        return run or conv.unfolded(x, matrix, window, y, finish, plan.work)

    def _add_widened(
        self, plan: Plan, load_weights: Callable[[], Any], x: Array, y: Array, finish: Finish
    ) -> None:
        """The product with weights that are widened into memory of all steps, in each run."""
        narrow: Any = self.once("narrow matrices", lambda: _matrices(load_weights(), 1)[0])
        matrix = plan.work.take(*narrow.shape)
        factor = finish.factor if finish.folded else None
        multiply = self._product(plan, x, matrix, y, finish)

        def run() -> None:
            half.widen_into(narrow, matrix)
            if factor is not None:
                np.multiply(matrix, factor, out=matrix)
            multiply()

        plan.add(run)


def _taps(weights: Array) -> Array:
    """[C, 1, kH, kW] as [kH, kW, C]."""
    return np.ascontiguousarray(weights[:, 0].transpose(1, 2, 0))


def _matrices(weights: Array, groups: int) -> list[Array]:
    """[kH * kW * C, M] of every group."""
    count = weights.shape[0] // groups
    return [
        np.ascontiguousarray(
            weights[g * count : (g + 1) * count].transpose(2, 3, 1, 0).reshape(-1, count)
        )
        for g in range(groups)
    ]


def _convolving(plan: Plan) -> conv.Convolve:
    """What computes a convolution with a matrix [kH * kW * C, M]."""
    if plan.compiled:
        from mlferry.compiled.matrices import packed_for_windows
        from mlferry.runtime.planned import compiled

        return lambda x, matrix, window, y, finish: compiled.convolved(
            x, packed_for_windows(matrix, x.shape[2]), window, y, finish
        )

    def unfolded(
        x: Array, matrix: Array, window: conv.Window, y: Array, finish: Finish
    ) -> conv.Run:
        plan.work.restart()
        return conv.unfolded(x, matrix, window, y, finish, plan.work)

    return unfolded


class Transposed(Part):
    """A transposed convolution.

    Args:
        filters: its weights.
        cuts: how much of the full result is cut off above and to the left, for the full extents
            and those of the result.
    """

    worth = True

    def __init__(self, filters: Filters, cuts: Callable[[Pair, Pair], Pair]) -> None:
        super().__init__()
        self.filters, self.cuts = filters, cuts

    @property
    def worth_alone(self) -> bool:
        return self.filters.window.size != (1, 1)

    def padding(self, plan: Plan, step: PlannedStep, shape: Shape) -> tuple[Border, float]:
        tall, wide = self._phases(plan, step)
        return (*transposed.border(tall, shape[2]), *transposed.border(wide, shape[3])), 0.0

    def _phases(
        self, plan: Plan, step: PlannedStep
    ) -> tuple[list[transposed.Phase], list[transposed.Phase]]:
        (height, width, _), result = plan.size(step.inputs[0]), plan.size(step.outputs[0])
        kernel, stride = self.filters.window.size, self.filters.window.stride
        full = ((height - 1) * stride[0] + kernel[0], (width - 1) * stride[1] + kernel[1])
        above, left = self.cuts(full, result[:2])
        return (
            transposed.phases(kernel[0], stride[0], above, result[0]),
            transposed.phases(kernel[1], stride[1], left, result[1]),
        )

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        f = self.filters
        (source,) = step.inputs
        finish, name = plan.finish(step, Finish(bias=f.bias()))
        around, fill = self.padding(plan, step, plan.shapes[source])
        x, y = plan.padded(source, around, fill), plan.map(name).inner
        axes, corner = self._phases(plan, step), (around[0], around[2])
        stride = f.window.stride
        plan.add(
            *transposed.transposed(
                x, f.weights(), axes, stride, corner, y, finish, _convolving(plan)
            )
        )


class Pooling(Part):
    """The largest or the mean value of windows.

    Args:
        window: the kernel.
        edges: gives the padding for the shape of an input.
        divisor: gives how many values each window has, [H, W]; None for the largest.
    """

    worth = True

    def __init__(
        self,
        window: conv.Window,
        edges: Callable[[Shape], Edges],
        divisor: Callable[[Shape], Array] | None,
    ) -> None:
        super().__init__()
        self.window, self.edges, self.divisor = window, edges, divisor

    def padding(self, plan: Plan, step: PlannedStep, shape: Shape) -> tuple[Border, float]:
        return _border_of(self.edges(shape)), 0.0 if self.divisor else -np.inf

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        (source,) = step.inputs
        border, fill = self.padding(plan, step, plan.shapes[source])
        finish, name = plan.finish(step, Finish())
        combine: Any = np.add if self.divisor else np.maximum
        counts = None if self.divisor is None else self.divisor(plan.shapes[source])[..., None]
        x, y = plan.padded(source, border, fill), plan.map(name).inner
        if plan.compiled:
            from mlferry.runtime.planned import compiled

            if compiled.takes_windows(y.shape[2]):
                plan.add(compiled.pool(x, self.window, y, finish, counts))
                return
        plan.add(pool(x, self.window, y, finish, combine, counts, plan.work))


class OverSpace(Part):
    """One value for all of a channel.

    Args:
        reduce: `numpy.max`, `numpy.mean` or `numpy.sum`.
        worth: see `Part`.
    """

    def __init__(self, reduce: Callable[..., Any], *, worth: bool = False) -> None:
        super().__init__()
        self.reduce = reduce
        self.worth = worth  # type: ignore[misc]

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        finish, name = plan.finish(step, Finish())
        x, y = plan.map(step.inputs[0]).inner, plan.map(name).inner
        if plan.compiled:
            from mlferry.runtime.planned import compiled

            if compiled.takes_windows(y.shape[2]):
                count = x.shape[0] * x.shape[1] if self.reduce is np.mean else 1
                largest = self.reduce is np.max
                plan.add(*compiled.over_space(x, y, finish, largest=largest, divisor=count))
                return

        def run() -> None:
            y[0, 0] = self.reduce(x, axis=(0, 1))
            finish(y, y, 0)

        plan.add(run)


class Repeated(Part):
    """Each pixel repeated.

    Args:
        factors: of height and width.
    """

    def __init__(self, factors: Pair) -> None:
        super().__init__()
        self.factors = factors

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        down, across = self.factors
        (source,), (name,) = step.inputs, step.outputs
        height, width, channels = plan.size(source)
        x, y = plan.map(source).inner, plan.map(name).inner
        if plan.compiled:
            for i, j in np.ndindex(down, across):
                plan.copy(y[i::down, j::across], x)
            return
        target = np.lib.stride_tricks.as_strided(
            y,
            (height, down, width, across, channels),
            (y.strides[0] * down, y.strides[0], y.strides[1] * across, y.strides[1], y.strides[2]),
        )
        plan.add(lambda: np.copyto(target, x[:, None, :, None]))


class Padded(Part):
    """A border of one value around a map.

    Args:
        edges: how much.
        value: of what.
    """

    def __init__(self, edges: Edges, value: float) -> None:
        super().__init__()
        self.edges, self.value = edges, value

    def plan(self, plan: Plan, step: PlannedStep) -> None:
        (above, _), (left, _) = self.edges
        x, y = plan.map(step.inputs[0]).inner, plan.map(step.outputs[0]).inner
        height, width, _ = x.shape
        plan.fill(borders_of(y, (above, left), (height, width)), self.value)
        plan.copy(y[above : above + height, left : left + width], x)
