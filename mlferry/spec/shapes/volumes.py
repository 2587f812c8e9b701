"""Convolution and pooling over depth, height and width."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes import windows
from mlferry.spec.shapes.rules import Change, Extent, Shape, rule, show, size_check

_AXES = ("Depth", "Height", "Width")
_SIDES = (("Front", "Back"), ("Top", "Bottom"), ("Left", "Right"))


def triple(p: Params, field: str) -> tuple[int, int, int]:
    """A parameter of depth, height and width."""
    depth, height, width = (getattr(p, field + axis) for axis in _AXES)
    return depth, height, width


def custom_edges(p: Params) -> list[windows.Edges]:
    """The custom padding, which counts with that type of padding only."""
    if p.paddingType != "CUSTOM":
        return [(0, 0)] * 3
    return [
        (getattr(p, f"customPadding{start}"), getattr(p, f"customPadding{end}"))
        for start, end in _SIDES
    ]


def spans_of(p: Params) -> tuple[int, int, int]:
    """How far a dilated kernel reaches."""
    depth, height, width = (
        (kernel - 1) * dilation + 1
        for kernel, dilation in zip(triple(p, "kernel"), triple(p, "dilation"), strict=True)
    )
    return depth, height, width


def edges_of(p: Params, sizes: Shape, spans: tuple[int, int, int]) -> list[windows.Edges]:
    """The padding of an input of these depths, heights and widths."""
    if p.paddingType != "SAME":
        return custom_edges(p)
    return [
        windows.same_edges(size, span, stride, "BOTTOM_RIGHT_HEAVY")
        for size, span, stride in zip(sizes, spans, triple(p, "stride"), strict=True)
    ]


def _need_five(shape: Shape) -> None:
    if len(shape) != 5:
        raise SpecError(f"input of shape {show(shape)} needs 5 axes: Batch, C, D, H, W")


@rule("convolution3d")
def convolution3d(p: Params, shape: Shape) -> list[Shape]:
    _need_five(shape)
    if shape[1] not in (p.inputChannels, None):
        raise SpecError(
            f"input {show(shape)} has {shape[1]} channels, the layer takes {p.inputChannels}"
        )
    return [(shape[0], p.outputChannels, *convolved(p, shape[2:]))]


def convolved(p: Params, sizes: Shape) -> Shape:
    """Depth, height and width of the output of a `convolution3d`."""
    if p.isDeconvolution and p.outputShape:
        return tuple(p.outputShape)
    result: list[Extent] = []
    for size, span, stride, edges in zip(
        sizes, spans_of(p), triple(p, "stride"), custom_edges(p), strict=True
    ):
        if not p.isDeconvolution:
            result.append(slid(p, size, span, stride, edges))
        elif p.paddingType == "SAME":
            result.append(None if size is None else size * stride)
        else:
            result.append(windows.spread(size, span, stride, edges))
    return tuple(result)


def slid(p: Params, size: Extent, span: int, stride: int, edges: windows.Edges) -> Extent:
    """How many windows there are along an axis."""
    if p.paddingType == "SAME":
        return windows.slide_same(size, stride)
    return windows.slide(size, span, stride, edges)


@rule("pooling3d")
def pooling3d(p: Params, shape: Shape) -> list[Shape]:
    _need_five(shape)
    axes = zip(shape[2:], triple(p, "kernel"), triple(p, "stride"), custom_edges(p), strict=True)
    return [(*shape[:2], *(slid(p, *axis) for axis in axes))]


@rule("globalPooling3d")
def global_pooling3d(p: Params, shape: Shape) -> list[Shape]:
    _need_five(shape)
    return [(*shape[:2], 1, 1, 1)]


@size_check("convolution3d")
def bound_convolution3d(p: Params, change: Change) -> str:
    """Only a transposed one has an output size of its own."""
    bound = p.isDeconvolution and p.outputShape and any(axis > 1 for axis in change.varying())
    return f"its output has the fixed size {show(p.outputShape)}" if bound else ""
