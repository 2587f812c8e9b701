"""Core ML models in other formats."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlferry.errors import ExportError, ModelFileError
from mlferry.exporters import onnx as exporter
from mlferry.exporters.onnx.program_interface import Asked, export_program
from mlferry.models.model import MLModel
from mlferry.onnx_graph.graph import Extent, serialized
from mlferry.runtime.custom import shapes_of_classes
from mlferry.runtime.evaluators.program import check_precision, description_of
from mlferry.spec import io


def export_onnx(
    model: MLModel | str | Path,
    path: str | os.PathLike[str] | None = None,
    *,
    input_shapes: Mapping[str, Sequence[Extent]] | None = None,
    pixels: bool = False,
    precision: str | None = None,
) -> Any:
    """A Core ML neural network or ML Program as an ONNX model.

    It takes and gives what `MLModel.predict` takes and gives, under the same names: arrays in
    their described shapes, float32 also for double; images as the network gets them, [1, C, H, W]
    after scaling, or with `pixels` as predict does. Of a classifier it gives the probabilities;
    the labels are in `metadata_props`. Custom layers become ops of the domain
    `ai.mlferry.custom`. States of programs are inputs, and outputs called ``NAME_out``. The model
    needs onnxruntime 1.17 or newer (opset 18).

    Args:
        model: an `MLModel`, or what it takes.
        path: where to write the `.onnx` file; on an error, nothing is written.
        input_shapes: shapes by input instead of the described ones, e.g. ``{"image": (1, 3,
            "height", "width")}``: a string, or None, is an extent that varies. In the classic
            mapping Seq and Batch may stand in front.
        pixels: whether image inputs take pixels, uint8 [H, W, 3] in the order R, G, B or [H, W],
            which are ordered, scaled and shifted in the graph; image outputs give such pixels.
        precision: of ML Programs: "half" rounds values of float16 wherever the program does,
            "exact" computes all in float32; by default as the model does.

    Returns:
        the `onnx.ModelProto`.

    Raises:
        UnsupportedLayersError: layers that ONNX cannot express; all are named with the reasons.
        UnsupportedOperationsError: operations of a program that ONNX cannot express, likewise.
        ExportError: the model is neither network nor program, or a shape does not fit.
        SpecError: there is no such precision.
        ModelFileError: the file cannot be written.
        MissingDependencyError: the onnx package is not installed.
    """
    loaded = model if isinstance(model, MLModel) else MLModel(model)
    if loaded.spec.WhichOneof("Type") == "mlProgram":
        message = _program(loaded, Asked(input_shapes or {}, pixels, precision or loaded.precision))
    else:
        if precision is not None:
            raise ExportError("precision is for ML Programs; a neural network computes in float32")
        custom = shapes_of_classes(loaded.custom_layers)
        message = exporter.export(
            loaded.spec, input_shapes=input_shapes, pixels=pixels, custom=custom
        )
    if path is not None:
        file = Path(path)
        if file.suffix != ".onnx":
            raise ModelFileError(f"{path}: the suffix must be .onnx, not {file.suffix!r}")
        io.write_atomic(file, serialized(message))
    return message


def _program(model: MLModel, options: Asked) -> Any:
    check_precision(options.precision)
    spec = model.spec
    name, described = description_of(spec, model.function_name)
    function = spec.mlProgram.functions[name]
    return export_program(function, described, spec, model.program_weights, options)
