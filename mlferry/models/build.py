"""Write models without layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mlferry.custom import ParameterValue
from mlferry.errors import SpecError, ValidationError
from mlferry.layers.validate import validate
from mlferry.models.model import MLModel
from mlferry.spec.features import FeatureType
from mlferry.spec.proto import model_pb2, predictors_pb2


def make_custom_model(
    class_name: str,
    inputs: Mapping[str, FeatureType],
    outputs: Mapping[str, FeatureType],
    parameters: Mapping[str, ParameterValue | bytes] | None = None,
    description: str = "",
) -> MLModel:
    """A custom model: the class `class_name` evaluates it, in Swift and in Python.

    Args:
        class_name: of the class; see `register_custom_model`.
        inputs: feature types by name, as `mlferry.spec.features` makes them.
        outputs: likewise.
        parameters: bool, int, float, str or bytes by name.
        description: what people see who open the model.

    Raises:
        SpecError: a parameter is of another type.
        ValidationError: there is no input or no output, one of them has no name or no shape, an
            input is optional, or a name of a parameter or the class is empty.
    """
    spec = model_pb2.Model(specificationVersion=3)
    custom = spec.customModel
    custom.className, custom.description = class_name, description
    for name, value in (parameters or {}).items():
        _set_parameter(custom.parameters[name], name, value)
    for described, entries in (
        (spec.description.input, inputs),
        (spec.description.output, outputs),
    ):
        for name, feature in entries.items():
            described.add(name=name).type.CopyFrom(feature)
    problems = [problem for problem in validate(spec) if problem.severity != "note"]
    if problems:
        raise ValidationError(
            f"the custom model of the class {class_name!r} cannot be written:", problems
        )
    return MLModel(spec)


def _set_parameter(
    target: predictors_pb2.CustomModel.CustomModelParamValue,
    name: str,
    value: bool | int | float | str | bytes,
) -> None:
    plain = value.item() if isinstance(value, np.generic) else value
    fields: tuple[tuple[type, str], ...] = (
        (bool, "boolValue"),
        (int, "longValue"),
        (float, "doubleValue"),
        (str, "stringValue"),
        (bytes, "bytesValue"),
    )
    field = next((field for kind, field in fields if isinstance(plain, kind)), None)
    if field == "longValue" and -(2**31) <= int(plain) < 2**31:
        field = "intValue"
    if field is not None:
        setattr(target, field, plain)
        return
    raise SpecError(
        f"parameter {name}={value!r}: bool, int, float, str and bytes are possible, not "
        f"{type(value).__name__}"
    )
