"""Random networks, converted and run here, against the framework that they are of.

    python -m tests.fuzz.differential [onnx|keras|tensorflow ...] [--count N] [--seed S]

Each network also goes through what must not change it: saving and loading, and the other ways
to run it.
"""

from __future__ import annotations

import argparse
import importlib
import random
import time
import traceback
import warnings
from collections import Counter
from typing import Any

import numpy as np

import mlferry
from mlferry.errors import MlferryError
from mlferry.runtime.session import Session
from mlferry.spec import networks

FRAMEWORKS = {"onnx": 3000, "keras": 1000, "tensorflow": 1000}
Array = np.ndarray[Any, Any]


def apart(one: Array, other: Array) -> float:
    """How far two arrays are from each other, beside the size of their values; 0 to infinity."""
    if one.shape != (other.shape or (1,)):  # an output of a model has at least one axis
        return float("inf")
    other = other.reshape(one.shape)
    one, other = one.astype(np.float64), other.astype(np.float64)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    if same.all():
        return 0.0
    with np.errstate(all="ignore"):
        scale = max(float(np.abs(other[np.isfinite(other)]).max(initial=0)), 1e-3)
        distance = np.where(same, 0, np.abs(one - other)) / scale
    return float("inf") if not np.isfinite(distance).all() else float(distance.max())


CLOSE = 1e-4


def disagreement(framework: str, seed: int, index: int) -> str:
    """ "same", the name of an error that refuses the network, or "WRONG: ..."."""
    rng = random.Random(f"{framework}/{seed}/{index}")
    generator = importlib.import_module(f"tests.fuzz.networks_{framework}")
    try:
        source, inputs, oracle = generator.network(rng)
        (x,) = inputs.values()
        wanted = oracle(x)
    except Exception:  # what the framework itself does not take is no network
        return "no network"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = mlferry.convert(source, **getattr(generator, "OPTIONS", {}))
    except MlferryError as error:
        return f"refused ({type(error).__name__}): {str(error).splitlines()[0][:160]}"
    except Exception:
        return f"WRONG: {traceback.format_exc()[-600:]}"
    names = [item.name for item in model.get_spec().description.output]
    (given,) = (item.name for item in model.get_spec().description.input)
    try:
        made = model.predict({given: x})
    except Exception as error:
        return f"WRONG: cannot run: {error!r:.400}"
    found = [np.asarray(made[name]) for name in names]
    for name, one, other in zip(names, found, wanted, strict=True):
        distance = apart(one, other)
        if distance > CLOSE and not _is_touchy(oracle, x, wanted, distance):
            return f"WRONG: {name} {one.shape} {other.shape} is {distance:.2g} apart"
    return _metamorphic(model, {given: x}, dict(zip(names, found, strict=True)))


def _is_touchy(oracle: Any, x: Array, wanted: list[Array], distance: float) -> bool:
    """Whether the framework itself answers otherwise for almost the same input."""
    noise = np.random.default_rng(0).uniform(-1, 1, x.shape)
    for factor in (1e-6, -1e-6, 3e-6):
        near = (x * (1 + factor * noise)).astype(np.float32)
        if any(apart(a, b) > distance / 10 for a, b in zip(oracle(near), wanted, strict=True)):
            return True
    return False


def _metamorphic(model: Any, data: dict[str, Array], found: dict[str, Array]) -> str:
    """Saved and loaded, dequantized, by another engine, unplanned, without tiles: the same."""
    spec = model.get_spec()
    small = mlferry.quantize_weights(model, 8)
    pairs: list[tuple[str, Any, Any, float]] = [
        ("by saving and loading", model, mlferry.MLModel(spec.SerializeToString()), 0.0),
        ("by onnxruntime", model, mlferry.MLModel(spec, engine="onnxruntime", threads=1), CLOSE),
        ("dequantized", small, mlferry.quantize_weights(small, 32, "dequantization"), CLOSE),
    ]
    for what, one, other, most in pairs:
        first, second = (
            found if one is model else one.predict(data), other.predict(data)
        )  # fmt: skip
        for name in found:
            distance = apart(np.asarray(second[name]), np.asarray(first[name]))
            if distance > most and not (most and _is_unsteady(one, data, name, distance)):
                return f"WRONG: {name} is another {what}: {distance:.2g} apart"
    network = networks.network_of(spec)
    assert network is not None
    blobs = model._network().blobs(data)
    for options in ({"planned": False}, {"winograd": False}):
        made = Session(network, **options).run(blobs, list(found))
        for name, array in found.items():
            if apart(np.asarray(made[name]).reshape(array.shape), array) > CLOSE:
                return f"WRONG: {name} is another with {options}"
    return "same"


def _is_unsteady(model: Any, data: dict[str, Array], name: str, distance: float) -> bool:
    """Whether the model itself answers otherwise for almost the same input."""

    def oracle(x: Array) -> list[Array]:
        return [np.asarray(model.predict(dict.fromkeys(data, x))[name])]

    (x,) = data.values()
    return _is_touchy(oracle, x, oracle(x), distance)


def run(framework: str, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Outcomes of many networks, and those that are wrong."""
    found: Counter[str] = Counter()
    wrong = []
    for index in range(count):
        result = disagreement(framework, seed, index)
        found[result.split(":")[0]] += 1
        if result.startswith("WRONG"):
            wrong.append(f"{framework} {seed} {index} {result}")
    return found, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frameworks", nargs="*")
    parser.add_argument("--count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    bad = 0
    for framework in arguments.frameworks or FRAMEWORKS:
        begun = time.monotonic()
        count = arguments.count or FRAMEWORKS[framework]
        found, wrong = run(framework, arguments.seed, count)
        shown = ", ".join(f"{key} {number:,}" for key, number in found.most_common())
        print(f"{framework}: {count:,} networks in {time.monotonic() - begun:.0f} s: {shown}")
        print(*(f"  {item}" for item in wrong), sep="\n", flush=True)
        bad += len(wrong)
    if bad:
        raise SystemExit(f"{bad} disagreements")


if __name__ == "__main__":
    main()
