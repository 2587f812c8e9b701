"""Model tools under the names of coremltools."""

from __future__ import annotations

import os
from pathlib import Path

from mlferry.errors import ModelFileError
from mlferry.layers import versions
from mlferry.models.evaluate import (
    evaluate_classifier,
    evaluate_classifier_with_probabilities,
    evaluate_regressor,
    evaluate_transformer,
)
from mlferry.models.model import MLModel
from mlferry.models.problems import refuse_programs
from mlferry.models.quantization import quantize_weights
from mlferry.models.rename import (
    get_custom_layer_names,
    get_custom_layers,
    has_custom_layer,
    rename_feature,
    rename_layer,
    replace_custom_layer_name,
)
from mlferry.models.surgery import (
    attach_class_labels,
    change_input_output_types,
    extract_submodel,
    make_pipeline,
)
from mlferry.models.training import with_training, without_training
from mlferry.programs.values import Weights, has_blobs
from mlferry.spec import io, networks
from mlferry.spec.io import load_spec
from mlferry.spec.package import save_package
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from mlferry.spec.streaming import serialized

__all__ = [
    "attach_class_labels",
    "change_input_output_types",
    "convert_double_to_float_multiarray_type",
    "convert_float_to_double_multiarray_type",
    "convert_neural_network_spec_weights_to_fp16",
    "convert_neural_network_weights_to_fp16",
    "evaluate_classifier",
    "evaluate_classifier_with_probabilities",
    "evaluate_regressor",
    "evaluate_transformer",
    "extract_submodel",
    "get_custom_layer_names",
    "get_custom_layers",
    "has_custom_layer",
    "load_spec",
    "make_pipeline",
    "rename_feature",
    "rename_layer",
    "replace_custom_layer_name",
    "save_spec",
    "with_training",
    "without_training",
]


def save_spec(
    spec: model_pb2.Model,
    filename: str | os.PathLike[str],
    auto_set_specification_version: bool = False,
    weights_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Write a `Model` message to a `.mlmodel` file or an `.mlpackage`; on an error, write nothing.

    Args:
        spec: the message, which is not checked, unlike in `MLModel.save`.
        filename: a missing suffix is added.
        auto_set_specification_version: set the smallest version that has all its features; that of
            an ML Program stays, as it follows from its opset.
        weights_dir: for an `.mlpackage`: the folder with the weights of ML Programs, as in
            `MLModel.weights_dir`.

    Raises:
        ModelFileError: another suffix, a folder that cannot be written, or an ML Program with
            weights in files, without `weights_dir`.
    """
    if auto_set_specification_version:
        spec.specificationVersion = max(versions.required(spec), _of_programs(spec))
    path = Path(filename)
    has_weight_files = has_blobs(spec)
    if has_weight_files and (weights_dir is None or path.suffix != ".mlpackage"):
        raise ModelFileError(
            f"{path}: the weights of this model lie in files beside it: save_spec(spec, "
            f"{str(path.with_suffix('.mlpackage'))!r}, weights_dir=model.weights_dir)"
        )
    if path.suffix == ".mlpackage":
        files = Weights.of_folder(Path(weights_dir)).elsewhere if weights_dir is not None else {}
        return save_package(serialized(spec), path, None, has_weight_files, files)
    return io.save_spec(spec, filename)


def _of_programs(spec: model_pb2.Model) -> int:
    """The version of a model with a program in it; 0 for others."""
    kinds = [each.WhichOneof("Type") for each in networks.models_in(spec)]
    return spec.specificationVersion if "mlProgram" in kinds else 0


def convert_neural_network_weights_to_fp16(full_precision_model: object) -> MLModel:
    """Copy a model with weights in half precision: `quantize_weights` with 16 bits.

    Raises:
        SpecError: a weight is too large for half precision.
    """
    return quantize_weights(full_precision_model, 16)


def convert_neural_network_spec_weights_to_fp16(fp_spec: model_pb2.Model) -> model_pb2.Model:
    """The same for a `Model` message."""
    refuse_programs(
        fp_spec,
        "making weights of a message half",
        "their weights lie beside it; mlferry.quantize_weights(model, 16) takes the model",
    )
    return quantize_weights(fp_spec, 16).get_spec()


def convert_double_to_float_multiarray_type(spec: model_pb2.Model) -> None:
    """Turn inputs and outputs of doubles into float32 multi-arrays, in place.

    Inputs of training are changed likewise.
    """
    _change_arrays(spec, ft.ArrayFeatureType.DOUBLE, ft.ArrayFeatureType.FLOAT32)


def convert_float_to_double_multiarray_type(spec: model_pb2.Model) -> None:
    """Turn inputs and outputs of float32 into multi-arrays of doubles, in place.

    Inputs of training are changed likewise.
    """
    _change_arrays(spec, ft.ArrayFeatureType.FLOAT32, ft.ArrayFeatureType.DOUBLE)


def _change_arrays(spec: model_pb2.Model, old: int, new: int) -> None:
    refuse_programs(
        spec,
        "changing the types of inputs and outputs",
        "the operations of a program contain its types; convert the source again with the new ones",
    )
    for model in networks.models_in(spec):
        description = model.description
        for feature in (*description.input, *description.output, *description.trainingInput):
            array = feature.type.multiArrayType
            if feature.type.WhichOneof("Type") == "multiArrayType" and array.dataType == old:
                array.dataType = new  # type: ignore[assignment] # an enum is an int
