"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.spec.params import Params
from mlferry.spec.shapes import windows
from mlferry.spec.shapes.rules import Extent, Shape, need_rank, rule, show


@rule("convolution")
def convolution(p: Params, shape: Shape, weights: Shape | None = None, *_: Shape) -> list[Shape]:
    need_rank(shape, 4)
    *outer, channels, height, width = shape
    wanted = p.kernelChannels if p.isDeconvolution else p.kernelChannels * p.nGroups
    if channels not in (wanted, None):
        raise SpecError(f"input {show(shape)} has {channels} channels, the layer takes {wanted}")
    if weights is not None:
        first, second = p.outputChannels, p.kernelChannels
        if p.isDeconvolution:
            first, second = p.kernelChannels, p.outputChannels // p.nGroups
        stored = (first, second, *p.kernelSize)
        if len(weights) != 4 or any(
            extent not in (other, None) for extent, other in zip(weights, stored, strict=True)
        ):
            raise SpecError(f"weights of shape {show(weights)}; {show(stored)} is needed")
    if p.isDeconvolution:
        spatial = deconvolution_size(p, (height, width))
    else:
        spatial = tuple(
            windows.slide_same(size, stride)
            if p.which("ConvolutionPaddingType") == "same"
            else windows.slide(size, (kernel - 1) * dilation + 1, stride, edges)
            for size, kernel, stride, dilation, edges in zip(
                (height, width),
                p.kernelSize,
                p.stride,
                p.dilationFactor,
                windows.borders(p.valid),
                strict=True,
            )
        )
    return [(*outer, p.outputChannels, *spatial)]


def deconvolution_size(p: Params, sizes: tuple[Extent, Extent]) -> tuple[Extent, ...]:
    """Output height and width: `outputShape` if set, else what the padding leaves."""
    if p.outputShape:
        return tuple(p.outputShape)
    if p.which("ConvolutionPaddingType") == "same":
        return tuple(
            None if size is None else size * stride
            for size, stride in zip(sizes, p.stride, strict=True)
        )
    return tuple(
        windows.spread(size, (kernel - 1) * dilation + 1, stride, edges)
        for size, kernel, stride, dilation, edges in zip(
            sizes,
            p.kernelSize,
            p.stride,
            p.dilationFactor,
            windows.borders(p.valid),
            strict=True,
        )
    )


@rule("pooling")
def pooling(p: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 4)
    *outer, height, width = shape
    if p.globalPooling:
        return [(*outer, 1, 1)]
    mode = p.which("PoolingPaddingType")
    spatial: list[Extent] = []
    for axis, size in enumerate((height, width)):
        span, stride = p.kernelSize[axis], p.stride[axis]
        if mode == "same":
            spatial.append(windows.slide_same(size, stride))
        elif mode == "includeLastPixel":
            pads = p.includeLastPixel.paddingAmounts or (0, 0)
            spatial.append(windows.slide_complete(size, span, stride, pads[axis]))
        else:
            edges = windows.borders(p.valid)[axis]
            spatial.append(windows.slide(size, span, stride, edges))
    return [(*outer, *spatial)]
