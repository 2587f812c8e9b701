"""The padding of a layer's input, spelled out."""

from __future__ import annotations

from mlferry.layers.trace import Known
from mlferry.models.view.families import enum_name
from mlferry.numerics.windows import same_edges
from mlferry.spec.proto import neural_network_pb2 as nn

_SIDES = (("top", "bottom"), ("left", "right"))
_FIELDS = ("valid.", "same.")


def is_padding(row: str) -> bool:
    """Whether `padding` covers a row of parameters."""
    return row in ("valid", "same") or row.startswith(_FIELDS)


def padding(layer: nn.NeuralNetworkLayer, shapes: Known) -> str:
    """``top 1, bottom 1, left 1, right 1``, and where they come from; "" if a layer has none."""
    kind = layer.WhichOneof("layer")
    if kind not in ("convolution", "pooling"):
        return ""
    params = getattr(layer, kind)
    which = params.WhichOneof(f"{kind.capitalize()}PaddingType")
    if which == "valid":
        amounts = params.valid.paddingAmounts.borderAmounts
        edges = [(each.startEdgeSize, each.endEdgeSize) for each in amounts]
        return _text(edges) if edges else "none"
    if which != "same":
        return ""
    field = params.same.DESCRIPTOR.fields_by_name["asymmetryMode"]
    mode = enum_name(field.enum_type, params.same.asymmetryMode)
    shape = shapes.get(layer.input[0]) if layer.input else None
    size = list(shape or ())[-2:]
    if kind == "convolution" and params.isDeconvolution:
        size = []
    if len(size) < 2 or None in size or (kind == "pooling" and params.globalPooling):
        return f"same, {mode}"
    kernel = [*params.kernelSize] or [3, 3]
    stride = [*params.stride] or [1, 1]
    dilation = [*getattr(params, "dilationFactor", ())] or [1, 1]
    whole = [*size, *kernel, *stride, *dilation]
    if len(whole) != 8 or min(whole) < 1:  # a broken layer is drawn, too
        return f"same, {mode}"
    edges = [
        same_edges(extent, (k - 1) * d + 1, s, mode)
        for extent, k, d, s in zip(size, kernel, dilation, stride, strict=True)
    ]
    return f"same: {_text(edges)} ({mode})"


def _text(edges: list[tuple[int, int]]) -> str:
    return ", ".join(
        f"{name} {amount}"
        for names, amounts in zip(_SIDES, edges, strict=False)
        for name, amount in zip(names, amounts, strict=True)
    )
