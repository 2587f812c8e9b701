"""RNN, GRU and LSTM, unrolled step by step.

Core ML's own recurrent layers work in its classic mapping and lack gates of ONNX (reset behind
the product, several activations, masks by length), so every step is composed of matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob, Constant
from mlferry.converters.lower import Lowering
from mlferry.converters.onnx.ops.control import MAX_UNROLLED, as_blob
from mlferry.converters.onnx.ops.registry import affine, array_of, emit, known, op, shaped
from mlferry.errors import ConversionError

_ACTIVATIONS: dict[str, Callable[[float, float], tuple[str, dict[str, Any]]]] = {
    "relu": lambda a, b: ("activation", {"ReLU": {}}),
    "tanh": lambda a, b: ("activation", {"tanh": {}}),
    "sigmoid": lambda a, b: ("activation", {"sigmoid": {}}),
    "affine": lambda a, b: ("activation", {"linear": {"alpha": a, "beta": b}}),
    "leakyrelu": lambda a, b: ("activation", {"leakyReLU": {"alpha": a}}),
    "thresholdedrelu": lambda a, b: ("activation", {"thresholdedReLU": {"alpha": a}}),
    "scaledtanh": lambda a, b: ("activation", {"scaledTanh": {"alpha": a, "beta": b}}),
    "hardsigmoid": lambda a, b: ("activation", {"sigmoidHard": {"alpha": a, "beta": b}}),
    "elu": lambda a, b: ("activation", {"ELU": {"alpha": a}}),
    "softsign": lambda a, b: ("activation", {"softsign": {}}),
    "softplus": lambda a, b: ("activation", {"softplus": {}}),
}
_DEFAULTS = {
    "leakyrelu": (0.01, 0.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, 0.0),
    "thresholdedrelu": (1.0, 0.0),
    "affine": (1.0, 0.0),
    "scaledtanh": (1.0, 1.0),
}
Matrix = NDArray[np.float32]


@dataclass
class Direction:
    """The weights of one direction: W [gates * H, I], R [gates * H, H], biases."""

    w: Matrix
    r: Matrix
    wb: Matrix
    rb: Matrix
    functions: list[Callable[[Lowering, Blob], Blob]]
    peephole: Matrix | None = None


Step = Callable[[Lowering, Direction, Blob, list[Blob]], list[Blob]]


def _function(name: str, alpha: float | None, beta: float | None) -> Any:
    key = name.lower()
    if key not in _ACTIVATIONS:
        raise ConversionError(f"activation {name!r}: {', '.join(_ACTIVATIONS)} can be converted")
    defaults = _DEFAULTS.get(key, (0.0, 0.0))
    kind, params = _ACTIVATIONS[key](
        defaults[0] if alpha is None else alpha, defaults[1] if beta is None else beta
    )
    return lambda low, x: low.layer(kind, x, layout=SOURCE, **params)


def _directions(node: Node, gates: int, operands: Any, names: list[str]) -> list[Direction]:
    w, r = (array_of(node, i, operands[i]).astype(np.float32) for i in (1, 2))
    count, hidden = w.shape[0], r.shape[2]
    if node.attrs.get("hidden_size", hidden) != hidden:
        raise ConversionError(f"hidden_size={node.attrs['hidden_size']}, the weights say {hidden}")
    given = operands[3] if len(operands) > 3 else None
    b = (
        np.zeros((count, 2 * gates * hidden), np.float32)
        if given is None
        else array_of(node, 3, given).astype(np.float32)
    )
    peepholes = operands[7] if len(operands) > 7 and node.op == "LSTM" else None
    p = None if peepholes is None else array_of(node, 7, peepholes).astype(np.float32)
    told = node.attrs.get("activations") or names * count
    alphas = list(node.attrs.get("activation_alpha") or [])
    betas = list(node.attrs.get("activation_beta") or [])
    if any(given and len(given) != len(told) for given in (alphas, betas)):
        raise ConversionError("activation_alpha and activation_beta for some activations only")
    functions = [
        _function(
            name,
            alphas[i] if i < len(alphas) else None,
            betas[i] if i < len(betas) else None,
        )
        for i, name in enumerate(told)
    ]
    size = len(names)
    return [
        Direction(
            w[i], r[i], b[i, : gates * hidden], b[i, gates * hidden :],
            functions[i * size : (i + 1) * size], None if p is None else p[i],
        )
        for i in range(count)
    ]  # fmt: skip


def inner(low: Lowering, x: Blob, matrix: Matrix, bias: Matrix | None = None) -> Blob:
    """x @ matrix' + bias, of [batch, n]."""
    extra: dict[str, Any] = {} if bias is None else {"hasBias": True, "bias": bias}
    return low.layer(
        "innerProduct", x, layout=SOURCE, inputChannels=matrix.shape[1],
        outputChannels=matrix.shape[0], weights=matrix, **extra,
    )  # fmt: skip


def _run(
    low: Lowering, node: Node, operands: Any, directions: list[Direction], step: Step, states: int
) -> Any:
    """All steps of all directions; outputs are Y, Y_h and for an LSTM Y_c."""
    x = as_blob(low, operands[0])
    batchwise = node.attrs.get("layout", 0)
    if batchwise:
        x = low.layer("transpose", x, layout=SOURCE, axes=(1, 0, 2))
    length, batch, width = known(x)
    if length > MAX_UNROLLED:
        raise ConversionError(f"{length} steps; up to {MAX_UNROLLED} are unrolled")
    kind = node.attrs.get("direction", "forward")
    if node.attrs.get("clip") is not None:
        raise ConversionError("clip of a recurrent op")
    lengths = _lengths(node, operands, length, batch)
    parts = (
        low.outputs(length, "splitND", x, layout=SOURCE, axis=0, numSplits=length)
        if length > 1
        else [x]
    )
    steps = [shaped(low, part, (batch, width)) for part in parts]
    hidden = directions[0].r.shape[1]
    sequences, finals = [], []
    for index, direction in enumerate(directions):
        reverse = kind == "reverse" or index == 1
        current = [
            _initial(low, operands, 5 + s, index, (batch, hidden), batchwise) for s in range(states)
        ]
        outputs: list[Blob] = []
        for t in range(length):
            place = length - 1 - t if reverse else t
            made = step(low, direction, steps[place], current)
            made, shown = _masked(low, made, current, lengths, place)
            current = made
            outputs.append(shown)
        sequences.append(outputs[::-1] if reverse else outputs)
        finals.append(current)
    return _collected(low, node, sequences, finals, (length, batch, hidden, batchwise))


def _lengths(node: Node, operands: Any, length: int, batch: int) -> Any:
    given = operands[4] if len(operands) > 4 else None
    if given is None:
        return None
    lengths = array_of(node, 4, given)
    return None if (lengths == length).all() else lengths


def _masked(
    low: Lowering, made: list[Blob], before: list[Blob], lengths: Any, place: int
) -> tuple[list[Blob], Blob]:
    """Beyond a sample's length states stay and outputs are 0."""
    if lengths is None or (lengths > place).all():
        return made, made[0]
    mask = low.constant((lengths > place).astype(np.float32)[:, None])
    kept = [
        low.layer("whereBroadcastable", mask, new, old, layout=SOURCE)
        for new, old in zip(made, before, strict=True)
    ]
    return kept, emit(low, "multiplyBroadcastable", made[0], mask)


def _initial(
    low: Lowering, operands: Any, place: int, direction: int, shape: Any, batchwise: Any
) -> Blob:
    given = operands[place] if len(operands) > place else None
    if given is None:
        return low.constant(np.zeros(shape, np.float32))
    axis = 1 if batchwise else 0
    if isinstance(given, Constant):
        return low.constant(np.take(given.array, direction, axis))
    count = known(given)[axis]
    parts = (
        low.outputs(count, "splitND", given, layout=SOURCE, axis=axis, numSplits=count)
        if count > 1
        else [given]
    )
    return shaped(low, parts[direction], shape)


def _collected(low: Lowering, node: Node, sequences: Any, finals: Any, sizes: Any) -> Any:
    length, batch, hidden, batchwise = sizes
    results: list[Any] = [None] * (1 + len(finals[0]))
    if node.outputs[0].name:
        rows = []
        for t in range(length):
            row = [shaped(low, s[t], (1, 1, batch, hidden)) for s in sequences]
            rows.append(row[0] if len(row) == 1 else low.layer("concatND", *row, layout=SOURCE,
                                                               axis=1))  # fmt: skip
        made = rows[0] if length == 1 else low.layer("concatND", *rows, layout=SOURCE, axis=0)
        results[0] = (
            low.layer("transpose", made, layout=SOURCE, axes=(2, 0, 1, 3)) if batchwise else made
        )
    for state in range(len(finals[0])):
        parts = [shaped(low, f[state], (1, batch, hidden)) for f in finals]
        made = parts[0] if len(parts) == 1 else low.layer("concatND", *parts, layout=SOURCE, axis=0)
        results[1 + state] = (
            low.layer("transpose", made, layout=SOURCE, axes=(1, 0, 2)) if batchwise else made
        )
    return results


def _gates(low: Lowering, x: Blob, count: int) -> tuple[Blob, ...]:
    return low.outputs(count, "splitND", x, layout=SOURCE, axis=1, numSplits=count)


@op("RNN", raw=True)
def rnn(low: Lowering, node: Node, *operands: Any) -> Any:
    def step(low: Lowering, d: Direction, x: Blob, state: list[Blob]) -> list[Blob]:
        total = emit(
            low, "addBroadcastable", inner(low, x, d.w, d.wb), inner(low, state[0], d.r, d.rb)
        )
        return [d.functions[0](low, total)]

    return _run(low, node, operands, _directions(node, 1, operands, ["Tanh"]), step, 1)


@op("GRU", raw=True)
def gru(low: Lowering, node: Node, *operands: Any) -> Any:
    """Gates z, r, h; with `linear_before_reset` the reset comes behind the product."""
    behind = node.attrs.get("linear_before_reset", 0)

    def step(low: Lowering, d: Direction, x: Blob, state: list[Blob]) -> list[Blob]:
        (h,) = state
        size = d.r.shape[1]
        xz, xr, xh = _gates(low, inner(low, x, d.w, d.wb), 3)
        two = inner(low, h, d.r[: 2 * size], d.rb[: 2 * size])
        hz, hr = _gates(low, two, 2)
        z = d.functions[0](low, emit(low, "addBroadcastable", xz, hz))
        r = d.functions[0](low, emit(low, "addBroadcastable", xr, hr))
        last, bias = d.r[2 * size :], d.rb[2 * size :]
        if behind:
            product = emit(low, "multiplyBroadcastable", r, inner(low, h, last, bias))
        else:
            product = inner(low, emit(low, "multiplyBroadcastable", r, h), last, bias)
        candidate = d.functions[1](low, emit(low, "addBroadcastable", xh, product))
        kept = emit(low, "multiplyBroadcastable", z, h)
        new = emit(low, "multiplyBroadcastable", affine(low, z, -1.0, 1.0), candidate)
        return [emit(low, "addBroadcastable", new, kept)]

    names = ["Sigmoid", "Tanh"]
    return _run(low, node, operands, _directions(node, 3, operands, names), step, 1)


@op("LSTM", raw=True)
def lstm(low: Lowering, node: Node, *operands: Any) -> Any:
    """Gates i, o, f, c; peepholes in the order i, o, f."""
    coupled = node.attrs.get("input_forget", 0)

    def peek(low: Lowering, d: Direction, gate: Blob, cell: Blob, index: int) -> Blob:
        if d.peephole is None:
            return gate
        size = d.r.shape[1]
        weights = low.constant(d.peephole[index * size : (index + 1) * size][None])
        return emit(
            low, "addBroadcastable", gate, emit(low, "multiplyBroadcastable", cell, weights)
        )

    def step(low: Lowering, d: Direction, x: Blob, state: list[Blob]) -> list[Blob]:
        h, c = state
        total = emit(low, "addBroadcastable", inner(low, x, d.w, d.wb), inner(low, h, d.r, d.rb))
        gate_i, gate_o, gate_f, gate_c = _gates(low, total, 4)
        first, second, third = d.functions
        i = first(low, peek(low, d, gate_i, c, 0))
        f = affine(low, i, -1.0, 1.0) if coupled else first(low, peek(low, d, gate_f, c, 2))
        candidate = second(low, gate_c)
        kept = emit(low, "multiplyBroadcastable", f, c)
        cell = emit(low, "addBroadcastable", kept, emit(low, "multiplyBroadcastable", i, candidate))
        o = first(low, peek(low, d, gate_o, cell, 1))
        return [emit(low, "multiplyBroadcastable", o, third(low, cell)), cell]

    names = ["Sigmoid", "Tanh", "Tanh"]
    return _run(low, node, operands, _directions(node, 4, operands, names), step, 2)
