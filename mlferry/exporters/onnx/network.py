"""The layers of a network as the nodes of a graph: one walk, with control flow."""

from __future__ import annotations

from mlferry.exporters.onnx.control import CONTROL_FLOW
from mlferry.exporters.onnx.translation import Translation
from mlferry.layers.trace import CustomShapes, nothing_known
from mlferry.spec import networks

SPECIAL = ("custom", *CONTROL_FLOW)


def translation_of(
    network: networks.Network, custom: CustomShapes = nothing_known, most_rounds: int | None = None
) -> Translation:
    """The walk that writes the layers of a network; see `Translation`."""
    return Translation(network, CONTROL_FLOW, custom, most_rounds)
