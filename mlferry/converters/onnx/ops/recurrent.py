"""RNN, GRU and LSTM, unrolled step by step.

Core ML's own recurrent layers lack what ONNX has (reset behind the product, several activations,
masks by length), so every step is composed; see `mlferry.converters.recurrent`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlferry.converters.graph import Node
from mlferry.converters.layout import SOURCE, Blob, Constant
from mlferry.converters.lower import Lowering
from mlferry.converters.onnx.ops.control import as_blob
from mlferry.converters.onnx.ops.registry import op
from mlferry.converters.operands import array_of, joined, known, shaped
from mlferry.converters.recurrent import GRU, LSTM, Gates, Simple, steps_of, walk
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


def _function(name: str, alpha: float | None, beta: float | None) -> Any:
    key = name.lower()
    if key not in _ACTIVATIONS:
        raise ConversionError(f"activation {name!r}: {', '.join(_ACTIVATIONS)} can be converted")
    defaults = _DEFAULTS.get(key, (0.0, 0.0))
    kind, params = _ACTIVATIONS[key](
        defaults[0] if alpha is None else alpha, defaults[1] if beta is None else beta
    )
    return lambda low, x: low.layer(kind, x, layout=SOURCE, **params)


def _directions(
    kind: type[Gates], node: Node, operands: Any, names: list[str], **options: Any
) -> list[Gates]:
    w, r = (array_of(node, i, operands[i]).astype(np.float32) for i in (1, 2))
    count, hidden = w.shape[0], r.shape[2]
    gates = w.shape[1] // hidden
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
        kind(
            w[i], r[i], b[i, : gates * hidden], b[i, gates * hidden :],
            functions[i * size : (i + 1) * size], None if p is None else p[i], **options,
        )
        for i in range(count)
    ]  # fmt: skip


def _run(low: Lowering, node: Node, operands: Any, directions: list[Gates], states: int) -> Any:
    """All steps of all directions; outputs are Y, Y_h and for an LSTM Y_c."""
    x = as_blob(low, operands[0])
    batchwise = node.attrs.get("layout", 0)
    if batchwise:
        x = low.layer("transpose", x, layout=SOURCE, axes=(1, 0, 2))
    length, batch, _ = known(x)
    kind = node.attrs.get("direction", "forward")
    if node.attrs.get("clip") is not None:
        raise ConversionError("clip of a recurrent op")
    lengths = _lengths(node, operands, length, batch)
    masks = [_mask(low, lengths, place) for place in range(length)]
    sequences, finals = [], []
    for index, direction in enumerate(directions):
        first = [
            _initial(low, operands, 5 + s, index, (batch, direction.units), batchwise)
            for s in range(states)
        ]
        outputs, final = walk(
            low,
            direction,
            steps_of(low, direction.project(low, x)),
            first,
            reverse=kind == "reverse" or index == 1,
            masks=masks,
        )
        sequences.append(outputs)
        finals.append(final)
    return _collected(low, node, sequences, finals, (length, batch, direction.units, batchwise))


def _lengths(node: Node, operands: Any, length: int, batch: int) -> Any:
    given = operands[4] if len(operands) > 4 else None
    if given is None:
        return None
    lengths = array_of(node, 4, given)
    return None if (lengths == length).all() else lengths


def _mask(low: Lowering, lengths: Any, place: int) -> Blob | None:
    """Beyond a sample's length states stay and outputs are 0."""
    if lengths is None or (lengths > place).all():
        return None
    return low.constant((lengths > place).astype(np.float32)[:, None])


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
            rows.append(joined(low, row, 1))
        made = joined(low, rows, 0)
        results[0] = (
            low.layer("transpose", made, layout=SOURCE, axes=(2, 0, 1, 3)) if batchwise else made
        )
    for state in range(len(finals[0])):
        parts = [shaped(low, f[state], (1, batch, hidden)) for f in finals]
        made = joined(low, parts, 0)
        results[1 + state] = (
            low.layer("transpose", made, layout=SOURCE, axes=(1, 0, 2)) if batchwise else made
        )
    return results


@op("RNN", raw=True)
def rnn(low: Lowering, node: Node, *operands: Any) -> Any:
    return _run(low, node, operands, _directions(Simple, node, operands, ["Tanh"]), 1)


@op("GRU", raw=True)
def gru(low: Lowering, node: Node, *operands: Any) -> Any:
    """Gates z, r, h; with `linear_before_reset` the reset comes behind the product."""
    behind = bool(node.attrs.get("linear_before_reset", 0))
    names = ["Sigmoid", "Tanh"]
    directions = _directions(GRU, node, operands, names, behind=behind)
    return _run(low, node, operands, directions, 1)


@op("LSTM", raw=True)
def lstm(low: Lowering, node: Node, *operands: Any) -> Any:
    """Gates i, o, f, c; peepholes in the order i, o, f."""
    coupled = bool(node.attrs.get("input_forget", 0))
    names = ["Sigmoid", "Tanh", "Tanh"]
    directions = _directions(LSTM, node, operands, names, coupled=coupled)
    return _run(low, node, operands, directions, 2)
