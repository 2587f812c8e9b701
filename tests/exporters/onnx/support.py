"""Exported graphs, checked and run by onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from mlferry.errors import UnsupportedLayersError
from mlferry.exporters.onnx import export
from mlferry.spec import features
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from tests.layers.case import Case, network

Array = np.ndarray[Any, Any]


def spec_of(
    result: nn.NeuralNetwork, inputs: Mapping[str, Sequence[int]], outputs: Sequence[str]
) -> model_pb2.Model:
    """A model around a network, of float32 arrays."""
    spec = model_pb2.Model(specificationVersion=5)
    spec.neuralNetwork.CopyFrom(result)
    for name, shape in inputs.items():
        feature = spec.description.input.add(name=name)
        feature.type.CopyFrom(features.multi_array(tuple(shape)))
    for name in outputs:
        feature = spec.description.output.add(name=name)
        feature.type.CopyFrom(features.multi_array(None))
    return spec


def checked(model: Any) -> onnx.ModelProto:
    """A model after the full check of the onnx package."""
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: Any, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a model by name."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        checked(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, dict(inputs)), strict=True))


def exported(
    result: nn.NeuralNetwork, inputs: Mapping[str, Array], outputs: Sequence[str], **options: Any
) -> dict[str, Array]:
    """What the exported graph of a network gives for some blobs."""
    shapes = {name: x.shape for name, x in inputs.items()}
    return run(export(spec_of(result, shapes, outputs), **options), inputs)


def nodes_of(case: Case) -> set[str]:
    """The kinds of nodes that a row of the runtime's tables becomes; none where it is refused."""
    converted = network(case.kind, case.params, len(case.inputs), len(case.expected), case.mapping)
    shapes = {f"x{index}": x.shape for index, x in enumerate(case.inputs)}
    try:
        model = export(spec_of(converted, shapes, list(converted.layers[0].output)))
    except UnsupportedLayersError:
        return set()
    apart = {"Squeeze", "Unsqueeze"} if case.mapping == "rank5" else set()  # of the interface
    return {node.op_type for node in model.graph.node} - {"Identity"} - apart
