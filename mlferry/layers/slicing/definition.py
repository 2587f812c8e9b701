"""Layers that take parts of an array."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    MANY,
    Change,
    LaterOption,
    RankUnknownError,
    layer_kind,
    layer_rule,
    size_check,
)
from mlferry.layers.params import Params
from mlferry.numerics.shapes import (
    Extent,
    Shape,
    axis_of,
    need_rank,
    number_of_parts,
    replaced,
    show,
)
from mlferry.spec.problems import Problems, error, listed
from mlferry.spec.proto import neural_network_pb2 as nn

AXIS_OF_SLICE = {"CHANNEL_AXIS": -3, "HEIGHT_AXIS": -2, "WIDTH_AXIS": -1}


def classic_slice(params: Params) -> slice:
    """The interval of a `slice` layer; an end of 0 means the end of the axis."""
    return slice(params.startIndex, params.endIndex or None, params.stride)


@layer_kind("slice", inputs=1, defaults={"stride": 1}, positive=("stride",))
def slice_(params: Params, shape: Shape) -> list[Shape]:
    axis = AXIS_OF_SLICE[params.axis]
    need_rank(shape, -axis)
    return [replaced(shape, axis, length(shape[axis], classic_slice(params)))]


def length(extent: Extent, interval: slice) -> Extent:
    """How many entries of an axis an interval takes."""
    if interval.step == 0:
        raise SpecError("a slice cannot have a stride of 0")
    return None if extent is None else len(range(*interval.indices(extent)))


Index = int | slice


def per_axis(values: Sequence[int], rank: int, default: int, subject: str) -> Sequence[int]:
    """One value per axis; defaults if there are none.

    Raises:
        SpecError: there are some, but not one per axis.
    """
    if len(values) not in (0, rank):
        raise SpecError(f"{len(values)} {subject} for an input of rank {rank}")
    return values or (default,) * rank


def indices(
    rank: int,
    begin: Sequence[int],
    end: Sequence[int],
    strides: Sequence[int],
    begin_masks: Sequence[int],
    end_masks: Sequence[int],
    squeeze_masks: Sequence[int],
) -> tuple[Index, ...]:
    """The part of each axis that `sliceStatic` and `sliceDynamic` take: an interval, or one entry.

    A masked begin or end is that of the axis; a squeezed axis is reduced to its entry at begin and
    dropped.
    """
    begin = per_axis(begin, rank, 0, "begins")
    begin_masks = per_axis(begin_masks, rank, 0, "begin masks")
    end_masks = per_axis(end_masks, rank, int(not end), "end masks")
    end = per_axis(end, rank, 0, "ends")
    strides = per_axis(strides, rank, 1, "strides")
    squeeze_masks = per_axis(squeeze_masks, rank, 0, "squeeze masks")
    return tuple(
        begin[axis]
        if squeeze_masks[axis]
        else slice(
            None if begin_masks[axis] else begin[axis],
            None if end_masks[axis] else end[axis],
            strides[axis],
        )
        for axis in range(rank)
    )


def static_indices(params: Params, rank: int) -> tuple[Index, ...]:
    """The part of each axis that a `sliceStatic` layer takes."""
    return indices(
        rank,
        params.beginIds,
        params.endIds,
        params.strides,
        params.beginMasks,
        params.endMasks,
        params.squeezeMasks,
    )


@layer_kind(
    "sliceStatic",
    inputs=1,
    features=(LaterOption(lambda layer: any(layer.sliceStatic.squeezeMasks), 5, "the squeezing"),),
)
def slice_static(params: Params, shape: Shape) -> list[Shape]:
    result = []
    for extent, index in zip(shape, static_indices(params, len(shape)), strict=True):
        if isinstance(index, slice):
            result.append(length(extent, index))
        elif extent is not None and not -extent <= index < extent:
            raise SpecError(f"no entry {index} in an axis of {extent} of {show(shape)}")
    return [tuple(result) or (1,)]


@layer_kind(
    "sliceDynamic",
    inputs=(2, 7),
    features=(
        LaterOption(
            lambda layer: bool(layer.sliceDynamic.squeezeMasks), 5, "the masks for squeezing"
        ),
        LaterOption(lambda layer: len(layer.input) == 7, 5, "the seven inputs"),
    ),
)
def slice_dynamic(params: Params, shape: Shape, *dynamic: Shape) -> list[Shape]:
    """With squeeze masks as seventh input, even the rank depends on data."""
    if len(dynamic) > 6:
        raise SpecError(f"{len(dynamic) + 1} inputs; it takes up to 7")
    if len(dynamic) == 6:
        raise RankUnknownError
    squeezed = per_axis(params.squeezeMasks, len(shape), 0, "squeeze masks")
    return [tuple(None for squeeze in squeezed if not squeeze) or (1,)]


@layer_kind("sliceBySize", inputs=2, positive=("size",))
def slice_by_size(params: Params, shape: Shape, begin: Shape) -> list[Shape]:
    axis = axis_of(params.axis, len(shape))
    extent = shape[axis]
    if params.size < 1 or (extent is not None and params.size > extent):
        raise SpecError(f"a slice of {params.size} entries of axis {axis} of {show(shape)}")
    return [replaced(shape, axis, params.size)]


@layer_kind("slidingWindows", inputs=1, defaults={"step": 1}, positive=("windowSize", "step"))
def sliding_windows(params: Params, shape: Shape) -> list[Shape]:
    axis = axis_of(params.axis, len(shape))
    extent = shape[axis]
    if params.windowSize < 1 or (extent is not None and params.windowSize > extent):
        raise SpecError(f"windows of {params.windowSize} in axis {axis} of {show(shape)}")
    count = None if extent is None else (extent - params.windowSize) // params.step + 1
    return [(*shape[:axis], count, params.windowSize, *shape[axis + 1 :])]


@layer_kind("split", inputs=1, outputs=(2, MANY), positive=("nOutputs",))
def split(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    channels = shape[-3]
    if params.nOutputs < 1 or (channels is not None and channels % params.nOutputs):
        raise SpecError(f"{channels} channels are not divided into {params.nOutputs} equal parts")
    part = None if channels is None else channels // params.nOutputs
    return [replaced(shape, -3, part)] * number_of_parts(params.nOutputs)


@size_check("slice")
def bound_slice(params: Params, change: Change) -> str:
    axis = AXIS_OF_SLICE[params.axis]
    return _bound(classic_slice(params), axis, change) if change.varies(axis) else ""


@size_check("sliceStatic")
def bound_slice_static(params: Params, change: Change) -> str:
    remaining = static_indices(params, len(change.now[0]))
    reasons = (_bound(remaining[axis], axis, change) for axis in change.varying())
    return next(filter(None, reasons), "")


def _bound(part: Index, axis: int, change: Change) -> str:
    """Why the part taken of an axis does not hold at another size; see `size_check`."""
    extent = change.now[0][axis]
    if not isinstance(part, slice):
        return "" if part <= 0 or change.recorded else f"it takes the fixed entry {part}"
    last = part.stop if (part.step or 1) > 0 else part.start
    if last is None or last < 0:
        return ""
    where = "ends" if (part.step or 1) > 0 else "begins"
    if not change.recorded:
        return f"it {where} at the fixed entry {last} of an axis of another size"
    beyond = extent is not None and last > extent
    return f"it {where} at entry {last}, behind an axis of {extent}" if beyond else ""


@size_check("sliceBySize")
def bound_slice_by_size(params: Params, change: Change) -> str:
    bound = change.varies(axis_of(params.axis, len(change.now[0]))) and not change.recorded
    return f"it takes a fixed number of entries, {params.size}" if bound else ""


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("slice")
def check_slice_bounds(layer: nn.NeuralNetworkLayer, params: nn.SliceLayerParams) -> Problems:
    """The result is not empty."""
    start, end = params.startIndex, params.endIndex
    if 0 < end < start or end < start < 0:
        yield error(f"endIndex {end} is before startIndex {start}")


@layer_rule("sliceStatic")
def check_slice_lists(layer: nn.NeuralNetworkLayer, params: nn.SliceStaticLayerParams) -> Problems:
    """Each axis has a begin, an end, a stride and masks; strides are not 0."""
    fields = ("beginIds", "endIds", "strides", "beginMasks", "endMasks")
    lengths = {field: len(getattr(params, field)) for field in fields}
    if params.squeezeMasks:
        lengths["squeezeMasks"] = len(params.squeezeMasks)
    if len(set(lengths.values())) > 1 or not lengths["beginIds"]:
        result = ", ".join(f"{field} {length}" for field, length in lengths.items())
        yield error(f"one entry for each axis is needed; found: {result}")
    yield from _strides(params)


@layer_rule("sliceDynamic")
def check_slice_dynamic_lists(
    layer: nn.NeuralNetworkLayer, params: nn.SliceDynamicLayerParams
) -> Problems:
    """Parameters that no input replaces have an entry for each axis."""
    fields = ("endIds", "strides", "beginMasks", "endMasks", "squeezeMasks")
    stored = list(fields[max(0, len(layer.input) - 2) :])
    lengths = {field: len(getattr(params, field)) for field in stored}
    optional = ("beginMasks", "endMasks", "squeezeMasks")
    counted = {length for field, length in lengths.items() if length or field not in optional}
    if len(counted) > 1 or 0 in counted:
        result = ", ".join(f"{field} {length}" for field, length in lengths.items())
        yield error(f"one entry for each axis is needed; found: {result}")
    if "strides" in stored:
        yield from _strides(params)


def _strides(params: nn.SliceDynamicLayerParams | nn.SliceStaticLayerParams) -> Problems:
    if 0 in params.strides:
        yield error(f"strides is {listed(params.strides)}; a stride is not 0")


@layer_rule("split")
def check_split_outputs(layer: nn.NeuralNetworkLayer, params: nn.SplitLayerParams) -> Problems:
    """As many parts as outputs."""
    if params.nOutputs != len(layer.output):
        yield error(f"nOutputs is {params.nOutputs}; it has {len(layer.output)} outputs")
