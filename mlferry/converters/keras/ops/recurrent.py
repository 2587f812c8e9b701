"""Recurrent layers: Core ML's own if they compute the same, else step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlferry.converters import native_recurrent
from mlferry.converters.graph import Node
from mlferry.converters.keras import masks
from mlferry.converters.keras.calls import call_of
from mlferry.converters.keras.ops.cells import cell_of, first_states, sizes
from mlferry.converters.keras.ops.registry import bound, op
from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import extent
from mlferry.converters.recurrent import (
    LSTM,
    MAX_UNROLLED,
    Gates,
    RecurrentCell,
    looped,
    stacked,
    steps_of,
    walk,
)
from mlferry.converters.slices import sliced
from mlferry.converters.values import SOURCE, Blob
from mlferry.errors import ConversionError

_ARGUMENTS = ("sequences", "initial_state")


def _given(node: Node, inputs: Sequence[Blob]) -> tuple[Blob, list[Blob]]:
    """The sequence and the first states: by name, after the sequence, or the model's own."""
    arguments = bound(node, inputs, _ARGUMENTS)
    first = arguments["sequences"]
    states = arguments.get("initial_state", [])
    states = list(states) if isinstance(states, list | tuple) else [states]
    if isinstance(first, list | tuple):
        first, states = first[0], [*first[1:], *states]
    if node.attrs.get("stateful") and not states:
        states = list(inputs[len(inputs) - _kept(node, inputs) :])
        batches = [blob.known[0] for blob in (first, *states)]
        if len(set(batches)) > 1:
            raise ConversionError(
                f"a sequence of a batch of {batches[0]}, and states of {batches[-1]}: the batch of "
                "a stateful layer is that of the model"
            )
    flat = [s for state in states for s in (state if isinstance(state, list | tuple) else [state])]
    return first, flat


def _kept(node: Node, inputs: Sequence[Blob]) -> int:
    """The number of states that the model itself takes and returns."""
    values = call_of(node).args if node.call else ()
    named = "initial_state" in node.arguments
    alone = len(values) <= 1 and not (values and isinstance(values[0], list | tuple))
    return sum(v.name.endswith("_in") for v in node.inputs) if alone and not named else 0


def _results(
    node: Node, inputs: Sequence[Blob], outputs: Sequence[Blob], states: list[Blob]
) -> list[Blob]:
    """The outputs that Keras declares, and the states that the model returns."""
    results = [*outputs, *states] if node.attrs.get("return_state") else list(outputs)
    remaining = _kept(node, inputs) if node.attrs.get("stateful") else 0
    return [*results[: len(node.outputs) - remaining], *states] if remaining else results


def _run(
    context: Lowering, node: Node, x: Blob, states: list[Blob], mask: Blob | None, *, zero: bool
) -> tuple[Blob, list[Blob]]:
    """The output sequence or its last entry, and the last states, of a layer with its cell."""
    part = node.parts["cell"]
    count = len(sizes(part))
    if states and len(states) != count:
        raise ConversionError(f"{len(states)} initial states; the layer has {count}")
    cell = cell_of(context, part)
    if mask is None and isinstance(cell, Gates) and native_recurrent.exists(cell):
        output = _native(context, node, cell, x, states)
        if output is not None:
            return output
    return _composed(context, node, cell, x, states, mask, zero)


def _native(
    context: Lowering, node: Node, cell: Gates, x: Blob, states: list[Blob]
) -> tuple[Blob, list[Blob]] | None:
    """Uses Core ML's own layer."""
    timewise = context.transpose(x, (1, 0, 2))
    sequence = bool(node.attrs.get("return_sequences", False))
    reverse = bool(node.attrs.get("go_backwards", False))
    output = native_recurrent.run(
        context, cell, timewise, states, sequence=sequence, reverse=reverse
    )
    if output is None or not sequence:
        return output and (output[1][0], output[1])
    return context.transpose(output[0], (1, 0, 2)), output[1]


def _composed(
    context: Lowering,
    node: Node,
    cell: RecurrentCell,
    x: Blob,
    states: list[Blob],
    mask: Blob | None,
    zero: bool,
) -> tuple[Blob, list[Blob]]:
    timewise = context.transpose(x, (1, 0, *range(2, x.rank)))
    steps = cell.project(context, timewise)
    if not states:
        states = _zeros(context, node, x, steps)
    options = {"reverse": bool(node.attrs.get("go_backwards", False)), "zero": zero}
    sequence = bool(node.attrs.get("return_sequences", False))
    length = steps.known[0]
    if length is None or length > MAX_UNROLLED:
        return _in_a_loop(context, cell, steps, states, mask, sequence, options)
    remaining = [] if mask is None else masks.steps(context, mask)
    outputs, last = walk(
        context, cell, steps_of(context, steps), states, masks=remaining, **options
    )
    walked = outputs[::-1] if options["reverse"] else outputs
    return (stacked(context, walked, axis=1) if sequence else walked[-1]), last


def _zeros(context: Lowering, node: Node, x: Blob, steps: Blob) -> list[Blob]:
    """The states before the first step; if the batch varies, one row for each sample of `x`."""
    batch = x.known[0]
    shapes = first_states(node.parts["cell"], 1 if batch is None else extent(x, 0), steps)
    zeros = [context.filled(shape) for shape in shapes]
    if batch is not None:
        return zeros
    single = context.reduce("reduceSum", x, tuple(range(1, x.rank)), keep=False)
    column = context.emit("fillLike", single, value=0.0)
    outputs = []
    for zero in zeros:
        axes = tuple(range(1, zero.rank))
        wide = context.layer("expandDims", column, layout=SOURCE, axes=axes)
        outputs.append(context.add(zero, wide))
    return outputs


def _in_a_loop(
    context: Lowering,
    cell: RecurrentCell,
    steps: Blob,
    states: list[Blob],
    mask: Blob | None,
    sequence: bool,
    options: dict[str, bool],
) -> tuple[Blob, list[Blob]]:
    if steps.rank != 3:
        raise ConversionError(f"{steps.known[0]} steps of maps; up to {MAX_UNROLLED} are unrolled")
    rows = None
    if mask is not None:
        rows = context.transpose(context.expand(mask, 2), (1, 0, 2))
    output, last = looped(context, cell, steps, states, masks=rows, **options)
    if options["reverse"]:
        output = context.layer("reverse", output, layout=SOURCE, reverseDim=(True, False, False))
    if sequence:
        return context.transpose(output, (1, 0, 2)), last
    end = sliced(context, output, [-1], [None], [0], None)
    return context.layer("squeeze", end, layout=SOURCE, axes=(0,)), last


@op("SimpleRNN", "LSTM", "GRU", "RNN", layouts=(SOURCE,))
def recurrent(context: Lowering, node: Node, *inputs: Blob) -> list[Blob]:
    """One direction; a cell given to `RNN` may be any of Keras's, or several of them."""
    node.attrs.get("cell")
    x, states = _given(node, inputs)
    mask = masks.of(context, node)[0]
    zero = bool(node.attrs.get("zero_output_for_mask", False))
    y, last = _run(context, node, x, states, mask, zero=zero)
    return _results(node, inputs, [y], last)


@op("Bidirectional", layouts=(SOURCE,))
def bidirectional(context: Lowering, node: Node, *inputs: Blob) -> list[Blob]:
    """Both directions, joined by `merge_mode`."""
    forward, backward = node.parts["forward_layer"], node.parts["backward_layer"]
    for name in ("layer", "backward_layer"):
        node.attrs.get(name)
    for name in ("return_sequences", "return_state", "stateful"):
        for part in (forward, backward):
            node.attrs.add(name, part.attrs.get(name, False))
    sequence = node.attrs["return_sequences"]
    x, states = _given(node, inputs)
    half = len(states) // 2
    mask = masks.of(context, node)[0]
    for part in (forward, backward):
        part.attrs.get("cell")
        part.attrs.get("zero_output_for_mask")
    mode = node.attrs.get("merge_mode", "concat")
    if mode not in _MERGES:
        raise ConversionError(f"merge_mode={mode!r}")
    run = _run_maps if forward.op.startswith("ConvLSTM") else _run
    output = _at_once(context, forward, backward, x, states) if mask is None else None
    if output is not None:
        y, after, before = output
        if sequence and mode == "concat":
            return _results(node, inputs, [y], [*after, *before])
        ahead, back = after[0], before[0]
        if sequence:
            ahead, back = context.split(y, 2, -1)
    else:
        ahead, after = run(context, forward, x, states[:half], mask, zero=sequence)
        back, before = run(context, backward, x, states[half:], mask, zero=sequence)
        if sequence:
            reversed_axes = tuple(axis == 1 for axis in range(back.rank))
            back = context.layer("reverse", back, layout=SOURCE, reverseDim=reversed_axes)
    return _results(node, inputs, _MERGES[mode](context, ahead, back), [*after, *before])


def _at_once(
    context: Lowering, forward: Node, backward: Node, x: Blob, states: list[Blob]
) -> tuple[Blob, list[Blob], list[Blob]] | None:
    """Outputs [batch, time, 2 * units] and last states, if one Core ML layer does both."""
    if forward.op.startswith("ConvLSTM"):
        return None
    directions = [bool(part.attrs.get("go_backwards", False)) for part in (forward, backward)]
    ahead, behind = (cell_of(context, part.parts["cell"]) for part in (forward, backward))
    if directions != [False, True] or len(states) not in (0, 4):
        return None
    if not isinstance(ahead, LSTM) or not isinstance(behind, LSTM):
        return None
    if not native_recurrent.exists_for_both(ahead, behind):
        return None
    timewise = context.transpose(x, (1, 0, 2))
    output = native_recurrent.run_both(context, ahead, behind, timewise, states)
    return output and (context.transpose(output[0], (1, 0, 2)), *output[1:])


def _concat(context: Lowering, x: Blob, y: Blob) -> list[Blob]:
    return [context.concat([x, y], -1)]


_MERGES: dict[str | None, Any] = {
    "concat": _concat,
    "sum": lambda context, x, y: [context.layer("add", x, y, layout=SOURCE)],
    "mul": lambda context, x, y: [context.layer("multiply", x, y, layout=SOURCE)],
    "ave": lambda context, x, y: [context.layer("average", x, y, layout=SOURCE)],
    None: lambda context, x, y: [x, y],
}


@op("ConvLSTM1D", "ConvLSTM2D", layouts=(SOURCE,))
def conv_lstm(context: Lowering, node: Node, *inputs: Blob) -> list[Blob]:
    """One direction over maps."""
    x, states = _given(node, inputs)
    zero = bool(node.attrs.get("zero_output_for_mask", False))
    y, last = _run_maps(context, node, x, states, masks.of(context, node)[0], zero=zero)
    return _results(node, inputs, [y], last)


def _run_maps(
    context: Lowering, node: Node, x: Blob, states: list[Blob], mask: Blob | None, *, zero: bool
) -> tuple[Blob, list[Blob]]:
    """As `_run`, for maps; states and steps are channels-first inside."""
    first = node.attrs.get("data_format") == "channels_first"
    rank = x.rank - 1

    def turned(y: Blob, *, back: bool, outer: int = 1) -> Blob:
        inner = range(outer, y.rank)
        order = (*inner[1:], inner[0]) if back else (inner[-1], *inner[:-1])
        axes = (*range(outer), *order)
        return y if first else context.transpose(y, axes)

    values = [turned(state, back=False) for state in states]
    y, last = _composed(context, node, cell_of(context, node.parts["cell"]), x, values, mask, zero)
    shown = turned(y, back=True, outer=1 + y.rank - rank)
    return shown, [turned(state, back=True) for state in last]


# ---- around them -----------------------------------------------------------------------


@op("Masking", layouts=(SOURCE,))
def masking(context: Lowering, node: Node, x: Blob) -> Blob:
    """Masked steps become 0; later layers receive the mask itself."""
    value = float(node.attrs.get("mask_value", 0.0))
    other = context.layer("notEqual", x, alpha=value)
    output = context.layer("reduceMax", other, axes=(-1,), keepDims=True)
    return context.layer("multiplyBroadcastable", x, output)


@op("TimeDistributed.fold", layouts=(SOURCE,))
def fold(context: Lowering, node: Node, x: Blob) -> Blob:
    """[batch, time, ...] as [batch * time, ...]."""
    batch, time, *rest = x.known
    count = None if batch is None or time is None else batch * time
    return context.reshape(x, (count, *rest))


@op("TimeDistributed.unfold", layouts=(SOURCE,))
def unfold(context: Lowering, node: Node, y: Blob, x: Blob) -> Blob:
    """[batch * time, ...] as [batch, time, ...]."""
    return context.reshape(y, (*x.known[:2], *y.known[1:]))
