"""Recurrent layers, against the published equations one unit and one step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.layers.case import Case, five
from tests.layers.naive import Array, values

STEPS, BATCH, SIZE, UNITS = 4, 2, 3, 2
X = values(STEPS, BATCH, SIZE, 1, 1) * 2
Vector = list[float]
Activation = Callable[[float], float]


def sigmoid(v: float) -> float:
    return 1 / (1 + math.exp(-v))


def hard(v: float) -> float:
    return min(max(0.2 * v + 0.5, 0.0), 1.0)


def scaled(v: float) -> float:
    return 1.7159 * math.tanh(2 / 3 * v)


def plain(v: float) -> float:
    return v


def weight(name: str, *shape: int, scale: float = 1.0) -> Array:
    return values(*shape, seed=sum(map(ord, name))) * scale


def total(w: Array | None, x: Vector, unit: int) -> float:
    return 0.0 if w is None else sum(float(w[unit, k]) * x[k] for k in range(len(x)))


def clip(v: float, limit: float = 50.0) -> float:
    return min(max(v, -limit), limit)


def sequence(sample: int, reverse: bool) -> list[Vector]:
    steps = [[float(v) for v in X[t, sample, :, 0, 0]] for t in range(STEPS)]
    return steps[::-1] if reverse else steps


def blob(rows: list[list[Vector]], which: slice) -> Array:
    """[batch][step] vectors as a blob of some of the steps."""
    array = np.array([row[which] for row in rows])
    return array.transpose(1, 0, 2)[..., None, None]


def outputs(rows: list[list[list[Vector]]], whole: bool) -> list[Array]:
    """The output and the last states, of histories [state][batch][step]."""
    last = slice(-1, None)
    return [blob(rows[0], slice(None) if whole else last), *(blob(r, last) for r in rows)]


def simple(
    f: Activation,
    message: dict[str, Any],
    *,
    whole: bool = False,
    reverse: bool = False,
    bias: bool = True,
    initial: bool = False,
    scale: float = 1.0,
) -> list[Case]:
    w, r, b = weight("w", UNITS, SIZE, scale=scale), weight("r", UNITS, UNITS), weight("b", UNITS)
    start = weight("h", 1, BATCH, UNITS, 1, 1)
    history: list[list[Vector]] = []
    for sample in range(BATCH):
        h = [float(v) for v in start[0, sample, :, 0, 0]] if initial else [0.0] * UNITS
        rows = []
        for x in sequence(sample, reverse):
            h = [
                f(clip(total(w, x, u) + total(r, h, u) + (float(b[u]) if bias else 0)))
                for u in range(UNITS)
            ]
            rows.append(h)
        history.append(rows)
    params = {
        "inputVectorSize": SIZE, "outputVectorSize": UNITS, "activation": message,
        "sequenceOutput": whole, "reverseInput": reverse, "weightMatrix": w,
        "recursionMatrix": r, "hasBiasVector": bias, **({"biasVector": b} if bias else {}),
    }  # fmt: skip
    return five(
        "simpleRecurrent", params, [X, start] if initial else [X], *outputs([history], whole)
    )


def gru(
    *,
    whole: bool = False,
    reverse: bool = False,
    bias: bool = True,
    initial: bool = False,
    inner: tuple[Activation, dict[str, Any]] = (sigmoid, {"sigmoid": {}}),
    one: bool = False,
) -> list[Case]:
    gates = ("update", "reset", "output")
    w = {g: weight(f"w{g}", UNITS, SIZE) for g in gates}
    r = {g: weight(f"r{g}", UNITS, UNITS) for g in gates}
    b = {g: weight(f"b{g}", UNITS) if bias else np.zeros(UNITS) for g in gates}
    start = weight("h", 1, BATCH, UNITS, 1, 1)
    f = inner[0]
    history: list[list[Vector]] = []
    for sample in range(BATCH):
        h = [float(v) for v in start[0, sample, :, 0, 0]] if initial else [0.0] * UNITS
        rows = []
        for x in sequence(sample, reverse):

            def gate(name: str, seen: Vector, u: int, x: Vector = x) -> float:
                return clip(total(w[name], x, u) + total(r[name], seen, u) + float(b[name][u]))

            z = [f(gate("update", h, u)) for u in range(UNITS)]
            reset = [f(gate("reset", h, u)) for u in range(UNITS)]
            kept = [a * c for a, c in zip(h, reset, strict=True)]
            o = [math.tanh(gate("output", kept, u)) for u in range(UNITS)]
            h = [(1 - z[u]) * o[u] + z[u] * h[u] for u in range(UNITS)]
            rows.append(h)
        history.append(rows)
    params: dict[str, Any] = {
        "inputVectorSize": SIZE, "outputVectorSize": UNITS,
        "activations": [inner[1], {"tanh": {}}], "sequenceOutput": whole,
        "reverseInput": reverse, "hasBiasVectors": bias,
    }  # fmt: skip
    for g in gates:
        params[f"{g}GateWeightMatrix"], params[f"{g}GateRecursionMatrix"] = w[g], r[g]
        params |= {f"{g}GateBiasVector": b[g]} if bias else {}
    expected = outputs([history], whole)
    return five("gru", params, [X, start] if initial else [X], *(expected[:1] if one else expected))


GATES = ("inputGate", "forgetGate", "blockInput", "outputGate")
SIGMOIDS = ((sigmoid, {"sigmoid": {}}), (math.tanh, {"tanh": {}}), (math.tanh, {"tanh": {}}))


def lstm_weights(seed: str, options: dict[str, Any]) -> dict[str, Array]:
    results = {}
    for g in GATES:
        if g == "forgetGate" and options.get("coupledInputAndForgetGate"):
            continue
        results[f"{g}WeightMatrix"] = weight(seed + "w" + g, UNITS, SIZE)
        results[f"{g}RecursionMatrix"] = weight(seed + "r" + g, UNITS, UNITS)
        if options.get("hasBiasVectors"):
            results[f"{g}BiasVector"] = weight(seed + "b" + g, UNITS)
        if options.get("hasPeepholeVectors") and g != "blockInput":
            results[f"{g}PeepholeVector"] = weight(seed + "p" + g, UNITS)
    return results


def lstm_walk(
    w: dict[str, Array],
    options: dict[str, Any],
    activations: Any,
    reverse: bool,
    start: tuple[Array, Array] | None,
) -> list[list[list[Vector]]]:
    f, g, h_of = (a[0] for a in activations)
    limit = options.get("cellClipThreshold", 50.0)
    forget_bias = options.get("forgetBias") and not options.get("hasBiasVectors")
    outer: list[list[Vector]] = []
    cells: list[list[Vector]] = []
    for sample in range(BATCH):
        h = [float(v) for v in start[0][0, sample, :, 0, 0]] if start else [0.0] * UNITS
        c = [float(v) for v in start[1][0, sample, :, 0, 0]] if start else [0.0] * UNITS
        hs, cs = [], []
        for x in sequence(sample, reverse):

            def gate(name: str, u: int, cell: Vector, x: Vector = x, h: Vector = h) -> float:
                v = total(w.get(f"{name}WeightMatrix"), x, u)
                v += total(w.get(f"{name}RecursionMatrix"), h, u)
                v += float(w[f"{name}BiasVector"][u]) if f"{name}BiasVector" in w else 0.0
                peep = w.get(f"{name}PeepholeVector")
                return clip(v + (0.0 if peep is None else float(peep[u]) * cell[u]))

            i = [f(gate("inputGate", u, c)) for u in range(UNITS)]
            if options.get("coupledInputAndForgetGate"):
                keep = [1 - v for v in i]
            else:
                keep = [
                    f(gate("forgetGate", u, c) + (1 if forget_bias else 0)) for u in range(UNITS)
                ]
            z = [g(gate("blockInput", u, c)) for u in range(UNITS)]
            c = [clip(c[u] * keep[u] + i[u] * z[u], limit) for u in range(UNITS)]
            o = [f(gate("outputGate", u, c)) for u in range(UNITS)]
            h = [h_of(c[u]) * o[u] for u in range(UNITS)]
            hs.append(h)
            cs.append(c)
        outer.append(hs)
        cells.append(cs)
    return [outer, cells]


START = [weight(name, 1, BATCH, UNITS, 1, 1) for name in ("h", "c", "hb", "cb")]


def lstm(
    *,
    reverse: bool = False,
    initial: bool = False,
    activations: Any = SIGMOIDS,
    count: int = 3,
    **options: Any,
) -> list[Case]:
    w = lstm_weights("", options)
    start = (START[0], START[1]) if initial else None
    states = lstm_walk(w, options, activations, reverse, start)
    params = {
        "inputVectorSize": SIZE, "outputVectorSize": UNITS, "params": options,
        "activations": [a[1] for a in activations], "weightParams": w, "reverseInput": reverse,
    }  # fmt: skip
    expected = outputs(states, options.get("sequenceOutput", False))[:count]
    return five("uniDirectionalLSTM", params, [X, *(start or ())], *expected)


def bidirectional(*, initial: bool = False, count: int = 5, **options: Any) -> list[Case]:
    ahead, back = lstm_weights("a", options), lstm_weights("z", options)
    first = lstm_walk(ahead, options, SIGMOIDS, False, (START[0], START[1]) if initial else None)
    second = lstm_walk(back, options, SIGMOIDS, True, (START[2], START[3]) if initial else None)
    if options.get("sequenceOutput"):
        aligned = [rows[::-1] for rows in second[0]]
        both = [
            [p + q for p, q in zip(a, b, strict=True)]
            for a, b in zip(first[0], aligned, strict=True)
        ]
        y = blob(both, slice(None))
    else:
        y = np.concatenate([blob(h[0], slice(-1, None)) for h in (first, second)], axis=2)
    states = [blob(rows, slice(-1, None)) for rows in (*first, *second)]
    params = {
        "inputVectorSize": SIZE, "outputVectorSize": UNITS, "params": options,
        "activationsForwardLSTM": [a[1] for a in SIGMOIDS],
        "activationsBackwardLSTM": [a[1] for a in SIGMOIDS], "weightParams": [ahead, back],
    }  # fmt: skip
    inputs = [X, *(START if initial else ())]
    return five("biDirectionalLSTM", params, inputs, *[y, *states][:count])


UNCLIPPED = ((sigmoid, {"sigmoid": {}}), (plain, {"linear": {"alpha": 1}}), (plain, {"linear": {}}))
HARD = ((hard, {"sigmoidHard": {}}), (scaled, {"scaledTanh": {}}), (math.tanh, {"tanh": {}}))

CASES: list[Case] = [
    *simple(math.tanh, {"tanh": {}}),
    *simple(math.tanh, {"tanh": {}}, whole=True, reverse=True),
    *simple(sigmoid, {"sigmoid": {}}, bias=False, initial=True),
    *simple(lambda v: max(v, 0), {"ReLU": {}}, whole=True, initial=True),
    *simple(hard, {"sigmoidHard": {}}),
    *simple(hard, {"sigmoidHard": {"alpha": 0.2, "beta": 0.5}}),
    *simple(scaled, {"scaledTanh": {}}, whole=True),
    *simple(plain, {"linear": {}}, scale=100),
    *gru(),
    *gru(whole=True, bias=False),
    *gru(whole=True, reverse=True, initial=True),
    *gru(inner=(hard, {"sigmoidHard": {}}), one=True),
    *lstm(count=1),
    *lstm(hasBiasVectors=True, forgetBias=True),
    *lstm(forgetBias=True, sequenceOutput=True),
    *lstm(hasBiasVectors=True, hasPeepholeVectors=True, sequenceOutput=True, initial=True),
    *lstm(hasBiasVectors=True, coupledInputAndForgetGate=True, hasPeepholeVectors=True),
    *lstm(hasBiasVectors=True, reverse=True, sequenceOutput=True),
    *lstm(hasBiasVectors=True, cellClipThreshold=0.25),
    *lstm(hasBiasVectors=True, activations=UNCLIPPED, cellClipThreshold=2.0),
    *lstm(hasBiasVectors=True, activations=HARD),
    *bidirectional(),
    *bidirectional(hasBiasVectors=True, count=1),
    *bidirectional(hasBiasVectors=True, sequenceOutput=True, initial=True),
    *bidirectional(hasPeepholeVectors=True, sequenceOutput=True),
]
