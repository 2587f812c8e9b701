"""The order of a blob's axes, compared with that of the source.

Core ML computes channels-first. A converter says which layouts of its inputs it can handle; the
walk picks one of them, and a transpose is added only if the order really changes. Transposed copies
are kept, so that no blob is transposed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from mlferry.converters.values import CHANNELS_FIRST, SOURCE, Accepted, Blob, Layout
from mlferry.converters.writer import LayerWriter
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import product


def arrange(writer: LayerWriter, x: Blob, layout: Layout) -> Blob:
    """The blob in another layout; blobs of one or two axes have only one, unless flat."""
    if x.layout.kind == layout.kind or (x.is_scalar and layout == SOURCE):
        return x
    if x.layout.kind == "flat":
        return _kept(writer, x, SOURCE, _unflatten)
    if x.rank < 3:
        return replace(x, layout=layout if layout.kind != "flat" else SOURCE)
    if layout.kind == "flat":
        return arrange(writer, x, SOURCE)
    return _kept(writer, x, layout, _transpose)


def _kept(
    writer: LayerWriter, x: Blob, layout: Layout, make: Callable[[LayerWriter, Blob, Layout], Blob]
) -> Blob:
    key = (x.name, layout.kind)
    if key not in writer.arranged:
        output = make(writer, x, layout)
        writer.arranged[key] = output
        writer.arranged[(output.name, x.layout.kind)] = x
    return writer.arranged[key]


def _transpose(writer: LayerWriter, x: Blob, layout: Layout) -> Blob:
    rank = x.rank
    first = (0, rank - 1, *range(1, rank - 1))
    last = (0, *range(2, rank), 1)
    name = f"{x.name}/{layout.kind.replace(' ', '_')}"
    axes = first if layout == CHANNELS_FIRST else last
    return writer.layer("transpose", x, name=name, layout=layout, axes=axes)


def _unflatten(writer: LayerWriter, x: Blob, layout: Layout) -> Blob:
    if None in x.layout.inner:
        raise ConversionError(
            f"the order of the flattened values {x.name!r} depends on a size that is not known: "
            "where it is flexible, give fixed shapes with inputs=[mlferry.TensorType(...)]; where "
            "an own layer hides it, return CustomLayerParams(..., output_shapes=...) from its "
            "conversion function"
        )
    *spatial, channels = x.layout.inner
    batch = -1 if x.known[0] is None else x.known[0]
    shape = (batch, channels, *spatial)
    name = f"{x.name}/source"
    maps = writer.layer("reshapeStatic", x, name=f"{name}_maps", layout=SOURCE, targetShape=shape)
    axes = (0, *range(2, len(shape)), 1)
    ordered = writer.layer("transpose", maps, name=f"{name}_turned", layout=SOURCE, axes=axes)
    size = product(x.layout.inner)
    return writer.layer(
        "reshapeStatic", ordered, name=name, layout=SOURCE, targetShape=(batch, size)
    )


def choose(inputs: Sequence[Blob], accepted: Accepted) -> Layout:
    """The layout of a converter's inputs: their own, if all agree and it is accepted."""
    kinds = {layout.kind for layout in accepted}
    layouts = {x.layout for x in inputs if x.layout.kind == "flat" or x.shape is None}
    layouts |= {x.layout for x in inputs if x.shape is not None and len(x.shape) >= 3}
    layouts = layouts or {SOURCE}
    if len(layouts) == 1:
        only = layouts.pop()
        if only.kind in kinds and (only == SOURCE or _same_rank(inputs) or len(inputs) == 1):
            return only
    elif CHANNELS_FIRST in layouts and CHANNELS_FIRST.kind in kinds and _same_rank(inputs):
        return CHANNELS_FIRST
    return accepted[0]


def _same_rank(inputs: Sequence[Blob]) -> bool:
    return len({None if x.shape is None else len(x.shape) for x in inputs}) == 1
