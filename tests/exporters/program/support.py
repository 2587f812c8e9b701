"""Networks as programs: checked in every way that there is, and run by both engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mlferry
from mlferry.errors import MlferryError
from mlferry.exporters.program import ProgramOptions, to_program
from mlferry.models.problems import validate
from mlferry.spec.proto import model_pb2
from tests.exporters.onnx.support import spec_of
from tests.runtime.case import Case, network

Array = np.ndarray[Any, Any]


def checked(model: mlferry.MLModel) -> mlferry.MLModel:
    """A program in which our own validator finds nothing."""
    problems = validate(model.spec, model.program_weights)
    assert not [str(p) for p in problems if p.severity != "note" and "no inputs" not in str(p)]
    return model


def results(
    model: mlferry.MLModel, given: Mapping[str, Array], names: Sequence[str]
) -> list[Array]:
    """Values of outputs."""
    made = model.predict(dict(given))
    return [np.asarray(made[name]) for name in names]


def read_by_coremltools(model: mlferry.MLModel, folder: Path) -> None:
    """Let coremltools' own reader infer every type again; it raises where one is another."""
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto import load

    path = str(model.save(folder / "model.mlpackage"))
    spec = ct.utils.load_spec(path)
    weights = str(folder / "model.mlpackage/Data/com.apple.CoreML/weights")
    load.load(spec, spec.specificationVersion, weights)


def kinds(spec: model_pb2.Model) -> list[str]:
    """The operations of a program, constants left out."""
    block = next(iter(spec.mlProgram.functions["main"].block_specializations.values()))
    return [operation.type for operation in block.operations if operation.type != "const"]


def operations_of(case: Case) -> list[str]:
    """The operations of a row of the runtime's tables, as a program; none where it is refused."""
    made = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    shapes = {f"x{index}": x.shape for index, x in enumerate(case.inputs)}
    spec = spec_of(made, shapes, list(made.layers[0].output))
    try:
        found, _ = to_program(spec, ProgramOptions(half=False))
    except MlferryError:
        return []
    return [kind for kind in kinds(found) if kind != "identity"]
