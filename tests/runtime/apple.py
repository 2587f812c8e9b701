"""Models that Apple's own converter writes: run here, they give what TensorFlow gives.

    python -m tests.runtime.apple

coremltools converts TensorFlow's functions to the layers of Core ML that mlferry runs, in ways of
its own. What it writes was checked on devices; that it gives TensorFlow's values here, too, says
that mlferry reads these layers as Apple does.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from typing import Any

import numpy as np

import mlferry
from tests.converters.tensorflow.cases import CASES, Case

TOLERANCE = 1e-4  # of the largest value
THEIRS = {  # rows where what coremltools writes is something else
    "Reciprocal": "adds 1e-4 to the divisor",
    "Log1p": "takes the logarithm of x or 1, whichever is larger",
    "DivNoNan": "divides, whatever the divisor is",
    "IsFinite": "tells whether x + 65504 is another number",
    "MirrorPad SYMMETRIC": "does not repeat the border",
    "FakeQuantWithMinMaxVars": "rounds to other steps",
    "ResizeNearestNeighbor {} (4, 5)": "samples bilinearly",
    "ResizeNearestNeighbor {} (9, 7)": "samples bilinearly",
    "ResizeNearestNeighbor {'half_pixel_centers': True} (4, 5)": "samples bilinearly",
    "ResizeNearestNeighbor {'half_pixel_centers': True} (9, 7)": "samples bilinearly",
    "ResizeNearestNeighbor {'align_corners': True} (4, 5)": "samples bilinearly",
}  # fmt: skip


class NotConvertedError(Exception):
    """coremltools does not convert it."""


def written(coremltools: Any, tf: Any, case: Case) -> Any:
    """The specification that coremltools makes of a row.

    Raises:
        NotConvertedError: it makes none.
    """
    specs = [tf.TensorSpec(x.shape, x.dtype, name=f"x{i}") for i, x in enumerate(case.given)]
    called = tf.function(lambda *inputs: case.call(tf, *inputs), autograph=False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return coremltools.convert(
                [called.get_concrete_function(*specs)], source="tensorflow",
                convert_to="neuralnetwork", minimum_deployment_target=coremltools.target.iOS14,
            ).get_spec()  # fmt: skip
    except Exception as error:  # of any kind: it has no exceptions of its own
        raise NotConvertedError(f"{type(error).__name__}: {str(error)[:80]}") from error


def difference(tf: Any, case: Case, spec: Any) -> float:
    """The largest difference between what mlferry and TensorFlow make, as a part of the values."""
    names = {feature.name for feature in spec.description.input}
    inputs = {f"x{i}": x for i, x in enumerate(case.given) if f"x{i}" in names}
    actual = mlferry.MLModel(spec.SerializeToString()).predict(inputs)
    # TensorFlow calls its outputs Identity, Identity_1, ...
    ordered = [actual[name] for name in sorted(actual, key=lambda name: (len(name), name))]
    expected = tf.nest.flatten(case.call(tf, *map(tf.constant, case.given)))
    assert len(ordered) == len(expected)
    return max(_apart(got, np.asarray(right)) for got, right in zip(ordered, expected, strict=True))


def _apart(got: np.ndarray, right: np.ndarray) -> float:
    expected = right.reshape(got.shape).astype(np.float64)
    span = max(1.0, float(np.abs(np.nan_to_num(expected, posinf=0, neginf=0)).max(initial=0)))
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        return float(np.where(same, 0, np.abs(got - expected) / span).max(initial=0))


def main() -> None:
    import coremltools
    import tensorflow as tf

    logging.disable(logging.WARNING)
    actual: Counter[str] = Counter()
    for name, case in CASES.items():
        try:
            spec = written(coremltools, tf, case)
        except NotConvertedError as error:
            actual["not converted by coremltools"] += 1
            print(f"{name}: {error}", flush=True)
            continue
        apart = difference(tf, case, spec)
        kinds = [layer.WhichOneof("layer") for layer in spec.neuralNetwork.layers]
        result = (
            "same" if apart < TOLERANCE else "differs, as written" if name in THEIRS else "WRONG"
        )
        actual[result] += 1
        print(f"{name}: {result}, {apart:.1e}, {' '.join(kinds)}", flush=True)
    print(f"{len(CASES)} rows: {dict(actual)}")
    if actual["WRONG"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
