"""Custom models: a class of yours evaluates the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlferry.custom import CUSTOM_MODELS, model_parameters_of
from mlferry.errors import CustomLayerError, MissingCustomLayerError, MlferryError
from mlferry.runtime import inputs
from mlferry.runtime.evaluators.registry import CustomClasses, Evaluator, Features, evaluator
from mlferry.spec.proto import model_pb2
from mlferry.text import identifier, paragraph


@evaluator("customModel")
def custom_model(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """The instance is made once, from the model's parameters; its results are always checked."""
    params, description = model.customModel, model.description
    name = params.className
    entry = CUSTOM_MODELS.find(name)
    cls = classes.models.get(name) or (entry.value if entry is not None else None)
    if cls is None:
        raise MissingCustomLayerError(_explain(model), [name])
    where = f"class {cls.__name__} of custom model {name!r}"
    try:
        instance = cls(model_parameters_of(params))
    except MlferryError:
        raise
    except Exception as error:
        raise CustomLayerError(f"{where}: __init__ raised {error!r}") from error

    def run(data: Features) -> dict[str, Any]:
        inputs.check_names(data, description)
        try:
            outputs = instance.predict(dict(data))
        except MlferryError:
            raise
        except Exception as error:
            raise CustomLayerError(f"{where}: predict raised {error!r}") from error
        lacking = [f.name for f in description.output if f.name not in (outputs or {})]
        if not isinstance(outputs, Mapping) or lacking:
            raise CustomLayerError(
                f"{where}: predict returns a dict with {', '.join(lacking) or 'its outputs'}"
            )
        return {
            feature.name: inputs.to_user(feature.name, outputs[feature.name], feature.type)
            for feature in description.output
        }

    return run


def _explain(model: model_pb2.Model) -> str:
    params = model.customModel
    text = ", ".join(f"{k}={v!r}" for k, v in model_parameters_of(params).items())
    outputs = ", ".join(f"{f.name!r}: ..." for f in model.description.output)
    lines = [f"the model needs the custom model class {params.className}, which is not registered"]
    if params.description:
        lines.append(f"  description: {params.description}")
    lines += [
        f"  parameters: {text or 'none'}",
        "write and register it before the model predicts:",
        "",
        f"@mlferry.register_custom_model({params.className!r})",
        f"class {identifier(params.className)}(mlferry.CustomModel):",
        "    def predict(self, inputs):",
        f"        return {{{outputs}}}",
    ]
    return paragraph(lines)
