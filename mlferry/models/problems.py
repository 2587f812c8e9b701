"""Read models of any kind, and find everything that is wrong with them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from mlferry.errors import ModelFileError, UnsupportedModelError
from mlferry.layers.validate import validate as validate_networks
from mlferry.programs.validate import validate_program
from mlferry.programs.values import Weights
from mlferry.spec import io, networks
from mlferry.spec.problems import Problem
from mlferry.spec.proto import model_pb2


def validate(
    model: object, weights_dir: str | os.PathLike[str] | Weights | None = None
) -> list[Problem]:
    """Find every problem of a model and of the networks and programs in it.

    Args:
        model: the path of a `.mlmodel` file or of an `.mlpackage`, the bytes of the former, or a
            `Model` message (mlferry's or coremltools').
        weights_dir: of ML Programs: the folder with the files of their weights, where `model` is a
            message or bytes; `MLModel.weights_dir` names that of a model. Without it, constants
            that lie in files are problems.

    Raises:
        ModelFileError: the model cannot be read, or there is no such folder.
    """
    spec, weights = (model, Weights()) if isinstance(model, model_pb2.Model) else read(model)
    if isinstance(weights_dir, Weights):
        weights = weights_dir
    elif weights_dir is not None:
        weights = Weights.of_folder(Path(weights_dir))
    problems = validate_networks(spec)
    for inner in networks.models_in(spec):
        problems += validate_program(inner, weights)
    return _once(problems)


def _once(problems: list[Problem]) -> list[Problem]:
    """Merge problems that many constants share, such as a missing file."""
    alike: dict[str, list[Problem]] = {}
    for problem in problems:
        if "> const " in problem.where:
            alike.setdefault(problem.message, []).append(problem)
    results = []
    for problem in problems:
        same = alike.get(problem.message, [problem])
        if problem is same[0] or problem not in same:
            more = len(same) - 1
            suffix = f" (and {more} more constant{'s' if more > 1 else ''})" if more else ""
            results.append(replace(problem, message=problem.message + suffix))
    return results


def read(model: object) -> tuple[model_pb2.Model, Weights]:
    """A model's message, and the files of its weights.

    Args:
        model: a path, the bytes of an `.mlmodel` file, or a `Model` message, which is copied.

    Raises:
        ModelFileError: it is none of these, or not a Core ML model.
    """
    if isinstance(model, str | os.PathLike):
        file = io.file_of(Path(model))
        return io.load_spec(file), Weights(file)
    if isinstance(model, bytes):
        return io.parse_spec(model), Weights()
    if isinstance(model, model_pb2.Model):
        spec = model_pb2.Model()
        spec.CopyFrom(model)
        return spec, Weights()
    if hasattr(model, "SerializeToString") and type(model).__name__ == "Model":
        return io.parse_spec(model.SerializeToString(), "the message"), Weights()
    raise ModelFileError(
        "MLModel takes the path of an .mlmodel file or an .mlpackage, the bytes of an .mlmodel "
        f"file, or a Model message, not a {type(model).__name__}; mlferry.convert takes models of "
        "other frameworks"
    )


def has_programs(spec: model_pb2.Model) -> bool:
    """Whether a model is an ML Program, or has one inside."""
    return any(each.WhichOneof("Type") == "mlProgram" for each in networks.models_in(spec))


def refuse_programs(spec: model_pb2.Model, task: str, way_on: str) -> None:
    """Raise if a model is an ML Program or has one inside, for tools that cannot handle them.

    Args:
        spec: the model.
        task: what is impossible, as the beginning of a sentence.
        way_on: what to do instead.

    Raises:
        UnsupportedModelError: there is a program.
    """
    if has_programs(spec):
        raise UnsupportedModelError(f"{task} is for neural networks, not ML Programs: {way_on}")
