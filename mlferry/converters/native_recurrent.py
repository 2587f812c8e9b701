"""Core ML's own recurrent layers, if they compute what the frontend's weights mean.

They clip the sums at 50, where sigmoid and tanh are practically constant, reset before the product,
and have no masks; `mlferry.converters.recurrent` composes everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlferry.converters.lowering import Lowering
from mlferry.converters.recurrent import GRU, LSTM, Activation, Gates, Simple
from mlferry.converters.sizes import use
from mlferry.converters.values import SOURCE, Blob

Params = dict[str, Any]

_BOUNDED: tuple[Params, ...] = (
    {"tanh": {}},
    {"sigmoid": {}},
    {"sigmoidHard": {"alpha": np.float32(0.2), "beta": np.float32(0.5)}},
)
_NO_CLIPPING = 50000.0  # 0 would stand for 50


def exists(gates: Gates) -> bool:
    """Whether a Core ML layer computes this."""
    return _described(gates) is not None


def exists_for_both(ahead: Gates, behind: Gates) -> bool:
    """Whether a Core ML layer computes both directions of an LSTM."""
    both = [_described(gates) for gates in (ahead, behind)]
    if both[0] is None or both[1] is None or not isinstance(ahead, LSTM):
        return False
    return all(both[0][1][name] == both[1][1][name] for name in ("activations", "params"))


def run(
    context: Lowering,
    gates: Gates,
    x: Blob,
    states: Sequence[Blob],
    *,
    sequence: bool = True,
    reverse: bool = False,
) -> tuple[Blob, list[Blob]] | None:
    """One direction.

    Args:
        x: [time, batch, inputs].
        states: the first states [batch, units]; none for zeros.
        sequence: whether all outputs are needed, not only the last.
        reverse: from the last step to the first.

    Returns:
        the outputs [time, batch, units] in the order of the walk, or the last [1, batch, units],
        and the last states; None if no layer of Core ML computes this.
    """
    described = _described(gates)
    if described is None:
        return None
    kind, params, count = described
    if kind == "simpleRecurrent" and not states:  # the one kind that needs a state
        batch = x.known[1]
        if batch is None:
            return None
        use(x, [1])
        states = [context.filled((batch, gates.units))]
    options = params["params"] if kind == "uniDirectionalLSTM" else params
    options["sequenceOutput"] = sequence
    y, *last = context.outputs(
        1 + count,
        kind,
        _five(context, x, 3, 4),
        *(_five(context, s, 0, 3, 4) for s in states),
        layout=SOURCE,
        reverseInput=reverse,
        **_sizes(gates),
        **params,
    )
    return _three(context, y), [_two(context, state) for state in last]


def run_both(
    context: Lowering, ahead: Gates, behind: Gates, x: Blob, states: Sequence[Blob]
) -> tuple[Blob, list[Blob], list[Blob]] | None:
    """Both directions of an LSTM by one layer.

    Args:
        ahead: the weights of the forward direction.
        behind: those of the backward direction.
        x: [time, batch, inputs].
        states: output and cell [batch, units] of the forward, then of the backward direction;
            none for zeros.

    Returns:
        the outputs [time, batch, 2 * units] in the order of the input, the last states forward
        and those backward; None if Core ML's layer computes something else.
    """
    if not exists_for_both(ahead, behind):
        return None
    first, second = (result[1] for result in map(_described, (ahead, behind)) if result is not None)
    y, *last = context.outputs(
        5,
        "biDirectionalLSTM",
        _five(context, x, 3, 4),
        *(_five(context, s, 0, 3, 4) for s in states),
        layout=SOURCE,
        activationsForwardLSTM=first["activations"],
        activationsBackwardLSTM=first["activations"],
        params={**first["params"], "sequenceOutput": True},
        weightParams=[first["weightParams"], second["weightParams"]],
        **_sizes(ahead),
    )
    states = [_two(context, state) for state in last]
    return _three(context, y), list(states[:2]), list(states[2:])


def _five(context: Lowering, x: Blob, *axes: int) -> Blob:
    return context.layer("expandDims", x, layout=SOURCE, axes=axes)


def _three(context: Lowering, y: Blob) -> Blob:
    return context.layer("squeeze", y, layout=SOURCE, axes=(3, 4))


def _two(context: Lowering, state: Blob) -> Blob:
    return context.layer("squeeze", state, layout=SOURCE, axes=(0, 3, 4))


def _sizes(gates: Gates) -> Params:
    return {"inputVectorSize": gates.w.shape[1], "outputVectorSize": gates.units}


def _described(gates: Gates) -> tuple[str, Params, int] | None:
    """The kind of layer, its parameters and its number of states; None if there is none."""
    functions = [
        _in_float32(f.params) if isinstance(f, Activation) else {} for f in gates.functions
    ]
    write = _WRITERS.get(type(gates))
    if write is None or gates.behind or gates.coupled or any(f not in _BOUNDED for f in functions):
        return None
    return write(gates, functions)


def _in_float32(activation: Params) -> Params:
    """An activation, with its numbers as stored in a file."""
    return {
        kind: {name: np.float32(value) for name, value in options.items()}
        for kind, options in activation.items()
    }


def _bias(gates: Gates) -> Any:
    """The sum of both biases, or None."""
    results = [bias for bias in (gates.wb, gates.rb) if bias is not None]
    return sum(results[1:], results[0]) if results else None


def _blocks(gates: Gates, names: Sequence[str], suffixes: Sequence[str]) -> Params:
    """The weights of each gate under Core ML's names."""
    weight, recursion, bias = suffixes
    total = _bias(gates)
    entries: Params = {}
    for index, name in enumerate(names):
        rows = slice(index * gates.units, (index + 1) * gates.units)
        entries[f"{name}{weight}"] = np.ascontiguousarray(gates.w[rows])
        entries[f"{name}{recursion}"] = np.ascontiguousarray(gates.r[rows])
        if total is not None:
            entries[f"{name}{bias}"] = total[rows]
    return entries


def _simple(gates: Gates, functions: list[Params]) -> tuple[str, Params, int]:
    bias = _bias(gates)
    bindings = {} if bias is None else {"hasBiasVector": True, "biasVector": bias}
    return (
        "simpleRecurrent",
        {
            "activation": functions[0],
            "weightMatrix": gates.w,
            "recursionMatrix": gates.r,
            **bindings,
        },
        1,
    )


def _gru(gates: Gates, functions: list[Params]) -> tuple[str, Params, int]:
    names = ("GateWeightMatrix", "GateRecursionMatrix", "GateBiasVector")
    return (
        "gru",
        {
            "activations": functions,
            "hasBiasVectors": _bias(gates) is not None,
            **_blocks(gates, ("update", "reset", "output"), names),
        },
        1,
    )


def _lstm(gates: Gates, functions: list[Params]) -> tuple[str, Params, int]:
    weights = _blocks(
        gates,
        ("inputGate", "outputGate", "forgetGate", "blockInput"),
        ("WeightMatrix", "RecursionMatrix", "BiasVector"),
    )
    options: Params = {
        "hasBiasVectors": _bias(gates) is not None,
        "cellClipThreshold": _NO_CLIPPING,
    }
    if gates.peephole is not None:
        options["hasPeepholeVectors"] = True
        for index, gate in enumerate(("input", "output", "forget")):
            part = gates.peephole[index * gates.units : (index + 1) * gates.units]
            weights[f"{gate}GatePeepholeVector"] = part
    return (
        "uniDirectionalLSTM",
        {"activations": functions, "params": options, "weightParams": weights},
        2,
    )


_WRITERS: dict[type[Gates], Callable[[Gates, list[Params]], tuple[str, Params, int]]] = {
    Simple: _simple,
    GRU: _gru,
    LSTM: _lstm,
}
