"""A Core ML network as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlferry.errors import ExportError
from mlferry.exporters.ends import outputs_of
from mlferry.exporters.onnx import interface
from mlferry.exporters.onnx.network import translation_of
from mlferry.layers.trace import CustomShapes, nothing_known
from mlferry.onnx_graph.graph import Extent, import_onnx
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2


def export(
    spec: model_pb2.Model,
    *,
    input_shapes: Mapping[str, Sequence[Extent]] | None = None,
    pixels: bool = False,
    custom: CustomShapes = nothing_known,
) -> Any:
    """A `ModelProto` that computes what a neural network computes.

    Args:
        spec: a neural network of any of the three kinds.
        input_shapes: shapes by input, in place of the described ones; a string, or None, is an
            extent that varies.
        pixels: whether image inputs and outputs are pixels, as `MLModel.predict` has them.
        custom: gives the output shapes of custom layers.

    Raises:
        ExportError: the model is not a neural network, or an input cannot be expressed.
        UnsupportedLayersError: ONNX cannot express some layers; all are named.
        MissingDependencyError: the onnx package is not installed.
    """
    import_onnx()
    network = networks.network_of(spec)
    if network is None:
        raise ExportError(_why_not(spec))
    t = translation_of(network, custom)
    interface.add_inputs(t, spec, network, input_shapes or {}, pixels=pixels)
    t.run(network.layers, set(outputs_of(spec, network).values()))
    t.check()
    interface.add_outputs(t, spec, network, pixels=pixels)
    return t.finish().message(interface.metadata(spec, network))


def _why_not(spec: model_pb2.Model) -> str:
    kind = spec.WhichOneof("Type")
    if networks.pipeline_of(spec) is not None:
        return (
            "a pipeline is several models: export its neural networks and programs one by one, "
            "each mlferry.export_onnx(mlferry.MLModel(part)) of spec.pipeline.models; programs "
            "need weights_dir=model.weights_dir"
        )
    return (
        f"a model of kind {kind!r} is neither a neural network nor an ML Program: only those "
        "become ONNX graphs"
    )
