"""Models in sequence: each reads outputs of earlier ones, or the pipeline's inputs."""

from __future__ import annotations

from typing import Any

from mlferry.errors import PredictionError, context
from mlferry.runtime import inputs
from mlferry.runtime.evaluators.registry import (
    CustomClasses,
    Evaluator,
    Features,
    evaluator,
    prepare,
)
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2


@evaluator(*networks.PIPELINE_KINDS)
def pipeline(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """A pipeline of any of the three kinds; a model may replace a feature under its old name."""
    members = networks.pipeline_of(model)
    assert members is not None
    steps = []
    for index, inner in enumerate(members.models):
        name = members.names[index] if index < len(members.names) else str(index)
        where = f"model {name!r} ({inner.WhichOneof('Type')}) of the pipeline"
        with context(f"preparing {where}"):
            steps.append((where, inner.description, prepare(inner, classes)))
    description = model.description

    def run(data: Features) -> dict[str, Any]:
        inputs.check_names(data, description)
        known = dict(data)
        for where, inner, step in steps:
            with context(f"running {where}"):
                known |= step({f.name: known[f.name] for f in inner.input if f.name in known})
        missing = [f.name for f in description.output if f.name not in known]
        if missing:
            raise PredictionError(f"no model of the pipeline makes its output {missing[0]!r}")
        return {feature.name: known[feature.name] for feature in description.output}

    return run
