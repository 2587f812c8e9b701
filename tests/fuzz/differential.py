"""Random networks, converted and run here, against the framework that they are of.

    python -m tests.fuzz.differential [onnx|keras|tensorflow ...] [--count N] [--seed S]

Each network also goes every way of `tests.fuzz.ways` that must not change it.
"""

from __future__ import annotations

import argparse
import importlib
import random
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import mlferry
from mlferry.errors import MlferryError
from tests.fuzz.network import Network
from tests.fuzz.ways import WAYS, Source, apart, moved, subject_of

FRAMEWORKS = {
    "onnx": 3000,
    "keras": 1000,
    "keras_nested": 1000,
    "onnx_mixed": 3000,
    "tensorflow": 1000,
}
Array = np.ndarray[Any, Any]


Data = Mapping[str, Array]


def disagreement(framework: str, seed: int, index: int) -> str:
    """ "same", the name of an error that refuses the network, or "WRONG: ..."."""
    rng = random.Random(f"{framework}/{seed}/{index}")
    generator = importlib.import_module(f"tests.fuzz.networks_{framework}")
    try:
        network: Network = generator.network(rng)
        expected = network.oracle(network.inputs)
    except Exception:  # what the framework itself does not take is not a network
        return "no network"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = mlferry.convert(network.source, **network.options)
    except MlferryError as error:
        return f"refused ({type(error).__name__}): {str(error).splitlines()[0][:160]}"
    except Exception:
        return f"WRONG: {traceback.format_exc()[-600:]}"
    names = [item.name for item in model.get_spec().description.output]
    if len(set(names)) != len(expected) or (network.names and names != list(network.names)):
        return f"WRONG: the outputs are {names}, of {len(expected)}: {network.names}"
    sample = [item.name for item in model.get_spec().description.input]
    same_names = set(sample) == set(network.inputs)

    def named(data: Data) -> Data:
        """The values by the names of the converted model."""
        return data if same_names else dict(zip(sample, data.values(), strict=True))

    for data in (network.inputs, *network.others):
        try:
            values = expected if data is network.inputs else network.oracle(data)
        except Exception:  # a size that the framework does not take
            continue
        try:
            actual = model.predict(named(data))
        except Exception as error:
            if isinstance(error, MlferryError) and data is not network.inputs:
                continue  # a size that is refused
            return f"WRONG: cannot run: {error!r:.400}"
        for name, other in zip(names, values, strict=True):
            distance = apart(np.asarray(actual[name]), other)
            if distance > network.close and not is_touchy(
                network.oracle, data, values, distance, network.rounding
            ):
                shapes = f"{np.shape(actual[name])} {other.shape}"
                return f"WRONG: {name} {shapes} is {distance:.2g} apart"
    inputs = (
        {name: name for name in sample}
        if same_names
        else dict(zip(sample, network.inputs, strict=True))
    )
    return _by_every_way(model, named(network.inputs), Source(network, inputs))


def is_touchy(
    oracle: Callable[[Data], list[Array]],
    data: Data,
    expected: list[Array],
    distance: float,
    rounding: float = 1e-6,
) -> bool:
    """Whether the framework itself answers otherwise for almost the same input."""
    for factor, seed in ((1, 0), (-1, 0), (3, 0), (3, 1), (-3, 1)):
        near = moved(data, factor * rounding, seed)
        if any(apart(a, b) > distance / 10 for a, b in zip(oracle(near), expected, strict=True)):
            return True
    return False


def _by_every_way(model: Any, data: Data, source: Source) -> str:
    """ "same", or which way of the model gives something else."""
    with subject_of(model, data, source) as subject:
        for way in WAYS:
            try:
                wrong = way.disagreement(subject)
            except Exception:
                return f"WRONG: {way.name}: {traceback.format_exc()[-600:]}"
            if wrong:
                return f"WRONG: {wrong}"
    return "same"


def run(framework: str, seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Outcomes of many networks, and those that are wrong."""
    actual: Counter[str] = Counter()
    wrong = []
    for index in range(count):
        result = disagreement(framework, seed, index)
        actual[result.split(":")[0]] += 1
        if result.startswith("WRONG"):
            wrong.append(f"{framework} {seed} {index} {result}")
    return actual, wrong


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
        actual, wrong = run(framework, arguments.seed, count)
        shown = ", ".join(f"{key} {number:,}" for key, number in actual.most_common())
        print(f"{framework}: {count:,} networks in {time.monotonic() - begun:.0f} s: {shown}")
        print(*(f"  {item}" for item in wrong), sep="\n", flush=True)
        bad += len(wrong)
    if bad:
        raise SystemExit(f"{bad} disagreements")


if __name__ == "__main__":
    main()
