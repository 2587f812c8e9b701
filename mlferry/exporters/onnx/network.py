"""The layers of a network as the nodes of a graph: one walk, with control flow."""

from __future__ import annotations

from mlferry.exporters.onnx import control
from mlferry.exporters.onnx.translation import Special, Translation
from mlferry.layers.trace import CustomShapes, nothing_known
from mlferry.spec import networks

CONTROL_FLOW: dict[str, Special] = {
    "branch": control.branch,
    "loop": control.loop,
    "loopBreak": control.outside,
    "loopContinue": control.outside,
}
SPECIAL = ("custom", *CONTROL_FLOW)


def translation_of(
    network: networks.Network,
    custom: CustomShapes = nothing_known,
    most_rounds: int | None = None,
) -> Translation:
    """The walk that writes the layers of a network; see `Translation`."""
    return Translation(network, CONTROL_FLOW, custom, most_rounds)
