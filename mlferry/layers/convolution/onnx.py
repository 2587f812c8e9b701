"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlferry.layers.borders import borders
from mlferry.layers.convolution import definition as sizes
from mlferry.layers.exports import op, refuse
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.numerics import windows
from mlferry.numerics.shapes import Shape, product
from mlferry.onnx_graph.emitter import Emitter

Edges = Sequence[windows.Edges]
_AUTO_PAD = {"BOTTOM_RIGHT_HEAVY": "SAME_UPPER", "TOP_LEFT_HEAVY": "SAME_LOWER"}
_LOWEST = float(np.finfo(np.float32).min)


def over_maps(e: Emitter, x: str, compute: Callable[[str], str]) -> str:
    """What works on [N, C, H, W] applied to a blob with any number of axes before the channels."""
    if e.rank(x) == 4:
        return compute(x)
    lead, tail = e.extents(x)[:-3], e.extents(x)[-3:]
    y = compute(e.reshape(x, [-1, *tail]))
    assert e.results is not None
    made = e.results[0][-3:]
    e.shapes[y] = (product(e.shape(x)[:-3]), *made)
    return e.reshape(y, [*lead, *e.extents(y)[1:]])


def pads_of(edges: Edges) -> list[int]:
    return [edge[0] for edge in edges] + [edge[1] for edge in edges]


def padded(e: Emitter, x: str, edges: Edges, value: float) -> str:
    """A blob with its last axes padded."""
    lead = [(0, 0)] * (e.rank(x) - len(edges))
    y = e.node("Pad", x, e.integers(pads_of([*lead, *edges])), e.number(value))
    spread = zip(e.shape(x), [*lead, *edges], strict=True)
    e.shapes[y] = tuple(None if n is None else n + sum(edge) for n, edge in spread)
    return y


# ---- convolution --------------------------------------------------------------------------------


@op("convolution", limits="`outputShape` for an input whose size is not known")
def convolution(e: Emitter, p: Params, x: str, *given: str) -> str:
    """Weights, and a bias, may come as inputs."""
    shape: tuple[int, ...] = (p.outputChannels, p.kernelChannels, *p.kernelSize)
    if p.isDeconvolution:
        shape = (p.kernelChannels, p.outputChannels // p.nGroups, *p.kernelSize)
    stored = [
        given[0] if given else
        weight(e, p, "weights", shape, channel_axis=1 if p.isDeconvolution else 0)
    ]  # fmt: skip
    if len(given) > 1:
        stored.append(e.reshape(given[1], [p.outputChannels]))
    elif p.hasBias:
        stored.append(weight(e, p, "bias", (p.outputChannels,)))
    attributes = {
        "kernel_shape": list(p.kernelSize), "strides": list(p.stride),
        "dilations": list(p.dilationFactor), "group": p.nGroups,
    }  # fmt: skip

    def compute(maps: str) -> str:
        if p.isDeconvolution:
            full, wanted = _full_and_wanted(p, e.shape(maps)[-2:])
            return spread_out(e, [maps, *stored], attributes, full, wanted, _cut(p, full, wanted))
        if p.which("ConvolutionPaddingType") == "same" and None in e.shape(maps)[-2:]:
            if max(p.dilationFactor) > 1:  # onnxruntime's SAME takes none
                spans = [(k - 1) * d + 1 for k, d in zip(
                    p.kernelSize, p.dilationFactor, strict=True)]  # fmt: skip
                pads = _same_pads(e, maps, spans, p.stride, p.same.asymmetryMode)
                return e.node("Conv", padded_by(e, maps, pads, 0), *stored, **attributes)
            padding: dict[str, Any] = {"auto_pad": _AUTO_PAD[p.same.asymmetryMode]}
        else:
            known = tuple(n or 0 for n in e.shape(maps))
            padding = {"pads": pads_of(sizes.edges_of(p, known))}
        return e.node("Conv", maps, *stored, **attributes, **padding)

    return over_maps(e, x, compute)


def _full_and_wanted(p: Params, size: Shape) -> tuple[Shape, Shape]:
    """The size of a transposed convolution before anything is cut off, and the one after.

    With SAME padding they differ by the same amount for every input: one pixel stands for all
    where the size is not known.
    """
    if p.which("ConvolutionPaddingType") == "same" and not p.outputShape and None in size:
        size = (1, 1)
    full = tuple(
        windows.spread(n, (k - 1) * d + 1, s, (0, 0))
        for n, k, d, s in zip(size, p.kernelSize, p.dilationFactor, p.stride, strict=True)
    )
    return full, sizes.deconvolution_size(p, (size[0], size[1]))


def _cut(p: Params, full: Shape, wanted: Shape) -> Edges | None:
    """What is cut off the full result of a transposed convolution, where it can be told."""
    if None not in (*full, *wanted):
        (a, b), (c, d) = (tuple(n or 0 for n in size) for size in (full, wanted))
        return sizes.deconvolution_edges(p, (a, b), (c, d))
    return None if p.outputShape else borders(p.valid)


def padded_by(e: Emitter, x: str, pads: Sequence[tuple[str, str]], value: float) -> str:
    """A blob with its last axes padded by amounts that are made at run time."""
    zeros = e.integers([0] * (e.rank(x) - len(pads)))
    starts, ends = zip(*pads, strict=True)
    amounts = e.node("Concat", zeros, *starts, zeros, *ends, axis=0)
    y = e.node("Pad", x, amounts, e.number(value))
    e.shapes[y] = (*e.shape(x)[: -len(pads)], *[None] * len(pads))
    return y


def _whole_steps(e: Emitter, room: str, stride: int) -> str:
    """A number of pixels, rounded up to whole strides, in strides."""
    more = e.node("Add", room, e.integers([stride - 1]))
    return e.node("Div", more, e.integers([stride]))


def _same_pads(
    e: Emitter, x: str, spans: Sequence[int], strides: Sequence[int], mode: str
) -> list[tuple[str, str]]:
    """SAME padding of height and width, whatever they are: see `windows.same_edges`."""
    found = []
    for axis, span, stride in zip((-2, -1), spans, strides, strict=True):
        size = e.vector([e.extent(x, axis)])
        last = e.node("Sub", _whole_steps(e, size, stride), e.integers([1]))
        end = e.node("Add", e.node("Mul", last, e.integers([stride])), e.integers([span]))
        excess = e.node("Max", e.node("Sub", end, size), e.integers([0]))
        small = e.node("Div", excess, e.integers([2]))
        large = e.node("Sub", excess, small)
        found.append((large, small) if mode == "TOP_LEFT_HEAVY" else (small, large))
    return found


def spread_out(
    e: Emitter, inputs: Sequence[str], attributes: dict[str, Any], full: Shape, wanted: Shape,
    edges: Edges | None,
) -> str:  # fmt: skip
    """A transposed convolution whose full result is cut, or filled up with zeros at the end.

    Args:
        e: the emitter.
        inputs: maps, weights, and a bias.
        attributes: of the node.
        full: the sizes that nothing is cut off.
        wanted: the sizes of the result.
        edges: what is cut off in front; what is cut off behind follows from the sizes.
    """
    if edges is None:
        raise refuse("outputShape for an input whose size is not known")
    pads, more = [], []
    for index, (begin, end) in enumerate(edges):
        size, goal = full[index], wanted[index]
        behind = end if size is None or goal is None else size - begin - goal
        pads.append((begin, max(0, behind)))
        more.append(max(0, -behind))
    if any(
        n >= max(s, d)
        for n, s, d in zip(more, attributes["strides"], attributes["dilations"], strict=True)
    ):
        # output_padding is smaller than a stride; the bias is added to the zeros, too
        y = e.node("ConvTranspose", *inputs[:2], **attributes, pads=pads_of(pads))
        e.shapes[y] = (None, None, *[None] * len(more))
        y = padded(e, y, [(0, n) for n in more], 0)
        if len(inputs) < 3:
            return y
        return e.node("Add", y, e.reshape(inputs[2], [-1, *[1] * len(more)]))
    return e.node(
        "ConvTranspose", *inputs, **attributes, pads=pads_of(pads),
        output_padding=more if any(more) else None,
    )  # fmt: skip


# ---- pooling ------------------------------------------------------------------------------------


@op("pooling", limits="averages that leave out padding as wide as the kernel")
def pooling(e: Emitter, p: Params, x: str) -> str:
    """MAX, AVERAGE, or L2: the square root of the sum of squares."""
    if p.globalPooling:
        return _global_pooling(e, p, x)
    return over_maps(e, x, lambda maps: _pooled(e, p, maps))


def _global_pooling(e: Emitter, p: Params, x: str) -> str:
    if p.type == "L2":
        return e.node("ReduceL2", x, e.integers([-2, -1]))
    kind = "GlobalMaxPool" if p.type == "MAX" else "GlobalAveragePool"
    return over_maps(e, x, lambda maps: e.node(kind, maps))


def _pooled(e: Emitter, p: Params, maps: str) -> str:
    attributes = {"kernel_shape": list(p.kernelSize), "strides": list(p.stride)}
    size = e.shape(maps)[-2:]
    mode = p.which("PoolingPaddingType")
    if None in size:
        if mode == "includeLastPixel":
            return _pooled_to_the_end(e, p, maps, attributes)
        if mode == "same":
            padding: dict[str, Any] = {"auto_pad": _AUTO_PAD[p.same.asymmetryMode]}
            return pool_node(e, p.type, maps, attributes, padding, p.avgPoolExcludePadding)
        edges: Edges = borders(p.valid)
        return with_edges(e, p.type, maps, attributes, edges, p.avgPoolExcludePadding)
    known = tuple(n or 0 for n in size)
    out, edges = sizes.pooling_size(p, known)
    if p.type != "AVERAGE":
        return with_edges(e, p.type, maps, attributes, edges, False)
    divisor = sizes.pooling_divisor(p, known, out, edges)
    area = math.prod(p.kernelSize)
    if (divisor == area).all():
        return with_edges(e, p.type, maps, attributes, edges, False)
    if p.avgPoolExcludePadding and (divisor > 0).all():
        return with_edges(e, p.type, maps, attributes, edges, True)
    mean = with_edges(e, p.type, maps, attributes, edges, False)
    return e.node("Mul", mean, e.constant((area / divisor).astype(np.float32)))


def _pooled_to_the_end(e: Emitter, p: Params, maps: str, attributes: dict[str, Any]) -> str:
    """`includeLastPixel`, where padding depends on the size: see `windows.slide_complete`."""
    first = p.includeLastPixel.paddingAmounts or (0, 0)
    pads, inside = [], []
    rows = zip((-2, -1), p.kernelSize, p.stride, first, strict=True)
    for axis, span, stride, pad in rows:
        size = e.vector([e.extent(maps, axis)])
        room = e.node("Add", size, e.integers([2 * pad - span]))
        last = e.node("Mul", _whole_steps(e, room, stride), e.integers([stride]))
        edge = e.node("Add", size, e.integers([pad]))
        in_padding = e.node("GreaterOrEqual", last, edge)
        last = e.node("Where", in_padding, e.node("Sub", last, e.integers([stride])), last)
        end = e.node("Sub", e.node("Add", last, e.integers([span])), edge)
        pads.append((e.integers([pad]), e.node("Max", end, e.integers([pad]))))
        inside.append((size, pad))
    filler = _LOWEST if p.type == "MAX" else 0
    source = padded_by(e, maps, pads, filler)
    y = pool_node(e, p.type, source, attributes, {}, False)
    if p.type != "AVERAGE":
        return y
    # the part of every window that counts: the real pixels, or the padding of both sides as well
    ones = e.node("Expand", e.number(1), e.node("Concat", e.integers([1, 1]), *(
        size for size, _ in inside), axis=0))  # fmt: skip
    e.shapes[ones] = (1, 1, None, None)
    if not p.avgPoolExcludePadding:
        ones = padded(e, ones, [(pad, pad) for _, pad in inside], 1)
        pads = [(e.integers([0]), e.node("Sub", end, e.integers([pad])))
                for (_, end), (_, pad) in zip(pads, inside, strict=True)]  # fmt: skip
    counted = pool_node(e, "AVERAGE", padded_by(e, ones, pads, 0), attributes, {}, False)
    return e.node("Div", y, counted)


def with_edges(
    e: Emitter, kind: str, x: str, attributes: dict[str, Any], edges: Edges, exclude: bool
) -> str:
    """Pooling with known padding; what is as wide as the kernel comes before the node."""
    spans = zip(edges, attributes["kernel_shape"], strict=True)
    if any(max(edge) >= span for edge, span in spans):
        if exclude:
            raise refuse("padding as wide as the kernel, which the average leaves out")
        x = padded(e, x, edges, _LOWEST if kind == "MAX" else 0)
        edges = [(0, 0)] * len(edges)
    return pool_node(e, kind, x, attributes, {"pads": pads_of(edges)}, exclude)


def pool_node(
    e: Emitter, kind: str, x: str, attributes: dict[str, Any], padding: dict[str, Any],
    exclude: bool,
) -> str:  # fmt: skip
    if kind == "MAX":
        return e.node("MaxPool", x, **attributes, **padding)
    if kind == "L2":
        return e.node("LpPool", x, p=2, **attributes, **padding)
    include = int(not exclude)
    return e.node("AveragePool", x, count_include_pad=include, **attributes, **padding)
