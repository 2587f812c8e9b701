"""Layers that move values without computing."""

from __future__ import annotations

from mlferry.layers.params import Params
from mlferry.layers.reshaping.definition import reshape as reshaped
from mlferry.layers.writers import V, Writer, in_both
from mlferry.numerics.shapes import axis_of, product
from mlferry.refusals import refuse


@in_both("transpose")
def transpose(writer: Writer[V], params: Params, x: V) -> V:
    return writer.transpose(x, params.axes)


@in_both("reshapeStatic")
def reshape_static(writer: Writer[V], params: Params, x: V) -> V:
    return writer.reshape(x, params.targetShape)


@in_both("reshape", five_axes=True, limits="extents of the result that are not known")
def reshape(writer: Writer[V], params: Params, x: V) -> V:
    """To [C, H, W] of each step, or to [Seq, C, H, W], batch by batch.

    CHANNEL_LAST reads and writes the values in the order H, W, C.
    """
    last = params.mode == "CHANNEL_LAST"
    steps, batch, channels, height, width = reshaped(params, writer.shape(x))[0]
    if None in (channels, height, width) or (steps is None and batch is None):
        raise refuse("the extents of the result are not known")
    lead = [batch if batch is not None else -1, steps if steps is not None else -1]
    samples = writer.transpose(x, [1, 0, 3, 4, 2] if last else [1, 0, 2, 3, 4])
    inner = [height, width, channels] if last else [channels, height, width]
    y = writer.reshape(samples, [*lead, *(n or 0 for n in inner)])
    return writer.transpose(y, [1, 0, 4, 2, 3] if last else [1, 0, 2, 3, 4])


@in_both("permute", five_axes=True)
def permute(writer: Writer[V], params: Params, x: V) -> V:
    """Axes count in [Seq, C, H, W]; the batch stays."""
    steps, *inner = ((0, 2, 3, 4)[axis] for axis in params.axis)
    return writer.transpose(x, [steps, 1, *inner])


@in_both("rankPreservingReshape")
def rank_preserving_reshape(writer: Writer[V], params: Params, x: V) -> V:
    """A 0 keeps an extent."""
    target = [n or writer.extent(x, axis) for axis, n in enumerate(params.targetShape)]
    return writer.reshape(x, target)


@in_both("flatten")
def flatten(writer: Writer[V], params: Params, x: V) -> V:
    """CHANNEL_LAST flattens in the order H, W, C."""
    lead, size = writer.extents(x)[:-3], product(writer.shape(x)[-3:])
    if params.mode == "CHANNEL_LAST":
        rank = writer.rank(x)
        x = writer.transpose(x, [*range(rank - 3), rank - 2, rank - 1, rank - 3])
    return writer.reshape(x, [*lead, -1 if size is None else size, 1, 1])


@in_both("squeeze", limits="`squeezeAll` where extents are not known")
def squeeze(writer: Writer[V], params: Params, x: V) -> V:
    """Without axes, or with `squeezeAll`, all axes of extent 1 go, but one axis always stays."""
    shape = writer.shape(x)
    if params.squeezeAll or not params.axes:
        if None in shape:
            raise refuse("which extents are 1 is not known, so the rank of the result is not")
        axes = [axis for axis, extent in enumerate(shape) if extent == 1]
    else:
        axes = sorted({axis_of(axis, len(shape)) for axis in params.axes})
    if len(axes) == len(shape):
        return writer.reshape(x, [1])
    return writer.squeeze(x, axes)


@in_both("expandDims")
def expand_dims(writer: Writer[V], params: Params, x: V) -> V:
    rank = writer.rank(x) + len(params.axes)
    return writer.expand(x, sorted(axis_of(axis, rank) for axis in params.axes))
