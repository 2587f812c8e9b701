"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlferry.layers.borders import borders
from mlferry.layers.convolution import definition as sizes
from mlferry.layers.convolution.either import LOWEST, Edges, cut_and_added, within_kernels
from mlferry.layers.exports import op
from mlferry.layers.onnx_weights import weight
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, product
from mlferry.onnx_graph.emitter import Emitter

_AUTO_PAD = {"BOTTOM_RIGHT_HEAVY": "SAME_UPPER", "TOP_LEFT_HEAVY": "SAME_LOWER"}


def over_maps(emitter: Emitter, x: str, compute: Callable[[str], str]) -> str:
    """Apply a function of [N, C, H, W] to a blob with any number of axes before the channels."""
    if emitter.rank(x) == 4:
        return compute(x)
    lead, tail = emitter.extents(x)[:-3], emitter.extents(x)[-3:]
    y = compute(emitter.reshape(x, [-1, *tail]))
    assert emitter.results is not None
    result = emitter.results[0][-3:]
    emitter.shapes[y] = (product(emitter.shape(x)[:-3]), *result)
    return emitter.reshape(y, [*lead, *emitter.extents(y)[1:]])


def pads_of(edges: Edges) -> list[int]:
    return [edge[0] for edge in edges] + [edge[1] for edge in edges]


def padded(emitter: Emitter, x: str, edges: Edges, value: float) -> str:
    """A blob with its last axes padded."""
    lead = [(0, 0)] * (emitter.rank(x) - len(edges))
    y = emitter.node("Pad", x, emitter.integers(pads_of([*lead, *edges])), emitter.number(value))
    spread = zip(emitter.shape(x), [*lead, *edges], strict=True)
    emitter.shapes[y] = tuple(None if n is None else n + sum(edge) for n, edge in spread)
    return y


# ---- convolution --------------------------------------------------------------------------------


@op("convolution", limits="`outputShape` for an input whose size is not known")
def convolution(emitter: Emitter, params: Params, x: str, *more: str) -> str:
    """Weights, and a bias, may come as inputs."""
    shape, axis = sizes.kernel_shape(params), 1 if params.isDeconvolution else 0
    weights = [more[0] if more else weight(emitter, params, "weights", shape, channel_axis=axis)]
    if len(more) > 1:
        weights.append(emitter.reshape(more[1], [params.outputChannels]))
    elif params.hasBias:
        weights.append(weight(emitter, params, "bias", (params.outputChannels,)))
    attributes = {
        "kernel_shape": list(params.kernelSize),
        "strides": list(params.stride),
        "dilations": list(params.dilationFactor),
        "group": params.nGroups,
    }

    def compute(maps: str) -> str:
        if params.isDeconvolution:
            around = sizes.transposed_sizes(params, emitter.shape(maps)[-2:])
            return spread_out(emitter, [maps, *weights], attributes, *around)
        if params.which("ConvolutionPaddingType") == "same" and None in emitter.shape(maps)[-2:]:
            if max(params.dilationFactor) > 1:  # onnxruntime's SAME takes none
                spans, mode = sizes.spans_of(params), params.same.asymmetryMode
                pads = _same_pads(emitter, maps, spans, params.stride, mode)
                wide = padded_by(emitter, maps, pads, 0)
                return emitter.node("Conv", wide, *weights, **attributes)
            padding: dict[str, Any] = {"auto_pad": _AUTO_PAD[params.same.asymmetryMode]}
        else:
            known = tuple(n or 0 for n in emitter.shape(maps))
            padding = {"pads": pads_of(sizes.edges_of(params, known))}
        return emitter.node("Conv", maps, *weights, **attributes, **padding)

    return over_maps(emitter, x, compute)


def padded_by(emitter: Emitter, x: str, pads: Sequence[tuple[str, str]], value: float) -> str:
    """A blob with its last axes padded by amounts computed at run time."""
    zeros = emitter.integers([0] * (emitter.rank(x) - len(pads)))
    starts, ends = zip(*pads, strict=True)
    amounts = emitter.node("Concat", zeros, *starts, zeros, *ends, axis=0)
    y = emitter.node("Pad", x, amounts, emitter.number(value))
    emitter.shapes[y] = (*emitter.shape(x)[: -len(pads)], *[None] * len(pads))
    return y


def _whole_steps(emitter: Emitter, room: str, stride: int) -> str:
    """A number of pixels, rounded up to whole strides, in strides."""
    more = emitter.node("Add", room, emitter.integers([stride - 1]))
    return emitter.node("Div", more, emitter.integers([stride]))


def _same_pads(
    emitter: Emitter, x: str, spans: Sequence[int], strides: Sequence[int], mode: str
) -> list[tuple[str, str]]:
    """SAME padding of height and width, whatever they are: see `windows.same_edges`."""
    results = []
    for axis, span, stride in zip((-2, -1), spans, strides, strict=True):
        size = emitter.vector([emitter.extent(x, axis)])
        last = emitter.node("Sub", _whole_steps(emitter, size, stride), emitter.integers([1]))
        end = emitter.node(
            "Add", emitter.node("Mul", last, emitter.integers([stride])), emitter.integers([span])
        )
        excess = emitter.node("Max", emitter.node("Sub", end, size), emitter.integers([0]))
        small = emitter.node("Div", excess, emitter.integers([2]))
        large = emitter.node("Sub", excess, small)
        results.append((large, small) if mode == "TOP_LEFT_HEAVY" else (small, large))
    return results


def spread_out(
    emitter: Emitter,
    inputs: Sequence[str],
    attributes: dict[str, Any],
    full: Shape,
    target: Shape,
    edges: Edges | None,
) -> str:
    """A transposed convolution whose full result is cut, or padded with zeros at the end.

    Args:
        inputs: maps, weights, and a bias.
        full: the sizes before the cut.
        target: the sizes of the result.
        edges: how much to cut off in front; the rest follows from the sizes.
    """
    pads, more = cut_and_added(full, target, edges)
    if any(
        n >= max(s, d)
        for n, s, d in zip(more, attributes["strides"], attributes["dilations"], strict=True)
    ):
        # output_padding is smaller than a stride; the bias is added to the zeros, too
        y = emitter.node("ConvTranspose", *inputs[:2], **attributes, pads=pads_of(pads))
        emitter.shapes[y] = (None, None, *[None] * len(more))
        y = padded(emitter, y, [(0, n) for n in more], 0)
        if len(inputs) < 3:
            return y
        return emitter.node("Add", y, emitter.reshape(inputs[2], [-1, *[1] * len(more)]))
    return emitter.node(
        "ConvTranspose",
        *inputs,
        **attributes,
        pads=pads_of(pads),
        output_padding=more if any(more) else None,
    )


# ---- pooling ------------------------------------------------------------------------------------


@op("pooling", limits="averages that leave out padding as wide as the kernel")
def pooling(emitter: Emitter, params: Params, x: str) -> str:
    """MAX, AVERAGE, or L2: the square root of the sum of squares."""
    if params.globalPooling:
        return _global_pooling(emitter, params, x)
    return over_maps(emitter, x, lambda maps: _pooled(emitter, params, maps))


def _global_pooling(emitter: Emitter, params: Params, x: str) -> str:
    if params.type == "L2":
        return emitter.node("ReduceL2", x, emitter.integers([-2, -1]))
    kind = "GlobalMaxPool" if params.type == "MAX" else "GlobalAveragePool"
    return over_maps(emitter, x, lambda maps: emitter.node(kind, maps))


def _pooled(emitter: Emitter, params: Params, maps: str) -> str:
    attributes = {"kernel_shape": list(params.kernelSize), "strides": list(params.stride)}
    size = emitter.shape(maps)[-2:]
    mode = params.which("PoolingPaddingType")
    if None in size:
        if mode == "includeLastPixel":
            return _pooled_to_the_end(emitter, params, maps, attributes)
        if mode == "same":
            padding: dict[str, Any] = {"auto_pad": _AUTO_PAD[params.same.asymmetryMode]}
            return pool_node(
                emitter, params.type, maps, attributes, padding, params.avgPoolExcludePadding
            )
        edges: Edges = borders(params.valid)
        return with_edges(
            emitter, params.type, maps, attributes, edges, params.avgPoolExcludePadding
        )
    known = tuple(n or 0 for n in size)
    out, edges = sizes.pooling_size(params, known)
    if params.type != "AVERAGE":
        return with_edges(emitter, params.type, maps, attributes, edges, False)
    divisor = sizes.pooling_divisor(params, known, out, edges)
    area = math.prod(params.kernelSize)
    if (divisor == area).all():
        return with_edges(emitter, params.type, maps, attributes, edges, False)
    if params.avgPoolExcludePadding and (divisor > 0).all():
        return with_edges(emitter, params.type, maps, attributes, edges, True)
    mean = with_edges(emitter, params.type, maps, attributes, edges, False)
    return emitter.node("Mul", mean, emitter.constant((area / divisor).astype(np.float32)))


def _pooled_to_the_end(
    emitter: Emitter, params: Params, maps: str, attributes: dict[str, Any]
) -> str:
    """`includeLastPixel`, where padding depends on the size: see `windows.slide_complete`."""
    first = params.includeLastPixel.paddingAmounts or (0, 0)
    pads, inside = [], []
    rows = zip((-2, -1), params.kernelSize, params.stride, first, strict=True)
    for axis, span, stride, pad in rows:
        size = emitter.vector([emitter.extent(maps, axis)])
        room = emitter.node("Add", size, emitter.integers([2 * pad - span]))
        last = emitter.node("Mul", _whole_steps(emitter, room, stride), emitter.integers([stride]))
        edge = emitter.node("Add", size, emitter.integers([pad]))
        in_padding = emitter.node("GreaterOrEqual", last, edge)
        last = emitter.node(
            "Where", in_padding, emitter.node("Sub", last, emitter.integers([stride])), last
        )
        end = emitter.node("Sub", emitter.node("Add", last, emitter.integers([span])), edge)
        pads.append((emitter.integers([pad]), emitter.node("Max", end, emitter.integers([pad]))))
        inside.append((size, pad))
    filler = LOWEST if params.type == "MAX" else 0
    source = padded_by(emitter, maps, pads, filler)
    y = pool_node(emitter, params.type, source, attributes, {}, False)
    if params.type != "AVERAGE":
        return y
    # the part of every window that counts: the real pixels, or the padding of both sides as well
    ones = emitter.node(
        "Expand",
        emitter.number(1),
        emitter.node("Concat", emitter.integers([1, 1]), *(size for size, _ in inside), axis=0),
    )
    emitter.shapes[ones] = (1, 1, None, None)
    if not params.avgPoolExcludePadding:
        ones = padded(emitter, ones, [(pad, pad) for _, pad in inside], 1)
        pads = [
            (emitter.integers([0]), emitter.node("Sub", end, emitter.integers([pad])))
            for (_, end), (_, pad) in zip(pads, inside, strict=True)
        ]
    counted = pool_node(
        emitter, "AVERAGE", padded_by(emitter, ones, pads, 0), attributes, {}, False
    )
    return emitter.node("Div", y, counted)


def with_edges(
    emitter: Emitter, kind: str, x: str, attributes: dict[str, Any], edges: Edges, exclude: bool
) -> str:
    """Pooling with known padding; padding as wide as the kernel is a node of its own."""
    filler = within_kernels(kind, edges, attributes["kernel_shape"], exclude=exclude)
    if filler is not None:
        x = padded(emitter, x, edges, filler)
        edges = [(0, 0)] * len(edges)
    return pool_node(emitter, kind, x, attributes, {"pads": pads_of(edges)}, exclude)


def pool_node(
    emitter: Emitter,
    kind: str,
    x: str,
    attributes: dict[str, Any],
    padding: dict[str, Any],
    exclude: bool,
) -> str:
    if kind == "MAX":
        return emitter.node("MaxPool", x, **attributes, **padding)
    if kind == "L2":
        return emitter.node("LpPool", x, p=2, **attributes, **padding)
    include = int(not exclude)
    return emitter.node("AveragePool", x, count_include_pad=include, **attributes, **padding)
