"""RNN, GRU and LSTM: Core ML's own layers if these compute the same, else step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlferry.converters import native_recurrent
from mlferry.converters.graph import Node
from mlferry.converters.lowering import Lowering
from mlferry.converters.onnx.ops.quantization import rounded
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import array_of, as_blob, extent
from mlferry.converters.recurrent import (
    GRU,
    LSTM,
    MAX_UNROLLED,
    Activation,
    Gates,
    Simple,
    looped,
    stacked,
    steps_of,
    walk,
)
from mlferry.converters.sizes import use
from mlferry.converters.values import Blob, Constant, Operand, blob_of
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Array

Directed = tuple[Blob, list[Blob]]  # the outputs [time, batch, units] and the last states

_ACTIVATIONS: dict[str, Callable[[float, float], dict[str, Any]]] = {
    "relu": lambda a, b: {"ReLU": {}},
    "tanh": lambda a, b: {"tanh": {}},
    "sigmoid": lambda a, b: {"sigmoid": {}},
    "affine": lambda a, b: {"linear": {"alpha": a, "beta": b}},
    "leakyrelu": lambda a, b: {"leakyReLU": {"alpha": a}},
    "thresholdedrelu": lambda a, b: {"thresholdedReLU": {"alpha": a}},
    "scaledtanh": lambda a, b: {"scaledTanh": {"alpha": a, "beta": b}},
    "hardsigmoid": lambda a, b: {"sigmoidHard": {"alpha": a, "beta": b}},
    "elu": lambda a, b: {"ELU": {"alpha": a}},
    "softsign": lambda a, b: {"softsign": {}},
    "softplus": lambda a, b: {"softplus": {}},
}
_DEFAULTS = {
    "leakyrelu": (0.01, 0.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, 0.0),
    "thresholdedrelu": (1.0, 0.0),
    "affine": (1.0, 0.0),
    "scaledtanh": (1.0, 1.0),
}


def _function(name: str, alpha: float | None, beta: float | None) -> Activation:
    key = name.lower()
    if key not in _ACTIVATIONS:
        raise ConversionError(f"activation {name!r}: {', '.join(_ACTIVATIONS)} can be converted")
    defaults = _DEFAULTS.get(key, (0.0, 0.0))
    params = _ACTIVATIONS[key](
        defaults[0] if alpha is None else alpha, defaults[1] if beta is None else beta
    )
    return Activation(params)


def _directions(
    kind: type[Gates],
    node: Node,
    operands: Sequence[Operand | None],
    names: list[str],
    *,
    behind: bool = False,
    coupled: bool = False,
) -> list[Gates]:
    weights, recurrent = (array_of(node, i, operands[i]).astype(np.float32) for i in (1, 2))
    count, hidden = weights.shape[0], recurrent.shape[2]
    gates = weights.shape[1] // hidden
    if node.attrs.get("hidden_size", hidden) != hidden:
        raise ConversionError(f"hidden_size={node.attrs['hidden_size']}, the weights say {hidden}")
    shift = operands[3] if len(operands) > 3 else None
    biases = (
        np.zeros((count, 2 * gates * hidden), np.float32)
        if shift is None
        else array_of(node, 3, shift).astype(np.float32)
    )
    peephole = operands[7] if len(operands) > 7 and issubclass(kind, LSTM) else None
    peepholes = None if peephole is None else array_of(node, 7, peephole).astype(np.float32)
    chosen = node.attrs.get("activations") or names * count
    alphas = list(node.attrs.get("activation_alpha") or [])
    betas = list(node.attrs.get("activation_beta") or [])
    if any(numbers and len(numbers) != len(chosen) for numbers in (alphas, betas)):
        raise ConversionError("activation_alpha and activation_beta for some activations only")
    nothing = [None] * len(chosen)
    functions = [
        _function(*option)
        for option in zip(chosen, alphas or nothing, betas or nothing, strict=True)
    ]
    size = len(names)
    return [
        kind(
            weights[i],
            recurrent[i],
            biases[i, : gates * hidden],
            biases[i, gates * hidden :],
            functions[i * size : (i + 1) * size],
            None if peepholes is None else peepholes[i],
            behind=behind,
            coupled=coupled,
        )
        for i in range(count)
    ]


def _run(
    context: Lowering,
    node: Node,
    operands: Sequence[Operand | None],
    directions: list[Gates],
    states: int,
) -> list[Blob | None]:
    """All steps of all directions: the outputs Y, Y_h and, for an LSTM, Y_c."""
    x = blob_of(as_blob(context, operands[0]))
    batchwise = node.attrs.get("layout", 0)
    if batchwise:
        x = context.transpose(x, (1, 0, 2))
    if node.attrs.get("clip") is not None:
        raise ConversionError("clip of a recurrent op")
    first = [
        [
            _initial(context, operands, 5 + s, d, directions[d].units, batchwise)
            for s in range(states)
        ]
        for d in range(len(directions))
    ]
    lengths = _lengths(node, operands, x)
    backward = node.attrs.get("direction", "forward") == "reverse"
    native = not isinstance(directions[0], RoundedLSTM)
    if native and lengths is None and len(directions) == 2:
        result = _both(context, directions, x, first)
        if result is not None:
            joined, *last = result
            y = _apart(context, joined) if node.outputs[0].name else None
            return _collected(context, y, last, batchwise)
    results = [
        _one(context, gates, x, initial, lengths, reverse=backward or d == 1)
        for d, (gates, initial) in enumerate(zip(directions, first, strict=True))
    ]
    y = (
        stacked(context, [outputs for outputs, _ in results], axis=1)
        if node.outputs[0].name
        else None
    )
    return _collected(context, y, [last for _, last in results], batchwise)


def _both(
    context: Lowering, directions: list[Gates], x: Blob, first: Sequence[Sequence[Blob | None]]
) -> tuple[Blob, list[Blob], list[Blob]] | None:
    """Both directions as one layer of Core ML; see `native_recurrent.run_both`."""
    states = [state for each in first for state in each]
    known_states = [state for state in states if state is not None]
    if known_states and len(known_states) < len(states):
        known_states = _filled(context, directions, x, states)
    return native_recurrent.run_both(context, directions[0], directions[1], x, known_states)


def _apart(context: Lowering, y: Blob) -> Blob:
    """[time, batch, 2 * units] as [time, directions, batch, units]."""
    time, batch, width = y.known
    if time is None and batch is None:
        return stacked(context, context.split(y, 2, -1), axis=1)
    apart = context.reshape(y, (time, batch, 2, (width or 0) // 2))
    return context.transpose(apart, (0, 2, 1, 3))


def _filled(
    context: Lowering, directions: list[Gates], x: Blob, states: Sequence[Blob | None]
) -> list[Blob]:
    """The first states; zeros replace omitted ones."""
    shape = (extent(x, 1), directions[0].units)
    return [context.filled(shape) if state is None else state for state in states]


def _one(
    context: Lowering,
    gates: Gates,
    x: Blob,
    first: Sequence[Blob | None],
    lengths: Array | None,
    *,
    reverse: bool,
) -> Directed:
    """One direction: Core ML's own layer, else step by step, or a loop."""
    values: list[Blob] = [s for s in first if s is not None]
    if values and len(values) < len(first):
        values = _filled(context, [gates], x, first)
    if lengths is None and not isinstance(gates, RoundedLSTM):
        result = native_recurrent.run(context, gates, x, values, reverse=reverse)
        if result is not None:
            y, last = result
            if reverse:
                y = context.layer("reverse", y, reverseDim=(True, False, False))
            return y, last
    values = values or _filled(context, [gates], x, first)
    steps = gates.project(context, x)
    length = x.known[0]
    if length is None or length > MAX_UNROLLED:
        rows = None if lengths is None else _masks(context, lengths, extent(x, 0))
        return looped(context, gates, steps, values, reverse=reverse, masks=rows)
    masks = [_mask(context, lengths, place) for place in range(extent(x, 0))]
    outputs, last = walk(
        context, gates, steps_of(context, steps), values, reverse=reverse, masks=masks
    )
    return stacked(context, outputs), last


def _lengths(node: Node, operands: Sequence[Operand | None], x: Blob) -> Array | None:
    if len(operands) < 5 or operands[4] is None:
        return None
    lengths = array_of(node, 4, operands[4])
    use(x, [0])
    return None if (lengths == x.known[0]).all() else lengths


def _mask(context: Lowering, lengths: Array | None, place: int) -> Blob | None:
    """1 within a sample's length; beyond it, states stay and outputs are 0."""
    if lengths is None or (lengths > place).all():
        return None
    return context.constant((lengths > place).astype(np.float32)[:, None])


def _masks(context: Lowering, lengths: Array, steps: int) -> Blob:
    """The same for all steps, [time, batch, 1]."""
    context.compute(4 * steps * lengths.size)
    within = np.arange(steps)[:, None] < lengths
    return context.constant(within.astype(np.float32)[..., None])


def _initial(
    context: Lowering,
    operands: Sequence[Operand | None],
    place: int,
    direction: int,
    units: int,
    batchwise: int,
) -> Blob | None:
    """The first state of a direction, [batch, units], or None for zeros."""
    state = operands[place] if len(operands) > place else None
    axis = 1 if batchwise else 0
    if state is None:
        return None
    if isinstance(state, Constant):
        array = np.take(state.array, direction, axis)
        return context.constant(array.astype(np.float32)) if array.any() else None
    parts = context.split(state, extent(state, axis), axis)
    return context.layer("squeeze", parts[direction], axes=(axis,))


def _collected(
    context: Lowering, y: Blob | None, last: list[list[Blob]], batchwise: int
) -> list[Blob | None]:
    """Y [time, directions, batch, units], and Y_h and Y_c [directions, batch, units]."""
    finals = [
        stacked(context, list(states), axis=1 if batchwise else 0)
        for states in zip(*last, strict=True)
    ]
    if batchwise and y is not None:
        y = context.transpose(y, (2, 0, 1, 3))
    return [y, *finals]


@op("RNN", raw=True)
def rnn(context: Lowering, node: Node, *operands: Operand) -> list[Blob | None]:
    return _run(context, node, operands, _directions(Simple, node, operands, ["Tanh"]), 1)


@op("GRU", raw=True)
def gru(context: Lowering, node: Node, *operands: Operand) -> list[Blob | None]:
    """Gates z, r, h; with `linear_before_reset`, the reset follows the product."""
    behind = bool(node.attrs.get("linear_before_reset", 0))
    names = ["Sigmoid", "Tanh"]
    directions = _directions(GRU, node, operands, names, behind=behind)
    return _run(context, node, operands, directions, 1)


@op("LSTM", raw=True)
def lstm(context: Lowering, node: Node, *operands: Operand) -> list[Blob | None]:
    """Gates i, o, f, c; peepholes i, o, f."""
    coupled = bool(node.attrs.get("input_forget", 0))
    names = ["Sigmoid", "Tanh", "Tanh"]
    directions = _directions(LSTM, node, operands, names, coupled=coupled)
    return _run(context, node, operands, directions, 2)


class RoundedLSTM(LSTM):
    """An LSTM whose states are rounded to 8 bits before the recursion's product."""

    def recur(
        self, context: Lowering, state: Blob, first: int = 0, last: int | None = None
    ) -> Blob:
        """See `Gates`."""
        return super().recur(context, rounded(context, state), first, last)


@op("com.microsoft.DynamicQuantizeLSTM", raw=True)
def dynamic_quantize_lstm(
    context: Lowering, node: Node, x: Operand, *operands: Operand
) -> list[Blob | None]:
    """8-bit weights [directions, inputs, gates]; what they multiply is rounded at run time."""
    inputs, recurrent, bias, lengths, first_h, first_c, peepholes = operands[:7]
    scales = operands[7:11]
    weights = [
        _of_integers(node, array_of(node, place, codes), scales[2 * place - 2 : 2 * place], place)
        for place, codes in ((1, inputs), (2, recurrent))
    ]
    coupled = bool(node.attrs.get("input_forget", 0))
    x = as_blob(context, x)
    kind: type[LSTM] = LSTM
    if context.rounds_activations:
        kind, x = RoundedLSTM, rounded(context, x)
    values = [x, *weights, bias, lengths, first_h, first_c, peepholes]
    directions = _directions(kind, node, values, ["Sigmoid", "Tanh", "Tanh"], coupled=coupled)
    return _run(context, node, values, directions, 2)


def _of_integers(node: Node, codes: Array, scales: Sequence[Any], place: int) -> Constant:
    """[directions, gates, inputs] as floats; scales are per direction or per gate."""
    steps, shifts = (
        array_of(node, 6 + 2 * place + i, v).astype(np.float32) for i, v in enumerate(scales)
    )
    shape = (len(codes), 1, -1)
    output = (codes.astype(np.float32) - shifts.reshape(shape)) * steps.reshape(shape)
    return Constant("", np.ascontiguousarray(output.transpose(0, 2, 1)))
