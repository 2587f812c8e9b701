"""The parts of plans on arrays.

`layers` maps the layers of a network to them, and `ops` the operations of a program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from mlferry.compiled import PACKED_MOST, arrays as tasks, packs_once
from mlferry.compiled.lstm import PackedLSTM
from mlferry.compiled.matrices import PackedMatrix
from mlferry.compiled.products import PackedProduct
from mlferry.runtime.planned.arrays.plan import ArrayPart, ArrayPlan, ArrayStep, Kernel
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.plan import NotPlannedError

_MOST_MATRICES = 128  # of a batch of products
FEW = 1 << 12  # values of a constant, which may be read in each run, or held twice
_INFINITE = np.float32(np.inf)
Constant = Callable[[], Array]
_ZERO = np.zeros(1, np.float32)


class Reshaped(ArrayPart):
    """The same values in the same order, in another shape."""

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        source, (name,) = step.inputs[0], step.outputs
        plan.place(name, plan.reshaped(source, plan.shapes[name]), source)


class Viewed(ArrayPart):
    """The same values looked at in another way, such as another order of axes, or some of them.

    Args:
        views: gives a view of an array for each output. Where it copies, it runs like a kernel.
    """

    def __init__(self, views: Callable[[Array], Sequence[Array]]) -> None:
        self.views = views

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        source = step.inputs[0]
        x = plan.array(source)
        views = self.views(x)
        if not all(np.may_share_memory(view, x) for view in views):
            plan.evaluate(step, self.views)
            return
        for name, view in zip(step.outputs, views, strict=False):
            if view.shape != plan.shapes[name]:
                raise NotPlannedError(f"{step} makes {view.shape}, not {plan.shapes[name]}")
            plan.place(name, view, source)


class DenseProduct(ArrayPart):
    """A product with stored weights, and a bias.

    Args:
        packed: gives them.
        inner: how many values of an input, the last ones, are a row.
    """

    worth = 1

    def __init__(self, packed: Callable[[], PackedProduct], inner: int) -> None:
        self.packed, self.inner = packed, inner

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        product = self.packed()
        ends, name = plan.ends(step)
        x, y = plan.whole(step.inputs[0]), plan.new(name)
        rows, results = x.reshape(-1, self.inner), y.reshape(-1, product.weights.columns)
        read = [x]
        if ends.addends is not None:
            read.append(ends.addends)
            ends = replace(ends, addends=ends.addends.reshape(results.shape))
        step_tasks = tasks.product(rows, product.weights, product.bias, results, ends)
        plan.add(step_tasks, read, [y])


class MatrixProduct(ArrayPart):
    """A product of two matrices, or of as many as the axes before them have.

    Args:
        transposed: whether the last two axes of each operand change places.
        kernel: of the operands, for vectors and few rows.
        constants: give the operands that are the same in every run.
    """

    worth = 1

    def __init__(
        self,
        transposed: tuple[bool, bool],
        kernel: Kernel,
        constants: tuple[Constant | None, Constant | None] = (None, None),
    ) -> None:
        self.transposed, self.kernel, self.constants = transposed, kernel, constants
        self._kept: list[PackedMatrix] | None = None

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        names = iter(step.inputs)
        operands = [plan.array(next(names)) if x is None else x() for x in self.constants]
        outer = plan.shapes[step.outputs[0]][:-2]
        left, right = (
            x.swapaxes(-1, -2) if back and x.ndim > 1 else x
            for x, back in zip(operands, self.transposed, strict=True)
        )
        if not packs_once(left, right):
            self._evaluate(plan, step, operands)
            return
        if math.prod(outer) > _MOST_MATRICES:
            raise NotPlannedError(f"{step} multiplies {math.prod(outer)} matrices")
        ends, name = plan.ends(step)
        is_constant = self.constants[1] is not None or step.inputs[-1] in plan.constants
        if left.shape[-1] > 1 and left.strides[-1] != left.itemsize:
            copy = plan.scratch(*left.shape)
            plan.add(tasks.moved(left, copy), [left], [copy])
            left = copy
        y = plan.new(name)
        packed = self._packed(plan, right, is_constant)
        nothing = packed[0].padded(None)
        lefts = np.broadcast_to(left, (*outer, *left.shape[-2:]))
        places = np.broadcast_to(
            np.arange(len(packed)).reshape(right.shape[:-2]), outer
        )  # of each matrix on the right
        step_tasks = []
        for place in np.ndindex(*outer):
            each = ends
            if ends.addends is not None:
                each = replace(ends, addends=ends.addends[place])
            matrix = packed[places[place]]
            step_tasks += tasks.product(lefts[place], matrix, nothing, y[place], each)
        read = [left, *(matrix.values for matrix in packed)]
        plan.add(step_tasks, [*read, *([] if ends.addends is None else [ends.addends])], [y])

    def _evaluate(self, plan: ArrayPlan, step: ArrayStep, operands: Sequence[Array]) -> None:
        """Vectors, or few rows, by the kernel, unless it takes long."""
        fixed = [x.size for x, of in zip(operands, self.constants, strict=True) if of is not None]
        if max(fixed, default=0) > FEW or max(x.size for x in operands) > PACKED_MOST:
            raise NotPlannedError(f"{step} multiplies {[x.shape for x in operands]}")
        plan.evaluate(step, self.kernel)

    def _packed(self, plan: ArrayPlan, right: Array, is_constant: bool) -> list[PackedMatrix]:
        """The matrices on the right, packed once for all plans, or in each run."""
        matrices = [right[place] for place in np.ndindex(*right.shape[:-2])]
        if is_constant:
            if self._kept is None:
                self._kept = [PackedMatrix.of(matrix) for matrix in matrices]
            return self._kept
        size = PackedMatrix.size(*right.shape[-2:])
        memory = plan.scratch(len(matrices), size)
        packed = [PackedMatrix(values, *right.shape[-2:]) for values in memory]
        moves = [
            task
            for matrix, target in zip(matrices, packed, strict=True)
            for task in tasks.packed(matrix, target)
        ]
        plan.add(moves, [right], [memory])
        return packed


class Normalized(ArrayPart):
    """Mean 0 and variance 1 over the last axes, times factors and plus shifts.

    Args:
        gamma: gives the factors, in the shape of the axes.
        beta: gives the shifts, likewise.
        epsilon: what is added to variances.
    """

    worth = 1

    def __init__(
        self, gamma: Callable[[], Array], beta: Callable[[], Array], epsilon: float
    ) -> None:
        self.gamma, self.beta, self.epsilon = gamma, beta, epsilon

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        gamma, beta = (
            np.ascontiguousarray(values(), np.float32).reshape(-1)
            for values in (self.gamma, self.beta)
        )
        x, y = plan.whole(step.inputs[0]), plan.new(step.outputs[0])
        rows, results = x.reshape(-1, gamma.size), y.reshape(-1, gamma.size)
        plan.add(tasks.normalized(rows, gamma, beta, self.epsilon, results), [x], [y])
        plan.round(step, y)


class Softmax(ArrayPart):
    """e**x over its sum along an axis.

    Args:
        axis: which one.
        kernel: of the input, for an axis behind which others follow.
    """

    worth = 1

    def __init__(self, axis: int, kernel: Kernel) -> None:
        self.axis, self.kernel = axis, kernel

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        shape = plan.shapes[step.inputs[0]]
        columns = shape[self.axis]
        if math.prod(shape[self.axis % len(shape) :]) > columns:
            plan.evaluate(step, self.kernel)
            return
        x, y = plan.whole(step.inputs[0]), plan.new(step.outputs[0])
        plan.add(tasks.softmax(x.reshape(-1, columns), y.reshape(-1, columns)), [x], [y])
        plan.round(step, y)


class ValueFunction(ArrayPart):
    """A function of each value, then limits.

    Args:
        name: one of `mlferry.compiled.functions.PLACES`.
        least: of the results.
        most: of the results.
    """

    def __init__(
        self, name: str, least: np.float32 = -_INFINITE, most: np.float32 = _INFINITE
    ) -> None:
        self.name, self.least, self.most = name, least, most
        with np.errstate(over="ignore"):
            is_half = all(np.float32(np.float16(bound)) == bound for bound in (least, most))
        self.exact = name == "identity" and is_half

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        x, y = plan.whole(step.inputs[0]), plan.new(step.outputs[0])
        plan.add(tasks.applied(self.name, x, y, self.least, self.most), [x], [y])
        plan.round(step, y)

    def end(
        self, plan: ArrayPlan, name: str, step: ArrayStep, ends: tasks.Ends
    ) -> tasks.Ends | None:
        """Limits alone, if nothing is limited yet."""
        if self.name != "identity" or (ends.least, ends.most) != (-_INFINITE, _INFINITE):
            return None
        return replace(ends, least=self.least, most=self.most)


class Linear(ArrayPart):
    """alpha * x + beta."""

    def __init__(self, alpha: float, beta: float) -> None:
        self.alpha, self.beta = np.full(1, alpha, np.float32), np.full(1, beta, np.float32)

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        shape = plan.shapes[step.outputs[0]]
        x, y = plan.even(step.inputs[0], shape), plan.new(step.outputs[0])
        alpha, beta = (np.broadcast_to(each, shape) for each in (self.alpha, self.beta))
        plan.add(tasks.combined("multiply", x, alpha, y, tasks.Ends()), [x], [y])
        plan.add(tasks.combined("add", y, beta, y, tasks.Ends(rounds=step.rounds)), [y], [y])


class Combined(ArrayPart):
    """A function of arrays that broadcast, two at a time.

    Args:
        name: one of `mlferry.compiled.arithmetic.PLACES`.
        numbers: constant operands: what is on the left of all inputs, and what is on the right.
    """

    def __init__(
        self, name: str, numbers: tuple[Array | None, Array | None] = (None, None)
    ) -> None:
        self.name, self.numbers = name, numbers

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        shape = plan.shapes[step.outputs[0]]
        before, after = ([] if x is None else [np.broadcast_to(x, shape)] for x in self.numbers)
        operands = [*before, *(plan.even(name, shape) for name in step.inputs), *after]
        y = plan.new(step.outputs[0])
        if len(operands) == 1:
            plan.add(tasks.moved(operands[0], y), operands, [y])
        total = operands[0]
        for other in operands[1:]:
            ends = tasks.Ends(rounds=step.rounds)
            step_tasks = tasks.combined(self.name, total, other, y, ends)
            plan.add(step_tasks, [total, other], [y])
            total = y

    def end(
        self, plan: ArrayPlan, name: str, step: ArrayStep, ends: tasks.Ends
    ) -> tasks.Ends | None:
        """A sum with one array of the same shape that is there already, if it comes first."""
        is_sum = self.name == "add" and all(number is None for number in self.numbers)
        if not is_sum or ends.addends is not None:
            return None
        if (ends.least, ends.most) != (-_INFINITE, _INFINITE):
            return None
        other = plan.added(name, step)
        return None if other is None else replace(ends, addends=other)


class Gathered(ArrayPart):
    """Entries of an array along an axis, by their indices, the second input.

    Args:
        axis: which one.
        kernel: of the inputs, for other axes than the first.
    """

    def __init__(self, axis: int, kernel: Kernel) -> None:
        self.axis, self.kernel = axis, kernel

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        source, places = step.inputs
        if self.axis not in (0, -len(plan.shapes[source])):
            plan.evaluate(step, self.kernel)
            return
        x, indices, y = plan.whole(source), plan.whole(places), plan.new(step.outputs[0])
        rows, results = x.reshape(len(x), -1), y.reshape(indices.size, -1)
        made = tasks.gathered(rows, indices.reshape(-1), results, plan.wrong)
        plan.add(made, [x, indices], [y])
        plan.round(step, y)


Moves = Sequence[tuple[Array, Array]]  # from the first of each pair to the second


class LongShortTermMemory(ArrayPart):
    """A long short-term memory in one or both directions.

    Args:
        packed: gives its weights.
        limit: of the magnitude of a cell.
        backward: whether each direction walks from the end. With two directions, the output of
            either is in the order of the input, with one in the order of the walk.
        sequence: whether the output has all steps, not only the last one.
        entering: tells what is moved from further inputs to the first states and cells,
            [directions, Batch, units] each; others are zeros.
        leaving: tells what is moved from the last states and cells to further outputs.
    """

    worth = 3

    def __init__(
        self,
        packed: Callable[[], PackedLSTM],
        limit: np.float32,
        backward: Sequence[bool],
        *,
        sequence: bool,
        entering: Callable[[Sequence[Array], Array, Array], Moves],
        leaving: Callable[[Array, Array, Sequence[Array]], Moves],
    ) -> None:
        self.packed, self.limit, self.backward = packed, limit, backward
        self.sequence, self.entering, self.leaving = sequence, entering, leaving

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        lstm = self.packed()
        x = plan.whole(step.inputs[0])
        length, batch = x.shape[:2]
        rows = x.reshape(length * batch, -1)
        entries = []
        for product in lstm.inputs:
            target = plan.scratch(length * batch, product.weights.columns)
            made = tasks.product(rows, product.weights, product.bias, target, tasks.Ends())
            plan.add(made, [x], [target])
            entries.append(target.reshape(length, batch, -1))
        memory = plan.scratch(*lstm.memory(length, batch))
        before, cell, outputs = lstm.parts_of(memory)
        plan.add(tasks.moved(_ZERO, before) + tasks.moved(_ZERO, cell), [], [memory])
        given = [plan.array(name) for name in step.inputs[1:]]
        self._move(plan, self.entering(given, before[..., : lstm.units], cell[..., : lstm.units]))
        walks = lstm.walks(entries, before, cell, self.limit, self.backward, outputs)
        plan.add(walks, [*entries, memory], [memory])
        self._show(plan, step, outputs[..., : lstm.units], cell[..., : lstm.units])

    def _show(self, plan: ArrayPlan, step: ArrayStep, outputs: Array, cells: Array) -> None:
        """Move the wanted parts of all [Seq, directions, Batch, units]."""
        targets = [plan.new(name) for name in step.outputs]
        shown = outputs if self.sequence else outputs[-1:]
        whole = targets[0].reshape(len(shown), outputs.shape[2], -1)
        moves = []
        for direction, target in enumerate(np.split(whole, len(self.backward), axis=-1)):
            part = shown[:, direction]
            turns = self.backward[direction] and len(self.backward) > 1
            moves.append((part[::-1] if turns else part, target))
        self._move(plan, [*moves, *self.leaving(outputs[-1], cells, targets[1:])])
        for target in targets:
            plan.round(step, target)

    @staticmethod
    def _move(plan: ArrayPlan, moves: Moves) -> None:
        for source, target in moves:
            plan.add(tasks.moved(source, target), [source], [target])


class KernelCall(ArrayPart):
    """What no compiled code has.

    Args:
        kernel: of the inputs; it takes little time, as one thread runs it.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        plan.evaluate(step, self.kernel)
