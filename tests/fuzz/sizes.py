"""Sizes that are set free after converting, against the source at those sizes.

    python -m tests.fuzz.sizes [--count N] [--seed S]

A network converts with fixed sizes; then one axis of its input gets a range. Either the range is
refused, or each size in it gives what onnxruntime makes of the source at that size.
"""

from __future__ import annotations

import argparse
import random
import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnx

import mlferry
from mlferry.errors import MlferryError, SpecError
from mlferry.models.flexible_shapes import set_multiarray_ndshape_range
from tests.fuzz import networks_onnx
from tests.fuzz.differential import Data, is_touchy
from tests.fuzz.network import Array
from tests.fuzz.ways import apart

CLOSE = 1e-4

STEPS = (-1, 1, 2, 5)  # beyond the size that was converted


def free(model: onnx.ModelProto, axis: int) -> Any:
    """A session of the source in which one axis of its input is free."""
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    opened.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = "free"
    return networks_onnx.session_of(opened)


def outcome(seed: int, index: int) -> str:
    """ "right", "refused", why there is nothing to compare, or "WRONG: ..."."""
    rng = random.Random(f"sizes/{seed}/{index}")
    try:
        network = networks_onnx.network(rng)
        (values,) = network.inputs.values()
        axis = rng.randrange(values.ndim)
        session = free(network.source, axis)
    except Exception:  # what onnxruntime does not take is not a network
        return "no network"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spec = mlferry.convert(network.source).get_spec()
    except MlferryError:
        return "not converted"
    sizes = [size for step in STEPS if (size := values.shape[axis] + step) > 0]
    bounds = {*sizes, values.shape[axis]}
    (name,) = [item.name for item in spec.description.input]
    lower, upper = list(values.shape), list(values.shape)
    lower[axis], upper[axis] = min(bounds), max(bounds)
    try:
        set_multiarray_ndshape_range(spec, name, lower, upper)
    except SpecError:
        return "refused"
    model = mlferry.MLModel(spec)
    compared = 0

    def oracle(data: Data) -> list[Array]:
        return [np.asarray(actual) for actual in session.run(None, dict(data))]

    for size in sizes:
        shape = (*values.shape[:axis], size, *values.shape[axis + 1 :])
        other = np.random.default_rng(index).standard_normal(shape).astype(np.float32)
        try:
            expected = oracle({"x": other})
        except Exception:  # the source itself holds a fixed size
            continue
        try:
            actual = list(model.predict({name: other}).values())
        except MlferryError as error:
            return f"WRONG: axis {axis} of {values.shape} at {size}: {str(error)[:200]}"
        for one, wanted_one in zip(actual, expected, strict=True):
            distance = apart(np.asarray(one), wanted_one)
            if distance > CLOSE and not is_touchy(oracle, {"x": other}, expected, distance):
                shapes = f"{np.shape(one)} {wanted_one.shape}"
                return f"WRONG: axis {axis} of {values.shape} at {size}: {shapes} {distance:.2g}"
        compared += 1
    return "right" if compared else "nothing to compare"


def run(seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """Outcomes of many networks, and those that are wrong."""
    actual: Counter[str] = Counter()
    wrong = []
    for index in range(count):
        result = outcome(seed, index)
        actual[result.split(":")[0]] += 1
        if result.startswith("WRONG"):
            wrong.append(f"{seed} {index} {result}")
    return actual, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    actual, wrong = run(arguments.seed, arguments.count)
    print(", ".join(f"{key} {number:,}" for key, number in actual.most_common()))
    print(*wrong, sep="\n")
    if wrong:
        raise SystemExit(f"{len(wrong)} disagreements")


if __name__ == "__main__":
    main()
