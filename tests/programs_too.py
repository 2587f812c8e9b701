"""With ``--programs`` every network that a test runs is also tried as an ML Program.

It has to pass (a) our own validator, (b) coremltools' reader, (c) give what the network gives, on
both engines, exact and half, and (d) come back from its bytes as it was.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.errors import ExportError, MlferryError
from mlferry.models.problems import validate
from mlferry.spec import networks

_SEEN: set[bytes] = set()
_UNREPEATABLE = ("random", "categorical", "custom")


def record(**what: Any) -> None:
    """Keep a line for the counts, where ``PROGRAMS_LOG`` names a file."""
    place = os.environ.get("PROGRAMS_LOG")
    if place:
        what["test"] = os.environ.get("PYTEST_CURRENT_TEST", "")
        with Path(place).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(what) + "\n")


def check(model: mlferry.MLModel, data: Mapping[str, Any], right: Mapping[str, Any]) -> None:
    """Try a network as a program, once a network."""
    network = networks.network_of(model.spec)
    if network is None or model.spec.isUpdatable:
        return
    kinds = [layer.WhichOneof("layer") or "" for layer in networks.layers_of(network)]
    if any(kind.startswith(_UNREPEATABLE) for kind in kinds):
        return
    key = model.spec.SerializeToString(deterministic=True)
    if key in _SEEN:
        return
    _SEEN.add(key)
    try:
        program = mlferry.to_program(model, compute_precision="float32")
    except ExportError as error:
        record(refused=str(error), kinds=sorted(set(kinds)))
        return
    problems = validate(program.spec, program.program_weights)
    wrong = [str(p) for p in problems if p.severity != "note"]
    assert not wrong, f"as a program: {wrong}"
    renamed = {
        old.name: new.name
        for old, new in zip(
            model.spec.description.input, program.spec.description.input, strict=True
        )
    }
    given = {renamed.get(name, name): value for name, value in data.items()}
    steps = 1.0 if "round" in kinds else 0.0  # a tie may go to either side
    compare(program, given, right, 1e-4, steps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mlpackage"
        program.save(path)
        read_by_coremltools(path)
        again = mlferry.MLModel(path)
        assert bytes_of(again) == bytes_of(program)
        compare(mlferry.MLModel(path, engine="onnxruntime", threads=1), given, right, 1e-4, steps)
    half = mlferry.to_program(model)
    assert not [p for p in validate(half.spec, half.program_weights) if p.severity == "error"]
    try:
        compare(half, given, right, 0.05)
    except AssertionError as error:
        record(half=str(error)[:300], kinds=sorted(set(kinds)))
    record(right=True)


def compare(
    program: mlferry.MLModel,
    given: Mapping[str, Any],
    right: Mapping[str, Any],
    part: float,
    steps: float = 0,
) -> None:
    """Raise where a program gives something else; integers may differ by so many steps."""
    made = program.predict(dict(given))
    for (name, wanted), value in zip(right.items(), made.values(), strict=True):
        if not isinstance(wanted, np.ndarray):
            continue
        assert value.shape == wanted.shape, f"as a program {name}: {value.shape}, {wanted.shape}"
        finite = np.asarray(wanted, np.float64)[np.isfinite(wanted)]
        span = max(float(np.abs(finite).max()), 1e-6) if finite.size else 1.0
        np.testing.assert_allclose(
            value,
            wanted,
            rtol=part,
            atol=max(part * span, steps if wanted.dtype.kind in "iu" else 0),
            err_msg=f"as a program, {name}",
        )


def read_by_coremltools(path: Path) -> None:
    """Let coremltools' own reader infer every type again; it raises where one is another."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto import load

    spec = ct.utils.load_spec(str(path))
    load.load(spec, spec.specificationVersion, str(path / "Data/com.apple.CoreML/weights"))


def install(patch: pytest.MonkeyPatch) -> None:
    """Try every network that is asked for predictions from now on."""
    predict = mlferry.MLModel.predict

    def tried(self: mlferry.MLModel, data: Any, *args: Any, **options: Any) -> Any:
        made = predict(self, data, *args, **options)
        if isinstance(data, Mapping) and isinstance(made, Mapping) and not args and not options:
            patch.setattr(mlferry.MLModel, "predict", predict)
            try:
                check(self, data, made)
            except MlferryError as error:
                raise AssertionError(f"as a program: {error}") from error
            finally:
                patch.setattr(mlferry.MLModel, "predict", tried)
        return made

    patch.setattr(mlferry.MLModel, "predict", tried)


def bytes_of(model: mlferry.MLModel) -> bytes:
    """The message of a model, with the entries of maps in one order."""
    return model.spec.SerializeToString(deterministic=True)
