"""Subgraphs: known conditions choose a branch, and a few rounds are unrolled.

Computed conditions and many rounds become a branch or a loop of Core ML, which stores the weights
of its body once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlferry.converters import control_flow
from mlferry.converters.graph import Node, Value
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx import read
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import (
    affine,
    array_of,
    as_blob,
    joined,
    known,
    positive,
    scalar,
    shaped,
    vector,
)
from mlferry.converters.values import Blob, Constant, Opaque, Operand, Result, Results
from mlferry.errors import ConversionError, SpecError, UnsupportedOpError, context

if TYPE_CHECKING:
    import onnx

FEW_ROUNDS = 8  # that are rather unrolled
MAX_UNROLLED = 256  # where Core ML's loop cannot do what the body does
_WITH_WEIGHTS = {
    *("MatMul", "Gemm", "Einsum", "Gather", "Attention", "BatchNormalization"),
    *("Conv", "ConvTranspose", "LSTM", "GRU", "RNN"),
    *("QLinearConv", "QLinearMatMul", "MatMulNBits"),
    *("If", "Loop", "Scan"),
}
TRUE = Constant("", np.array(True))  # what a condition is inside a loop


def inlined(
    context: Lowering, body: onnx.GraphProto, prefix: str, bindings: dict[str, Any]
) -> list[Any]:
    """Convert the nodes of a subgraph in place and return its outputs.

    Args:
        body: the `GraphProto`; it sees the values around it.
        prefix: makes the names in it unique.
    """
    results = {v for item in body.node for v in item.output if v}
    local = {v.name for v in body.input} | {t.name for t in body.initializer} | results
    rename = {name: f"{prefix}/{name}" for name in local}
    for tensor in body.initializer:
        context.give(rename[tensor.name], read.to_array(tensor, context.graph.source))
    for name, operand in bindings.items():
        context.give(rename[name], operand)
    types = {v.name: v.type for v in (*body.value_info, *body.input, *body.output)}
    for item in body.node:
        renamed = type(item)()
        renamed.CopyFrom(item)
        renamed.name = f"{prefix}/{item.name or '_'.join(item.output)}"
        del renamed.input[:], renamed.output[:]
        renamed.input.extend(rename.get(name, name) for name in item.input)
        renamed.output.extend(rename.get(name, name) for name in item.output)
        for attribute in renamed.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, rename)
        options = {rename.get(name, name): kind for name, kind in types.items()}
        context.convert_inner(read.node(renamed, options, context.graph.source))
    values = (Value(rename.get(v.name, v.name)) for v in body.output)
    return [context.operand(value) for value in values]


def _rename(body: onnx.GraphProto, rename: dict[str, str]) -> None:
    """Give the values around a nested subgraph their new names inside it."""
    local = {v.name for v in body.input} | {t.name for t in body.initializer}
    local |= {name for item in body.node for name in item.output}
    outer = {old: new for old, new in rename.items() if old not in local}
    for item in body.node:
        item.input[:] = [outer.get(name, name) for name in item.input]
        for attribute in item.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, outer)
    for value in body.output:
        value.name = outer.get(value.name, value.name)


@op("If", raw=True)
def if_(context: Lowering, node: Node, condition: Operand) -> Sequence[Result]:
    """A condition that is already known chooses its branch."""
    branches = node.attrs["then_branch"], node.attrs["else_branch"]
    if not isinstance(condition, Constant):
        yes, no = (
            functools.partial(_branch_of, context, node, body, side)
            for body, side in zip(branches, ("then", "else"), strict=True)
        )
        try:
            return control_flow.branch(context, condition, yes, no)
        except (ConversionError, SpecError) as error:
            raise _with_hint(context, node, error) from error
    chosen = branches[0] if condition.array.ravel()[0] else branches[1]
    return [
        x.array if isinstance(x, Constant) else x for x in inlined(context, chosen, node.name, {})
    ]


def _branch_of(lowering: Lowering, node: Node, body: onnx.GraphProto, side: str) -> list[Any]:
    with context(f"converting the branch {side!r} of a condition"):
        results = inlined(lowering, body, f"{node.name}/{side}", {})
        if any(isinstance(x, Opaque) for x in results):
            raise ConversionError(
                "a list of tensors that depends on a condition which is computed: Core ML's "
                "branches make arrays"
            )
        return results


def _with_hint(context: Lowering, node: Node, error: Exception) -> ConversionError:
    """The error, with the argument that fixes an input on which the condition depends."""
    makers = {value.name: item for item in context.graph.nodes for value in item.outputs}
    seen: set[str] = set()
    waiting = [node.inputs[0].name]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += [value.name for value in makers[name].inputs] if name in makers else []
    inputs = [value for value in context.graph.inputs if value.name in seen]
    single = [v for v in inputs if v.shape is not None and all(n == 1 for n in v.shape)]
    if not inputs:
        return ConversionError(str(error))
    arguments = ", ".join(
        f"mlferry.TensorType({v.name!r}, value={_compared(context, makers, node) or '...'})"
        for v in single or inputs
    )
    text = (
        f"{error}\n  both branches of a condition are converted, as it depends on "
        f"{', '.join(repr(v.name) for v in inputs)}; give the input a value if only one branch is "
        f"used: inputs=[{arguments}]"
    )
    if isinstance(error, UnsupportedOpError):
        return UnsupportedOpError(text, error.ops)
    return ConversionError(text)


def _compared(context: Lowering, makers: Mapping[str, Node], node: Node) -> str:
    """The number with which a condition compares an input."""
    maker = makers.get(node.inputs[0].name)
    if maker is None or maker.op != "Equal":
        return ""
    results = [context.operand(value) for value in maker.inputs]
    numbers = [x.array for x in results if isinstance(x, Constant) and x.array.size == 1]
    return str(numbers[0].item()) if len(numbers) == 1 else ""


@op("Loop", raw=True)
def loop(
    context: Lowering,
    node: Node,
    trips: Operand | None,
    condition: Operand | None,
    *states: Operand,
) -> Sequence[Result]:
    """A few rounds are unrolled if the condition stays true."""
    going = TRUE if condition is None else condition
    if not isinstance(going, Constant) or not _is_known(context, node, trips, going, states):
        return _looped(context, node, trips, going, states)
    count = int(array_of(node, 0, trips).ravel()[0])
    if count > _few(node.attrs["body"]) and going.array.ravel()[0]:
        result = _tried(functools.partial(_looped, context, node, trips, going, states))
        if result is not None:
            return result
    return _unrolled(context, node, count, going, states)


def _few(body: onnx.GraphProto) -> int:
    """The largest number of rounds to unroll; 0 if that would copy weights."""
    return 1 if any(item.op_type in _WITH_WEIGHTS for item in body.node) else FEW_ROUNDS


def _tried(convert: Callable[[], Sequence[Result]]) -> Sequence[Result] | None:
    """The result of a conversion, or None if Core ML's loop cannot express it."""
    try:
        return convert()
    except (ConversionError, SpecError):
        return None  # what was begun is pruned


def _unrolled(
    context: Lowering, node: Node, count: int, going: Constant, states: Sequence[Any]
) -> list[Any]:
    body = node.attrs["body"]
    names = [v.name for v in body.input]
    current: list[Any] = list(states)
    collected: list[list[Any]] = []
    for index in range(count):
        if not going.array.ravel()[0]:
            break
        bindings = dict(zip(names, [np.array(index, np.int64), going, *current], strict=True))
        going, *rest = inlined(context, body, f"{node.name}/{index}", bindings)
        if not isinstance(going, Constant):
            raise ConversionError("a loop whose condition is computed in some rounds only")
        current, collected = rest[: len(states)], [*collected, rest[len(states) :]]
    return _finished(context, node, current, collected)


def _is_known(
    context: Lowering, node: Node, trips: Operand | None, going: Constant, states: Sequence[Any]
) -> bool:
    """Whether a loop can be unrolled: few rounds, and a condition that is not a computed value."""
    if not isinstance(trips, Constant) or int(trips.array.ravel()[0]) > MAX_UNROLLED:
        return False
    if not going.array.ravel()[0]:
        return True
    body = node.attrs["body"]
    bindings = dict(zip([v.name for v in body.input], [np.array(0), TRUE, *states], strict=True))
    with context.inside(kept=False):
        again, *_ = inlined(context, body, f"{node.name}/tried", bindings)
    return isinstance(again, Constant)


_NO_LIMIT = 2**31 - 1  # exporters write the largest integers where only the condition counts


def _looped(
    context: Lowering, node: Node, trips: Operand | None, going: Operand, states: Sequence[Any]
) -> list[Blob]:
    """Core ML's loop; the results of its rounds are gathered if their number is known."""
    body = node.attrs["body"]
    names = [v.name for v in body.input]
    limit: Any = trips
    if isinstance(trips, Constant):
        count = int(trips.array.ravel()[0])
        limit = None if count >= _NO_LIMIT else count
    computed = not isinstance(going, Constant)
    if isinstance(going, Constant) and not going.array.ravel()[0]:
        limit = 0
    start = as_blob(context, going)
    if any(isinstance(x, Opaque) for x in states):
        raise ConversionError(
            "a loop of computed length, or of many rounds, that keeps a list of tensors from round "
            "to round: Core ML's loops keep arrays"
        )
    blobs = [as_blob(context, x) for x in states]

    def bindings_of(index: Blob, current: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(names, [index, TRUE, *current], strict=True))

    with context.inside(kept=False):
        index = scalar(context.constant([0.0]))
        again, *rest = inlined(context, body, f"{node.name}/tried", bindings_of(index, blobs))
        rows = [as_blob(context, x) for x in rest[len(states) :]]
        shapes = [known(row) for row in rows]
    ends = computed or not isinstance(again, Constant)
    scanned = [place for place, value in enumerate(node.outputs[len(states) :]) if value.name]
    if scanned and (ends or not isinstance(limit, int) or limit == 0):
        raise ConversionError(
            "a loop that gathers results of each round, and whose number of rounds is computed: "
            "the shape of the results would depend on the data"
        )

    def round_of(index: Blob, current: list[Blob]) -> tuple[Any, list[Any], list[Any]]:
        again, *rest = inlined(context, body, f"{node.name}/round", bindings_of(index, current))
        return again, rest[: len(states)], [rest[len(states) + place] for place in scanned]

    condition = start if ends else None
    final, rows = _gathering(
        context, limit, condition, blobs, round_of, [shapes[p] for p in scanned]
    )
    gathered: list[Any] = [None] * (len(node.outputs) - len(states))
    for place, row in zip(scanned, rows, strict=True):
        gathered[place] = row
    return [*final, *gathered]


def _gathering(
    context: Lowering,
    limit: int | Blob | None,
    condition: Blob | None,
    states: Sequence[Blob],
    body: Callable[[Blob, list[Blob]], tuple[Any, list[Any], list[Any]]],
    shapes: Sequence[Any],
    backwards: Sequence[Any] = (),
) -> tuple[list[Blob], list[Blob]]:
    """Core ML's loop, with the results of each round as rows of a blob.

    Args:
        limit: the number of rounds; fixed if there are rows.
        condition: whether there is a first round, if rounds decide on the next one.
        body: takes the number of the round and the states; returns whether there is another
            round, the new states and the rows.
        shapes: of the rows.
        backwards: which rows fill their blob from its end.

    Returns:
        the last states, and the blobs that hold the rows.
    """
    buffers = [
        context.layer("fillStatic", targetShape=(limit, *shape), value=0.0) for shape in shapes
    ]
    turned = backwards or [False] * len(shapes)
    count = len(states)

    def round_of(index: Blob, current: list[Blob]) -> tuple[Any, list[Any]]:
        again, new, rows = body(index, current[:count])
        filled = []
        for buffer, x, shape, back in zip(current[count:], rows, shapes, turned, strict=True):
            row = shaped(context, as_blob(context, x), (1, *shape))
            at = vector(_from_end(context, index, known(buffer)[0]) if back else index)
            filled.append(context.layer("scatter", buffer, at, row, axis=0))
        return again, [*new, *filled]

    output = control_flow.loop(context, limit, condition, [*states, *buffers], round_of)
    return output[:count], output[count:]


def _from_end(context: Lowering, index: Blob, count: int) -> Blob:
    """The index of a round, counted from the last one."""
    return affine(context, index, -1.0, count - 1.0)


def _finished(context: Lowering, node: Node, states: list[Any], collected: list[Any]) -> list[Any]:
    results: list[Any] = [x.array if isinstance(x, Constant) else x for x in states]
    if not collected and len(node.outputs) > len(states):
        raise ConversionError("a loop that never runs")
    for column in zip(*collected, strict=True):
        if all(isinstance(x, Constant) for x in column):
            results.append(np.stack([x.array for x in column]))
            continue
        blobs = [as_blob(context, x) for x in column]
        rows = [shaped(context, x, (1, *known(x))) for x in blobs]
        results.append(joined(context, rows, 0))
    return results


@dataclass(frozen=True)
class _ScanParts:
    """The attributes of a Scan.

    Attributes:
        body: the subgraph of a round.
        sequences: what is scanned.
        axes: along which axis, for each.
        backwards: which of them are scanned from the end.
        out_backwards: which results are written from the end.
        count: the number of rounds.
    """

    body: Any
    sequences: list[Blob]
    axes: list[int]
    backwards: list[int]
    out_backwards: list[int]
    count: int


@op("Scan", since=9, raw=True)
def scan(context: Lowering, node: Node, *operands: Operand) -> Results:
    """One round for each entry of the scanned axis; a few are unrolled."""
    scanned = node.attrs["num_scan_inputs"]
    states = operands[:-scanned]
    parts = _scan_of(context, node, len(states), operands[-scanned:])
    if parts.count > _few(parts.body):
        result = _tried(functools.partial(_scan_looped, context, node, parts, states))
        if result is not None:
            return result
    if parts.count > MAX_UNROLLED:
        raise ConversionError(f"{parts.count} iterations; up to {MAX_UNROLLED} are unrolled")
    return _scan_unrolled(context, node, parts, states)


def _scan_of(context: Lowering, node: Node, states: int, sequences: Sequence[Any]) -> _ScanParts:
    body, scanned = node.attrs["body"], len(sequences)
    blobs = [as_blob(context, x) for x in sequences]
    axes = node.attrs.get("scan_input_axes") or [0] * scanned
    axes = [positive(a, x.rank) for a, x in zip(axes, blobs, strict=True)]
    backwards = node.attrs.get("scan_input_directions") or [0] * scanned
    outputs = len(body.output) - states
    out_axes = node.attrs.get("scan_output_axes") or [0] * outputs
    out_backwards = node.attrs.get("scan_output_directions") or [0] * outputs
    if any(out_axes):
        raise ConversionError(f"scan_output_axes={out_axes}: only the first axis")
    return _ScanParts(body, blobs, axes, backwards, out_backwards, known(blobs[0])[axes[0]])


def _scan_looped(
    context: Lowering, node: Node, parts: _ScanParts, states: Sequence[Any]
) -> list[Any]:
    names = [v.name for v in parts.body.input]
    start = [as_blob(context, x) for x in states]

    def round_of(
        index: Blob, current: Sequence[Blob], prefix: str = "round"
    ) -> tuple[None, list[Any], list[Any]]:
        rows = [
            _entry(context, x, axis, _from_end(context, index, parts.count) if back else index)
            for x, axis, back in zip(parts.sequences, parts.axes, parts.backwards, strict=True)
        ]
        bindings = dict(zip(names, [*current, *rows], strict=True))
        output = inlined(context, parts.body, f"{node.name}/{prefix}", bindings)
        return None, output[: len(states)], output[len(states) :]

    with context.inside(kept=False):
        _, _, rows = round_of(scalar(context.constant([0.0])), start, "tried")
        shapes = [known(as_blob(context, row)) for row in rows]
    output, gathered = _gathering(
        context, parts.count, None, start, round_of, shapes, parts.out_backwards
    )
    return [*output, *gathered]


def _entry(context: Lowering, x: Blob, axis: int, index: Blob) -> Blob:
    """The entry of an axis at a computed index, without the axis."""
    row = context.gather(x, vector(index), axis)
    shape = known(x)
    return shaped(context, row, (*shape[:axis], *shape[axis + 1 :]))


def _scan_unrolled(
    context: Lowering, node: Node, parts: _ScanParts, states: Sequence[Any]
) -> list[Any]:
    count = parts.count
    entries = [
        _entries(context, x, axis) for x, axis in zip(parts.sequences, parts.axes, strict=True)
    ]
    names = [v.name for v in parts.body.input]
    current: list[Any] = list(states)
    collected: list[list[Any]] = []
    for index in range(count):
        rows = [
            part[count - 1 - index if back else index]
            for part, back in zip(entries, parts.backwards, strict=True)
        ]
        bindings = dict(zip(names, [*current, *rows], strict=True))
        output = inlined(context, parts.body, f"{node.name}/{index}", bindings)
        current, collected = output[: len(states)], [*collected, output[len(states) :]]
    if any(parts.out_backwards):
        turned = [list(column) for column in zip(*collected, strict=True)]
        turned = [c[::-1] if b else c for c, b in zip(turned, parts.out_backwards, strict=True)]
        collected = [list(row) for row in zip(*turned, strict=True)]
    return _finished(context, node, current, collected)


def _entries(context: Lowering, x: Blob, axis: int) -> list[Blob]:
    """The entries of an axis, without the axis."""
    shape = known(x)
    rest = (*shape[:axis], *shape[axis + 1 :])
    return [shaped(context, part, rest) for part in context.split(x, shape[axis], axis)]
