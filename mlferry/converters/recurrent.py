"""Recurrent layers composed step by step, for all frontends.

Core ML's own recurrent layers clip the sums at 50, take one activation for all gates, reset before
the product and have no masks (`mlferry.converters.native_recurrent`); what they cannot compute
exactly is composed of matrix products here. Gates have ONNX's order: z, r, h of a GRU and i, o, f,
c of an LSTM.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mlferry.converters import control_flow
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import affine, extent, inner_product, joined
from mlferry.converters.slices import sliced
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError

MAX_UNROLLED = 256

Matrix = NDArray[np.float32]
Function = Callable[[Lowering, Blob], Blob]


@dataclass(frozen=True)
class Activation:
    """An activation as Core ML's `ActivationParams`."""

    params: dict[str, Any]

    def __call__(self, context: Lowering, x: Blob) -> Blob:
        """The activation of a blob."""
        return context.emit("activation", x, **self.params)


class RecurrentCell(Protocol):
    """One step of a recurrence."""

    def project(self, context: Lowering, x: Blob) -> Blob:
        """Compute what is possible for all steps [time, batch, ...] at once."""
        ...

    def step(self, context: Lowering, x: Blob, states: list[Blob]) -> tuple[Blob, list[Blob]]:
        """The output and the next states, from what `project` returned for one step."""
        ...


@dataclass
class Gates(ABC):
    """The weights of one direction.

    Attributes:
        w: [gates * units, inputs].
        r: [gates * units, units].
        wb: the bias of the inputs, or None.
        rb: the bias of the recursion, or None.
        functions: the activations, in ONNX's order.
        peephole: [3 * units] of the gates i, o, f, or None.
        behind: whether a GRU resets after the product.
        coupled: whether an LSTM's forget gate is the complement of its input gate.
    """

    w: Matrix
    r: Matrix
    wb: Matrix | None
    rb: Matrix | None
    functions: Sequence[Function]
    peephole: Matrix | None = None
    behind: bool = False
    coupled: bool = False
    constants: dict[str, Blob] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """The size of a state."""
        return int(self.r.shape[1])

    def project(self, context: Lowering, x: Blob) -> Blob:
        """W x + bias, and the recursion's bias if it is only added."""
        alone = self.behind and self.rb is not None
        bias = self.wb
        if self.rb is not None and not alone:
            bias = self.rb if bias is None else bias + self.rb
        elif self.rb is not None:
            recurrent_bias = self.rb.copy()
            recurrent_bias[2 * self.units :] = 0
            bias = recurrent_bias if bias is None else bias + recurrent_bias
        return inner_product(context, x, self.w, bias=bias)

    def constant(self, context: Lowering, name: str, array: Matrix) -> Blob:
        """An array that all steps share."""
        if name not in self.constants:
            self.constants[name] = context.constant(array, layout=SOURCE)
        return self.constants[name]

    @abstractmethod
    def step(self, context: Lowering, x: Blob, states: list[Blob]) -> tuple[Blob, list[Blob]]:
        """See `RecurrentCell`."""

    def recur(
        self, context: Lowering, state: Blob, first: int = 0, last: int | None = None
    ) -> Blob:
        """The recursion's product for some gates, without bias."""
        rows = self.r if last is None and not first else self.r[first * self.units :]
        rows = rows if last is None else rows[: (last - first) * self.units]
        matrix = self.constant(context, f"r{first}:{last}", np.ascontiguousarray(rows.T))
        return context.matmul(state, matrix)


def one_less(context: Lowering, x: Blob) -> Blob:
    """1 - x"""
    return affine(context, x, -1.0, 1.0)


class Simple(Gates):
    """h = f(W x + R h + b)"""

    def step(self, context: Lowering, x: Blob, states: list[Blob]) -> tuple[Blob, list[Blob]]:
        """See `RecurrentCell`."""
        h = self.functions[0](context, context.add(x, self.recur(context, states[0])))
        return h, [h]


class GRU(Gates):
    """h = (1 - z) * g(xh + ...) + z * h; the reset comes before or after the product."""

    def step(self, context: Lowering, x: Blob, states: list[Blob]) -> tuple[Blob, list[Blob]]:
        """See `RecurrentCell`."""
        (h,) = states
        xz, xr, xh = context.split(x, 3, -1)
        if self.behind:
            hz, hr, hh = context.split(self.recur(context, h), 3, -1)
        else:
            hz, hr = context.split(self.recur(context, h, 0, 2), 2, -1)
        z = self.functions[0](context, context.add(xz, hz))
        r = self.functions[0](context, context.add(xr, hr))
        if self.behind:
            if self.rb is not None and self.rb[2 * self.units :].any():
                bias = self.constant(context, "rb", self.rb[None, 2 * self.units :])
                hh = context.add(hh, bias)
            product = context.multiply(r, hh)
        else:
            product = self.recur(context, context.multiply(r, h), 2)
        candidate = self.functions[1](context, context.add(xh, product))
        new = context.multiply(one_less(context, z), candidate)
        output = context.add(new, context.multiply(z, h))
        return output, [output]


class LSTM(Gates):
    """c = f * c + i * g(...), h = o * h(c)"""

    def step(self, context: Lowering, x: Blob, states: list[Blob]) -> tuple[Blob, list[Blob]]:
        """See `RecurrentCell`."""
        h, c = states
        total = context.add(x, self.recur(context, h))
        gate_i, gate_o, gate_f, gate_c = context.split(total, 4, -1)
        first, second, third = self.functions
        i = first(context, self._peek(context, gate_i, c, 0))
        coupled = self.coupled
        f = one_less(context, i) if coupled else first(context, self._peek(context, gate_f, c, 2))
        candidate = second(context, gate_c)
        remaining = context.multiply(f, c)
        cell = context.add(remaining, context.multiply(i, candidate))
        o = first(context, self._peek(context, gate_o, cell, 1))
        output = context.multiply(o, third(context, cell))
        return output, [output, cell]

    def _peek(self, context: Lowering, gate: Blob, cell: Blob, index: int) -> Blob:
        if self.peephole is None:
            return gate
        part = self.peephole[index * self.units : (index + 1) * self.units]
        weights = self.constant(context, f"peephole {index}", part[None])
        return context.add(gate, context.multiply(cell, weights))


def steps_of(context: Lowering, x: Blob) -> list[Blob]:
    """The entries of the first axis, without it.

    Raises:
        ConversionError: there are too many, or their number is flexible.
    """
    length = extent(x, 0)
    if length > MAX_UNROLLED:
        raise ConversionError(f"{length} steps; up to {MAX_UNROLLED} are unrolled")
    parts = context.split(x, length, 0)
    return [context.layer("squeeze", part, layout=SOURCE, axes=(0,)) for part in parts]


def walk(
    context: Lowering,
    cell: RecurrentCell,
    steps: Sequence[Blob],
    states: Sequence[Blob],
    *,
    reverse: bool = False,
    masks: Sequence[Blob | None] = (),
    zero: bool = True,
) -> tuple[list[Blob], list[Blob]]:
    """Compute all steps one after the other.

    Args:
        steps: what the cell's `project` made, one per step.
        reverse: from the last step to the first.
        masks: where 0, the states of a sample stay; [batch, 1] a step, or None.
        zero: whether a masked output is 0, rather than the one before.

    Returns:
        the outputs in the order of `steps`, and the last states.
    """
    current = list(states)
    outputs: dict[int, Blob] = {}
    before: Blob | None = None
    for place in range(len(steps))[:: -1 if reverse else 1]:
        output, results = cell.step(context, steps[place], current)
        mask = masks[place] if masks else None
        if mask is not None:
            results = [
                _chosen(context, mask, new, old) for new, old in zip(results, current, strict=True)
            ]
            if zero or before is None:
                output = context.multiply(output, _wide(context, mask, output))
            else:
                output = _chosen(context, mask, output, before)
        current, before = results, output
        outputs[place] = output
    return [outputs[place] for place in range(len(steps))], current


def looped(
    context: Lowering,
    cell: RecurrentCell,
    steps: Blob,
    states: Sequence[Blob],
    *,
    reverse: bool = False,
    masks: Blob | None = None,
    zero: bool = True,
) -> tuple[Blob, list[Blob]]:
    """As `walk`, with a `loop` layer, for many steps or a number that is not fixed.

    Steps [time, batch, ...], masks [time, batch, 1] and outputs [time, batch, units] are one blob.
    """
    count = len(states)
    extents = context.layer("getShape", steps, layout=SOURCE)
    length = sliced(context, extents, [0], [1], None, None)
    # the first call adds the constants that all rounds read
    output, _ = cell.step(context, _entry(context, steps, context.constant([0.0])), list(states))
    like = sliced(context, steps, [0], [output.known[-1] or 0], [2], None)  # [time, batch, units]
    column = context.emit("fillLike", like, value=0.0)
    before = context.emit("fillLike", states[0], value=0.0)

    def body(index: Blob, variables: Sequence[Blob]) -> tuple[None, list[Blob]]:
        *current, shown, result = variables
        at = replace(index, layout=SOURCE)
        if reverse:
            at = context.subtract(affine(context, length, 1.0, -1.0), at)
        output, new = cell.step(context, _entry(context, steps, at), list(current))
        if masks is not None:
            mask = _entry(context, masks, at)
            new = [_chosen(context, mask, a, b) for a, b in zip(new, current, strict=True)]
            output = (
                context.multiply(output, mask) if zero else _chosen(context, mask, output, shown)
            )
        row = context.layer("expandDims", output, layout=SOURCE, axes=(0,))
        written = context.layer(
            "scatter", result, at, row, layout=SOURCE, axis=0, mode="SCATTER_UPDATE"
        )
        return None, [*new, output, replace(written, shape=result.shape)]

    results = control_flow.loop(context, length, None, [*states, before, column], body)
    return results[-1], results[:count]


def _entry(context: Lowering, x: Blob, index: Blob) -> Blob:
    """The entry of the first axis, without it."""
    row = context.gather(x, index, 0)
    return context.layer("squeeze", row, layout=SOURCE, axes=(0,))


def _chosen(context: Lowering, mask: Blob, new: Blob, old: Blob) -> Blob:
    """The values of `new` where the mask is 1, else of `old`."""
    return context.where(_wide(context, mask, new), new, old)


def _wide(context: Lowering, mask: Blob, x: Blob) -> Blob:
    """A mask [batch, 1] with as many axes as a blob."""
    return context.expand(mask, *range(2, x.rank)) if x.rank > 2 else mask


def stacked(context: Lowering, parts: Sequence[Blob], axis: int = 0) -> Blob:
    """Blobs of one shape side by side along a new axis."""
    wide = [context.layer("expandDims", part, layout=SOURCE, axes=(axis,)) for part in parts]
    return joined(context, wide, axis)
