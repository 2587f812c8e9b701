"""With ``--programs`` every network that a test runs is also tried as an ML Program.

It has to pass (a) our own validator, (b) coremltools' reader, (c) give what the network gives, on
both engines, exact and half, and (d) come back from its bytes as it was. A network with custom
layers becomes a pipeline, all of whose programs are tried.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ExportError, MlferryError
from mlferry.layers.versions import uses_rank5
from mlferry.models.problems import validate
from mlferry.spec import networks

_UNREPEATABLE = ("random", "categorical")


def record(**what: Any) -> None:
    """Keep a line for the counts, where ``PROGRAMS_LOG`` names a file."""
    place = os.environ.get("PROGRAMS_LOG")
    if place:
        what["test"] = os.environ.get("PYTEST_CURRENT_TEST", "")
        with Path(place).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(what) + "\n")


@dataclass(frozen=True)
class Tried:
    """What became of a network: "right", "refused" or "not tried", and why.

    Attributes:
        result: one of these.
        reason: of a refusal, or why it was not tried.
        half: what half precision deviates by, where that is more than 5 % of the range.
    """

    result: str
    reason: str = ""
    half: str = ""


def check(model: mlferry.MLModel, data: Mapping[str, Any], right: Mapping[str, Any]) -> Tried:
    """Try a network as a program.

    Raises:
        AssertionError: the program is wrong.
    """
    network = networks.network_of(model.spec)
    if network is None:
        return Tried("not tried", "no neural network")
    if model.spec.isUpdatable:
        return Tried("not tried", "updatable")
    kinds = [layer.WhichOneof("layer") or "" for layer in networks.layers_of(network)]
    for kind in kinds:
        if kind.startswith(_UNREPEATABLE):
            return Tried("not tried", kind)
    model, data = with_five_axes(model, network, data)
    try:
        program = mlferry.to_program(model, compute_precision="float32")
    except ExportError as error:
        record(refused=str(error), kinds=sorted(set(kinds)))
        return Tried("refused", str(error))
    problems = validate(program.spec, program.program_weights)
    wrong = [str(p) for p in problems if p.severity != "note"]
    assert not wrong, f"as a program: {wrong}"
    renamed = {
        old.name: new.name
        for old, new in zip(
            model.spec.description.input, program.spec.description.input, strict=True
        )
    }
    inputs = {renamed.get(name, name): value for name, value in data.items()}
    steps = 1.0 if "round" in kinds else 0.0  # a tie may go to either side
    compare(program, inputs, right, 1e-4, steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        program.save(path)
        read_by_coremltools(path)
        again = mlferry.MLModel(path)
        assert bytes_of(again) == bytes_of(program)
        classes = dict(model.custom_layers)
        other = mlferry.MLModel(path, engine="onnxruntime", threads=1, custom_layers=classes)
        compare(other, inputs, right, 1e-4, steps)
    half = mlferry.to_program(model)
    assert not [p for p in validate(half.spec, half.program_weights) if p.severity == "error"]
    deviation = ""
    try:
        compare(half, inputs, right, 0.05)
    except AssertionError as error:
        deviation = str(error)[:300]
        record(half=deviation, kinds=sorted(set(kinds)))
    record(right=True)
    return Tried("right", half=deviation)


def with_five_axes(
    model: mlferry.MLModel, network: networks.Network, data: Mapping[str, Any]
) -> tuple[mlferry.MLModel, Mapping[str, Any]]:
    """Inputs of the classic mapping as they are given: with a sequence and a batch in front."""
    spec, inputs = model.get_spec(), dict(data)
    for feature in spec.description.input:
        if not uses_rank5(network) or not feature.type.HasField("multiArrayType"):
            continue
        array, value = feature.type.multiArrayType, np.asarray(data.get(feature.name, 0))
        if value.ndim not in (0, len(array.shape)):
            value = value if value.ndim == 5 else value.reshape(*value.shape, 1, 1)
            array.ClearField("ShapeFlexibility")
            array.shape[:] = value.shape
            inputs[feature.name] = value
    same = spec == model.spec
    return (model, data) if same else (model.with_spec(spec), inputs)


def compare(
    program: mlferry.MLModel,
    inputs: Mapping[str, Any],
    right: Mapping[str, Any],
    part: float,
    steps: float = 0,
) -> None:
    """Raise where a program gives something else; integers may differ by so many steps."""
    actual = program.predict(dict(inputs))
    for (name, reference), value in zip(right.items(), actual.values(), strict=True):
        where = f"as a program, {name}"
        if isinstance(reference, str | int):
            assert part > 1e-3 or value == reference, f"{where}: {value!r}, not {reference!r}"
            continue
        if isinstance(reference, dict):
            assert list(value) == list(reference), where
        got, expected = as_array(value), as_array(reference)
        assert got.shape == expected.shape, f"{where}: {got.shape}, not {expected.shape}"
        finite = np.asarray(expected, np.float64)[np.isfinite(expected)]
        span = max(float(np.abs(finite).max()), 1e-6) if finite.size else 1.0
        rounded = 1.0 if expected.dtype == np.int64 else steps
        atol = max(part * span, rounded if expected.dtype.kind in "iu" else 0)
        np.testing.assert_allclose(got, expected, rtol=part, atol=atol, err_msg=where)


def as_array(value: Any) -> np.ndarray:
    """A multi-array, the values of a dictionary, or a picture, whose colours become int64."""
    if isinstance(value, dict):
        return np.array([*value.values()])
    return value if isinstance(value, np.ndarray) else np.asarray(value).astype(np.int64)


def read_by_coremltools(path: Path) -> None:
    """Let coremltools' own reader infer every type again; it raises where one is another.

    It cannot read the labels of a classifier, so that the probabilities become the output instead.
    """
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto import load

    spec = ct.utils.load_spec(str(path))
    for part in networks.models_in(spec):
        if part.WhichOneof("Type") == "mlProgram":
            weights = str(path / "Data/com.apple.CoreML/weights")
            without_labels(part)
            load.load(part, part.specificationVersion, weights)


def without_labels(spec: Any) -> None:
    """Let the function of a classifier end before its label is found."""
    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            last = block.operations[-1] if block.operations else None
            if last is not None and last.type == "classify":
                block.outputs[:] = [last.inputs["probabilities"].arguments[0].name]
                labels = last.inputs["classes"].arguments[0].name
                kept = [op for op in block.operations[:-1] if op.outputs[0].name != labels]
                del block.operations[:]
                block.operations.extend(kept)


_SEEN: set[tuple[Any, ...]] = set()


def install(patch: pytest.MonkeyPatch) -> None:
    """Try every network that is asked for predictions from now on, once for its input sizes."""
    predict = mlferry.MLModel.predict

    def tried(self: mlferry.MLModel, data: Any, *args: Any, **options: Any) -> Any:
        actual = predict(self, data, *args, **options)
        if not isinstance(data, Mapping) or not isinstance(actual, Mapping) or args or options:
            return actual
        key = (bytes_of(self), *(np.shape(value) for value in data.values()))
        if key not in _SEEN:
            _SEEN.add(key)
            patch.setattr(mlferry.MLModel, "predict", predict)
            try:
                check(self, data, actual)
            except MlferryError as error:
                raise AssertionError(f"as a program: {error}") from error
            finally:
                patch.setattr(mlferry.MLModel, "predict", tried)
        return actual

    patch.setattr(mlferry.MLModel, "predict", tried)


def bytes_of(model: mlferry.MLModel) -> bytes:
    """The message of a model, with the entries of maps in one order."""
    return model.spec.SerializeToString(deterministic=True)
