"""Random networks, converted and run here, against the framework that they are of.

    python -m tests.fuzz.differential [onnx|keras|tensorflow ...] [--count N] [--seed S]

Each network also goes through what must not change it: saving and loading, and the other ways
to run it.
"""

from __future__ import annotations

import argparse
import importlib
import random
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

import mlferry
from mlferry.errors import ExportError, MlferryError
from mlferry.models.problems import validate
from mlferry.models.utils import change_input_output_types, rename_feature
from mlferry.runtime.session import Session
from mlferry.spec import networks
from tests.fuzz.network import Network

FRAMEWORKS = {
    "onnx": 3000,
    "keras": 1000,
    "keras_nested": 1000,
    "onnx_mixed": 3000,
    "tensorflow": 1000,
}
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


Data = Mapping[str, Array]


def disagreement(framework: str, seed: int, index: int) -> str:
    """ "same", the name of an error that refuses the network, or "WRONG: ..."."""
    rng = random.Random(f"{framework}/{seed}/{index}")
    generator = importlib.import_module(f"tests.fuzz.networks_{framework}")
    try:
        network: Network = generator.network(rng)
        wanted = network.oracle(network.inputs)
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
    if len(set(names)) != len(wanted) or (network.names and names != list(network.names)):
        return f"WRONG: the outputs are {names}, of {len(wanted)}: {network.names}"
    given = [item.name for item in model.get_spec().description.input]
    same_names = set(given) == set(network.inputs)

    def named(data: Data) -> Data:
        """The values by the names of the converted model."""
        return data if same_names else dict(zip(given, data.values(), strict=True))

    for data in (network.inputs, *network.others):
        try:
            values = wanted if data is network.inputs else network.oracle(data)
        except Exception:  # a size that the framework does not take
            continue
        try:
            made = model.predict(named(data))
        except Exception as error:
            if isinstance(error, MlferryError) and data is not network.inputs:
                continue  # a size that is refused
            return f"WRONG: cannot run: {error!r:.400}"
        for name, other in zip(names, values, strict=True):
            distance = apart(np.asarray(made[name]), other)
            if distance > network.close and not is_touchy(
                network.oracle, data, values, distance, network.rounding
            ):
                shapes = f"{np.shape(made[name])} {other.shape}"
                return f"WRONG: {name} {shapes} is {distance:.2g} apart"
    data = named(network.inputs)
    found = model.predict(data)
    return _metamorphic(model, data, {name: np.asarray(found[name]) for name in names})


def is_touchy(
    oracle: Callable[[Data], list[Array]],
    data: Data,
    wanted: list[Array],
    distance: float,
    rounding: float = 1e-6,
) -> bool:
    """Whether the framework itself answers otherwise for almost the same input."""
    for factor, seed in ((1, 0), (-1, 0), (3, 0), (3, 1), (-3, 1)):
        noise = np.random.default_rng(seed)
        near = {
            name: x
            if x.dtype.kind != "f" or np.array_equal(x, np.round(x))
            else (x * (1 + factor * rounding * noise.uniform(-1, 1, x.shape))).astype(np.float32)
            for name, x in data.items()
        }
        if any(apart(a, b) > distance / 10 for a, b in zip(oracle(near), wanted, strict=True)):
            return True
    return False


def _metamorphic(model: Any, data: Data, found: dict[str, Array]) -> str:
    """Saved and loaded, dequantized, by another engine, unplanned, without tiles: the same."""
    spec = model.get_spec()
    small = mlferry.quantize_weights(model, 8)
    half = mlferry.quantize_weights(model, 16)
    pairs: list[tuple[str, Any, Any, float]] = [
        ("by saving and loading", model, mlferry.MLModel(spec.SerializeToString()), 0.0),
        ("by onnxruntime", model, mlferry.MLModel(spec, engine="onnxruntime", threads=1), CLOSE),
        ("dequantized", small, mlferry.quantize_weights(small, 32, "dequantization"), CLOSE),
        ("of half precision", half, mlferry.quantize_weights(half, 32, "dequantization"), CLOSE),
    ]
    for what, one, other, most in pairs:
        first, second = (
            found if one is model else one.predict(data), other.predict(data)
        )  # fmt: skip
        for name in found:
            distance = apart(np.asarray(second[name]), np.asarray(first[name]))
            if distance > most and not (most and _is_unsteady(one, data, name, distance)):
                return f"WRONG: {name} is another {what}: {distance:.2g} apart"
    wrong = _as_programs(model, small, data, found)
    if wrong:
        return wrong
    for what, edited, names in _edited(model, data, list(found)):
        made = edited.predict({names.get(name, name): x for name, x in data.items()})
        for name, array in found.items():
            if apart(np.asarray(made[names.get(name, name)]).astype(np.float32), array) > 1e-6:
                return f"WRONG: {name} is another {what}"
    network = networks.network_of(spec)
    assert network is not None
    blobs = model._network().blobs(data)
    for options in ({"planned": False}, {"winograd": False}):
        made = Session(network, **options).run(blobs, list(found))
        for name, array in found.items():
            if apart(np.asarray(made[name]).reshape(array.shape), array) > CLOSE:
                return f"WRONG: {name} is another with {options}"
    return "same"


def _as_programs(model: Any, small: Any, data: Data, found: dict[str, Array]) -> str:
    """As ML Programs, of few bits too: the same, and valid; "" also where none can be written."""
    try:
        exact = mlferry.to_program(model, compute_precision="float32")
        few = mlferry.to_program(small, compute_precision="float32")
    except ExportError:
        return ""
    renamed = {
        old.name: new.name
        for ends in ("input", "output")
        for old, new in zip(
            getattr(model.spec.description, ends),
            getattr(exact.spec.description, ends),
            strict=True,
        )
    }
    given = {renamed[name]: x for name, x in data.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = exact.save(f"{folder}/model.mlpackage")
        pairs = [
            ("as a program", model, exact),
            ("as a program by onnxruntime", model, mlferry.MLModel(path, engine="onnxruntime")),
            ("as a program of 8 bits", small, few),
        ]
        for what, one, other in pairs:
            problems = [p for p in validate(other.spec, other.program_weights)
                        if p.severity == "error"]  # fmt: skip
            if problems:
                return f"WRONG: {what}: {problems[0]}"
            first = found if one is model else one.predict(data)
            second = other.predict(given)
            for name in found:
                distance = apart(np.asarray(second[renamed[name]]), np.asarray(first[name]))
                if distance > CLOSE and not _is_unsteady(one, data, name, distance):
                    return f"WRONG: {name} is another {what}: {distance:.2g} apart"
    return ""


def _edited(
    model: Any, data: Data, outputs: list[str]
) -> Iterator[tuple[str, Any, dict[str, str]]]:
    """What must not change the values: other names and types, with the names that changed."""
    spec = model.get_spec()
    names = {name: f"{name}/renamed" for name in (next(iter(data)), outputs[-1])}
    for old, new in names.items():
        rename_feature(spec, old, new)
    yield "with other names", mlferry.MLModel(spec), names
    types = dict.fromkeys((*data, *outputs), "float64")
    yield "with other types", change_input_output_types(model, types), {}


def _is_unsteady(model: Any, data: Data, name: str, distance: float) -> bool:
    """Whether the model itself answers otherwise for almost the same input."""

    def oracle(given: Data) -> list[Array]:
        return [np.asarray(model.predict(given)[name])]

    return is_touchy(oracle, data, oracle(data), distance)


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
