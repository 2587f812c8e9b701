"""A part of a network on arrays, ready for inputs of given shapes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from mlferry import limits
from mlferry.compiled import arrays as tasks
from mlferry.compiled.samples import SamplePlan
from mlferry.compiled.tasks import Table, TableTask, joined
from mlferry.errors import MlferryError, PredictionError, SpecError, context
from mlferry.lanes import WORTH_A_THREAD, AwakeSteps, SharingTrial, may_share
from mlferry.memory import aligned
from mlferry.numerics import half
from mlferry.runtime.planned.maps import Array
from mlferry.runtime.planned.plan import AnyStep, NotPlannedError
from mlferry.runtime.threads import Part as Run, as_needed, run_steps

Shape = tuple[int, ...]
Kernel = Callable[..., Any]
_LONG = 1 << 27  # multiplications, for which it always pays to wake a thread
_ROOMY = 4  # how many times as large as needed free memory may be


class ArrayPart(ABC):
    """What a plan knows of a layer of a network, or of an operation of a program.

    Attributes:
        worth: how much planning it is worth, beside others.
        exact: whether it makes values of float16 of such values, which need no rounding.
    """

    worth: ClassVar[int] = 0
    exact: bool = False

    @abstractmethod
    def plan(self, plan: ArrayPlan, step: ArrayStep) -> None:
        """Add to a plan what computes it.

        Raises:
            NotPlannedError: the plan cannot take it with these shapes.
        """

    def end(
        self, plan: ArrayPlan, name: str, step: ArrayStep, ends: tasks.Ends
    ) -> tasks.Ends | None:
        """What follows a product that makes `name`, with this merged into it; None if it cannot."""
        return None


class ArrayStep(AnyStep, Protocol):
    """A layer of a network, or an operation of a program, as plans on arrays see it."""

    @property
    def array_part(self) -> ArrayPart | None:
        """What a plan knows of it; None where no plan may take it."""


@dataclass(eq=False)
class _Memory:
    """Where blobs lie.

    Attributes:
        values: all of it.
        uses: how many steps have yet to read it.
        kept: whether it is never free.
    """

    values: Array
    uses: int = 0
    kept: bool = False


class ArrayPlan:
    """Memory and steps of a part.

    Args:
        steps: the layers, in an order in which blobs are made before they are read.
        inputs: the shapes of blobs that come from outside.
        constants: blobs that are the same in every run.
        shown: the blobs that are wanted outside.

    Attributes:
        runs: what makes the outputs of the inputs.
        wrong: where tasks write a 1 for an index that names nothing.
        alone: the same for one thread without Python; None where that is not possible.

    Raises:
        NotPlannedError: a layer cannot be planned for these shapes.
    """

    def __init__(
        self,
        steps: Sequence[ArrayStep],
        inputs: Mapping[str, Shape],
        constants: Mapping[str, Array],
        shown: Sequence[str],
    ) -> None:
        self.constants = constants
        self.shown = frozenset(shown)
        given = {name: x.shape for name, x in constants.items()}
        self.shapes = _shapes(steps, {**inputs, **given})
        self._readers: dict[str, list[ArrayStep]] = {}
        for step in steps:
            for name in dict.fromkeys(step.inputs):
                self._readers.setdefault(name, []).append(step)
        self._left = {name: len(readers) for name, readers in self._readers.items()}
        self._arrays: dict[str, Array] = {}
        self._memory: dict[str, list[_Memory]] = {}
        self._copies: dict[str, Array] = {}
        self._free: list[_Memory] = []
        self._scratch: list[_Memory] = []
        self._merged: set[int] = set()
        self._steps: list[list[TableTask] | Run] = []
        self._touched: tuple[set[int], set[int]] | None = None
        self._work = 0
        self.wrong = np.zeros(1, np.int64)
        for name in constants:
            self._arrays[name] = constants[name]
        self.inputs = {name: self.new(name) for name in inputs}
        for memories in self._memory.values():
            for memory in memories:
                memory.kept = True
        for step in steps:
            if id(step) not in self._merged:
                with context(f"running {step}"):
                    part_of(step).plan(self, step)
            self._release(step)
        self.outputs = {name: self._arrays[name] for name in shown}
        self.runs = list(
            joined(Table([step]) if isinstance(step, list) else step for step in self._steps)
        )
        self._surroundings = as_needed(self.runs)
        self._awake = AwakeSteps(self.runs)
        self.alone = self._for_samples()
        self._trial = SharingTrial()

    def run(self) -> bool:
        """Compute the outputs of what `inputs` hold.

        Returns:
            false where an index is wrong: the layer that reads it says which.
        """
        self.wrong[0] = 0
        with self._surroundings():
            self._run()
        return not self.wrong[0]

    @property
    def work(self) -> int:
        """The multiplications that take as long as the tasks."""
        return self._work

    def _for_samples(self) -> SamplePlan | None:
        """What `alone` is; views among the outputs are copied."""
        if len(self.runs) != 1 or not isinstance(self.runs[0], Table):
            return None
        table, copies = self.runs[0], []
        outputs = dict(self.outputs)
        for name, x in self.outputs.items():
            if not x.flags.c_contiguous:
                outputs[name] = np.empty(x.shape, np.float32)
                copies += tasks.moved(x, outputs[name])
        if copies:
            table = Table([*table.steps, copies])
        return SamplePlan(table, list(self.inputs.values()), list(outputs.values()), self.wrong)

    def _run(self) -> None:
        if self._work < WORTH_A_THREAD or not may_share():
            self._run_alone()
        elif self._work < _LONG:
            self._trial.run(self._run_alone, self._awake)
        else:
            run_steps(self.runs)

    def _run_alone(self) -> None:
        for run in self.runs:
            run()

    # ---- what parts use ----------------------------------------------------------------

    def array(self, name: str) -> Array:
        """A blob, where it lies, in any order in memory."""
        return self._arrays[name]

    def whole(self, name: str) -> Array:
        """A blob that lies in one piece: itself, or a copy."""
        x = self._arrays[name]
        if x.flags.c_contiguous:
            return x
        if name not in self._copies:
            if name in self.constants:
                self._copies[name] = np.ascontiguousarray(x)
            else:
                copy = self._copies[name] = self._taken(name, x.shape)
                self.add(tasks.moved(x, copy), [x], [copy])
        return self._copies[name]

    def even(self, name: str, shape: Shape) -> Array:
        """A blob in a shape to which it broadcasts: it lies in rows, or rows of one value.

        It is a view of the blob, or of a copy.
        """
        x: Array = np.broadcast_to(self._arrays[name], shape)
        steps = [step for step, extent in zip(x.strides, shape, strict=True) if extent > 1]
        if steps[-1:] not in ([], [0], [x.itemsize]):
            x = np.broadcast_to(self.whole(name), shape)
        return x

    def new(self, name: str) -> Array:
        """Memory for a blob that is about to be made."""
        self._arrays[name] = self._taken(name, self.shapes[name])
        return self._arrays[name]

    def place(self, name: str, x: Array, source: str) -> None:
        """Let a blob be a part of another one, or another view of it."""
        self._arrays[name] = x
        if source in self.constants:
            self.constants = {**self.constants, name: x}
            return
        for memory in self._memory[source]:
            self._use(name, memory)

    def reshaped(self, name: str, shape: Shape) -> Array:
        """A blob in another shape: a view of it, or of a copy."""
        x = self._arrays[name]
        y = x.reshape(shape)
        return y if np.may_share_memory(x, y) else self.whole(name).reshape(shape)

    def scratch(self, *shape: int) -> Array:
        """Memory that only the step that is being planned uses."""
        memory = self._found(math.prod(shape))
        self._scratch.append(memory)
        return memory.values[: math.prod(shape)].reshape(shape)

    def add(
        self,
        step: Sequence[tasks.ArrayTask],
        reads: Sequence[Array] = (),
        writes: Sequence[Array] = (),
    ) -> None:
        """Add tasks, in any order. They may run with those before where these touch other memory.

        Args:
            step: the tasks.
            reads: what they read of the plan's memory.
            writes: what they write.
        """
        if not step:
            return
        self._work += sum(task.work for task in step)
        read, written = (set(map(_root, each)) for each in (reads, writes))
        if self._touched is not None:
            had_read, had_written = self._touched
            if not (written & (had_read | had_written) or read & had_written):
                last = self._steps[-1]
                assert isinstance(last, list)
                last += step
                self._touched = had_read | read, had_written | written
                return
        self._steps.append(list(step))
        self._touched = read, written

    def evaluate(self, step: ArrayStep, kernel: Kernel) -> None:
        """Add what the kernel of a step does, and copying its results."""
        operands = [self.array(name) for name in step.inputs]
        targets = [self.new(name) for name in step.outputs]
        write = half.round_into if step.rounds else _copied

        def run() -> None:
            try:
                output = kernel(*operands)
            except MlferryError as error:
                error.add_context(f"running {step}")
                raise
            except Exception as error:
                shapes = ", ".join(str(x.shape) for x in operands)
                raise PredictionError(f"{step} does not take {shapes}: {error}") from error
            results = output if isinstance(output, tuple) else (output,)
            for result, target in zip(results, targets, strict=False):
                if np.shape(result) != target.shape:
                    raise PredictionError(f"{step} makes {np.shape(result)}, not {target.shape}")
                write(np.asarray(result, np.float32), target)

        self._steps.append(run)
        self._touched = None

    def ends(self, step: ArrayStep) -> tuple[tasks.Ends, str]:
        """What can be merged into a product, and the blob that results.

        A sum with a blob that exists already and limits are merged if nothing else reads the blobs
        between.
        """
        (name,) = step.outputs
        ends = tasks.Ends(rounds=step.rounds)
        while name not in self.shown and len(self._readers.get(name, ())) == 1:
            (reader,) = self._readers[name]
            part = part_of(reader)
            if reader.rounds != step.rounds and not (step.rounds and part.exact):
                break
            merged = part.end(self, name, reader, ends)
            if merged is None:
                break
            ends = merged
            self._merged.add(id(reader))
            (name,) = reader.outputs
        return ends, name

    def added(self, name: str, step: ArrayStep) -> Array | None:
        """The other operand of a sum, if it can be merged into what makes `name`."""
        others = [other for other in step.inputs if other != name]
        if len(step.inputs) != 2 or len(others) != 1 or others[0] not in self._arrays:
            return None
        if self.shapes[others[0]] != self.shapes[name]:
            return None
        return self.whole(others[0])

    def round(self, step: ArrayStep, y: Array) -> None:
        """Round what was made to float16, if the step does."""
        if step.rounds:
            self.add(tasks.applied("half", y, y), [y], [y])

    # ---- inside ------------------------------------------------------------------------

    def _taken(self, name: str, shape: Shape) -> Array:
        """Memory for a blob, or for a copy of it."""
        count = math.prod(shape)
        memory = self._found(count)
        self._use(name, memory)
        return memory.values[:count].reshape(shape)

    def _found(self, count: int) -> _Memory:
        fitting = [
            index
            for index, free in enumerate(self._free)
            if count <= free.values.size <= max(_ROOMY * count, 1024)
        ]
        if fitting:
            return self._free.pop(min(fitting, key=lambda index: self._free[index].values.size))
        return _Memory(aligned(max(1, count)))

    def _use(self, name: str, memory: _Memory) -> None:
        """Keep memory until all readers of a blob have run."""
        memory.uses += self._left.get(name, 0)
        memory.kept |= name in self.shown
        self._memory.setdefault(name, []).append(memory)

    def _release(self, step: ArrayStep) -> None:
        """After a step, free the memory that no later one uses."""
        for name in dict.fromkeys((*step.inputs, *step.outputs)):
            if name in step.inputs:
                self._left[name] -= 1
            for memory in self._memory.get(name, ()):
                memory.uses -= name in step.inputs
                if not memory.uses and not memory.kept and memory not in self._free:
                    self._free.append(memory)
        self._free += self._scratch
        self._scratch = []


def part_of(step: ArrayStep) -> ArrayPart:
    """What the plan knows of one of its steps."""
    assert step.array_part is not None  # `regions` gives others to no plan
    return step.array_part


def _copied(x: Array, y: Array) -> None:
    np.copyto(y, x)


def _root(x: Array) -> int:
    """Which memory an array lies in."""
    while isinstance(x.base, np.ndarray):
        x = x.base
    return id(x)


def _shapes(steps: Sequence[ArrayStep], given: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of all blobs."""
    shapes: dict[str, Shape] = dict(given)
    for step in steps:
        try:
            inferred = step.infer([shapes[name] for name in step.inputs]) or ()
        except SpecError as error:
            raise NotPlannedError(str(error)) from error
        if len(inferred) < len(step.outputs):
            raise NotPlannedError(f"{step} has {len(inferred)} outputs")
        for name, shape in zip(step.outputs, inferred, strict=False):
            if not all(shape):  # open or empty
                raise NotPlannedError(f"{name} has shape {shape}")
            with context(f"running {step}"):
                limits.check_blob(shape)
            shapes[name] = tuple(n or 0 for n in shape)
    return shapes
