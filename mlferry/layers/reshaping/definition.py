"""Layers that move values without computing."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.borders import borders, borders_are_two, padding_is_set
from mlferry.layers.definitions import (
    EXTENTS,
    Change,
    Entries,
    LaterOption,
    RankUnknownError,
    layer_kind,
    layer_rule,
    size_check,
)
from mlferry.layers.params import Params
from mlferry.numerics.shapes import Shape, axis_of, need_rank, product, show
from mlferry.spec.problems import Problems, error, listed, warning
from mlferry.spec.proto import neural_network_pb2 as nn


@layer_kind("transpose", inputs=1, lists={"axes": Entries(EXTENTS.lengths)})
def transpose(params: Params, shape: Shape) -> list[Shape]:
    if sorted(params.axes) != list(range(len(shape))):
        raise SpecError(f"axes {params.axes} are not a permutation of the axes of {show(shape)}")
    return [tuple(shape[axis] for axis in params.axes)]


@layer_kind("reshapeStatic", inputs=1, lists={"targetShape": EXTENTS._replace(least=-1)})
def reshape_static(params: Params, shape: Shape) -> list[Shape]:
    """One extent of the target may be -1; it is inferred."""
    return [fit(shape, params.targetShape)]


def fit(shape: Shape, target: tuple[int, ...]) -> Shape:
    """The target of a reshape with its -1 filled in.

    Raises:
        SpecError: the numbers of elements differ, or more than one extent is -1.
    """
    size = product(shape)
    known = product(extent for extent in target if extent != -1)
    if target.count(-1) > 1 or known is None or any(extent < -1 for extent in target):
        raise SpecError(f"target shape {target}: extents are positive, at most one is -1")
    if -1 not in target:
        if size is not None and size != known:
            raise SpecError(f"{show(shape)} has {size} elements, {show(target)} has {known}")
        return target
    if size is not None and (known == 0 or size % known):
        raise SpecError(f"{show(shape)} has {size} elements: no multiple of {known}")
    rest = None if size is None else size // known
    return tuple(rest if extent == -1 else extent for extent in target)


@layer_kind("reshape", inputs=1, lists={"targetShape": Entries((3, 4), 1)})
def reshape(params: Params, shape: Shape) -> list[Shape]:
    """To [C, H, W] of each step, or to [Seq, C, H, W]; the batch stays."""
    need_five(shape)
    if len(params.targetShape) == 3:
        steps, batch = shape[:2]
        return [(steps, batch, *fit(shape[2:], params.targetShape))]
    if len(params.targetShape) == 4:
        steps, *inner = fit((shape[0], *shape[2:]), params.targetShape)
        return [(steps, shape[1], *inner)]
    raise SpecError(f"target shape {params.targetShape}: C, H, W or Seq, C, H, W are needed")


def need_five(shape: Shape) -> None:
    """Raise a `SpecError` if a shape is not [Seq, Batch, C, H, W]."""
    if len(shape) != 5:
        raise SpecError(f"input of shape {show(shape)} needs 5 axes: Seq, Batch, C, H, W")


@layer_kind("permute", inputs=1, defaults={"axis": (0, 1, 2, 3)}, lists={"axis": Entries((4,))})
def permute(params: Params, shape: Shape) -> list[Shape]:
    """Axes count in [Seq, C, H, W]; the batch stays."""
    need_five(shape)
    if sorted(params.axis) != [0, 1, 2, 3]:
        raise SpecError(f"axes {params.axis} are not a permutation of 0, 1, 2, 3")
    movable = (shape[0], *shape[2:])
    steps, *inner = (movable[axis] for axis in params.axis)
    return [(steps, shape[1], *inner)]


@layer_kind("flattenTo2D", inputs=1)
def flatten_to_2d(params: Params, shape: Shape) -> list[Shape]:
    """The axes before `axis`, which may be the rank, are the rows; the others the columns."""
    rank = len(shape)
    axis = rank if params.axis == rank else axis_of(params.axis, rank)
    return [(product(shape[:axis]), product(shape[axis:]))]


@layer_kind("rankPreservingReshape", inputs=1, lists={"targetShape": EXTENTS._replace(least=-1)})
def rank_preserving_reshape(params: Params, shape: Shape) -> list[Shape]:
    """A 0 keeps an extent; one -1 is inferred."""
    if len(params.targetShape) != len(shape):
        raise SpecError(f"target shape {params.targetShape} has another rank than {show(shape)}")
    remaining = [
        axis
        for axis, extent in enumerate(params.targetShape)
        if extent == 0 and shape[axis] is None
    ]
    target: list[int] = [
        (extent or 1) if goal == 0 else goal
        for axis, (goal, extent) in enumerate(zip(params.targetShape, shape, strict=True))
    ]
    source = [1 if axis in remaining else extent for axis, extent in enumerate(shape)]
    fitted = fit(tuple(source), tuple(target))
    return [tuple(None if axis in remaining else extent for axis, extent in enumerate(fitted))]


@layer_kind("flatten", inputs=1, gradient=True)
def flatten(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    return [(*shape[:-3], product(shape[-3:]), 1, 1)]


@layer_kind("squeeze", inputs=1)
def squeeze(params: Params, shape: Shape) -> list[Shape]:
    """Without axes, or with `squeezeAll`, all axes of extent 1 go, but one axis always stays."""
    rank = len(shape)
    if params.squeezeAll or not params.axes:
        if None in shape:
            raise RankUnknownError
        axes = {axis for axis, extent in enumerate(shape) if extent == 1}
    else:
        axes = {axis_of(axis, rank) for axis in params.axes}
    for axis in axes:
        if shape[axis] not in (1, None):
            raise SpecError(f"axis {axis} of {show(shape)} is not 1")
    return [tuple(extent for axis, extent in enumerate(shape) if axis not in axes) or (1,)]


@layer_kind("expandDims", inputs=1)
def expand_dims(params: Params, shape: Shape) -> list[Shape]:
    """Axes count in the output."""
    rank = len(shape) + len(params.axes)
    axes = {axis_of(axis, rank) for axis in params.axes}
    if len(axes) < len(params.axes):
        raise SpecError(f"axes {params.axes} name one axis twice")
    rest = iter(shape)
    return [tuple(1 if axis in axes else next(rest) for axis in range(rank))]


@layer_kind("padding", inputs=1)
def padding(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 2)
    edges = borders(params)
    if params.which("PaddingType") == "reflection" and any(
        size is not None and max(edge) >= size for size, edge in zip(shape[-2:], edges, strict=True)
    ):
        raise SpecError(f"a reflection is at least as wide as the input {show(shape)}")
    spatial = (
        None if size is None else size + sum(edge)
        for size, edge in zip(shape[-2:], edges, strict=True)
    )
    return [(*shape[:-2], *spatial)]


@layer_kind("crop", inputs=(1, 2))
def crop(params: Params, shape: Shape, like: Shape | None = None) -> list[Shape]:
    need_rank(shape, 3)
    if like is not None:
        if len(like) != len(shape):
            raise SpecError(f"inputs of different ranks: {show(shape)}, {show(like)}")
        for size, target, first in zip(shape[-2:], like[-2:], params.offset or (0, 0), strict=True):
            if size is not None and target is not None and first + target > size:
                raise SpecError(
                    f"a crop of {show(like)} from {params.offset} on leaves {show(shape)}"
                )
        return [(*shape[:-2], *like[-2:])]
    edges = borders(params, "cropAmounts")
    spatial = tuple(
        None if size is None else size - sum(edge)
        for size, edge in zip(shape[-2:], edges, strict=True)
    )
    if any(size is not None and size <= 0 for size in spatial):
        raise SpecError(f"nothing of {show(shape)} is left after cropping {edges}")
    return [(*shape[:-2], *spatial)]


@layer_kind(
    "reorganizeData",
    inputs=1,
    positive=("blockSize",),
    features=(LaterOption(lambda layer: layer.reorganizeData.mode == 2, 5, "PIXEL_SHUFFLE"),),
)
def reorganize_data(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 3)
    *outer, channels, height, width = shape
    if None in (channels, height, width):
        return [(*outer, None, None, None)]
    block = params.blockSize
    assert channels is not None
    assert height is not None
    assert width is not None
    if params.mode == "SPACE_TO_DEPTH":
        if height % block or width % block:
            raise SpecError(f"{show(shape)} is not divided by a block of {block}")
        return [(*outer, channels * block**2, height // block, width // block)]
    if channels % block**2:
        raise SpecError(f"{channels} channels are not divided by a block of {block} squared")
    return [(*outer, channels // block**2, height * block, width * block)]


@layer_kind("constantPad", inputs=(1, 2))
def constant_pad(params: Params, shape: Shape, *dynamic: Shape) -> list[Shape]:
    if dynamic:
        return [(None,) * len(shape)]
    pairs = list(zip(params.padAmounts[::2], params.padAmounts[1::2], strict=True))
    if len(pairs) != len(shape):
        raise SpecError(f"{len(params.padAmounts)} pad amounts for {show(shape)}: two per axis")
    if params.padToGivenOutputSizeMode:
        sizes = zip(shape, pairs, strict=True)
        if any(min(pair) for pair in pairs):
            raise SpecError(f"pad amounts {params.padAmounts}: one of each pair is 0 in this mode")
        return [tuple(None if n is None else max(n, *pair) for n, pair in sizes)]
    return [
        tuple(None if n is None else n + sum(pair) for n, pair in zip(shape, pairs, strict=True))
    ]


@size_check("reshapeStatic")
def bound_reshape_static(params: Params, change: Change) -> str:
    return _bound(params.targetShape, change.before[0], change.now[0])


@size_check("reshape")
def bound_reshape(params: Params, change: Change) -> str:
    """The batch stays; see `reshape`."""
    before, now = (
        (shape[0], *shape[2:]) if len(params.targetShape) == 4 else shape[2:]
        for shape in (change.before[0], change.now[0])
    )
    return _bound(params.targetShape, before, now)


@size_check("rankPreservingReshape")
def bound_rank_preserving_reshape(params: Params, change: Change) -> str:
    """An extent of 0 is that of the input at any size."""
    remaining = [axis for axis, extent in enumerate(params.targetShape) if extent == 0]
    before, now = (
        tuple(1 if axis in remaining else extent for axis, extent in enumerate(shape))
        for shape in (change.before[0], change.now[0])
    )
    return _bound(tuple(extent or 1 for extent in params.targetShape), before, now)


def _bound(target: tuple[int, ...], before: Shape, now: Shape) -> str:
    """Whether fixed extents of a target stand for varying ones, which must all go into its -1."""
    if before == now:
        return ""
    if -1 in target:
        place, rank = target.index(-1), len(now)
        first, last = product(target[:place]), product(target[place + 1 :])
        # an extent of 1 belongs to the fixed ones, if there are any
        starts = [i for i in range(rank + 1) if product(before[:i]) == first]
        ends = [i for i in range(rank + 1) if product(before[i:]) == last]
        start = starts[-1] if place and starts else 0
        end = ends[0] if place + 1 < len(target) and ends else rank
        result = (starts or not place) and (ends or place + 1 == len(target))
        if result and start <= end and (before[:start], before[end:]) == (now[:start], now[end:]):
            return ""
    return f"its target shape {show(target)} is that of the described size"


@size_check("constantPad")
def bound_constant_pad(params: Params, change: Change) -> str:
    if not params.padToGivenOutputSizeMode or change.recorded:
        return ""
    fixed = [axis for axis in change.varying() if any(params.padAmounts[2 * axis : 2 * axis + 2])]
    return "it pads to a fixed size" if fixed else ""


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("reorganizeData")
def check_reorganize_data(
    layer: nn.NeuralNetworkLayer, params: nn.ReorganizeDataLayerParams
) -> Problems:
    """Blocks are larger than a pixel."""
    if params.blockSize == 1:
        yield warning("blockSize is 1; it must be at least 2")


@layer_rule("permute", "transpose")
def check_permutation(
    layer: nn.NeuralNetworkLayer, params: nn.PermuteLayerParams | nn.TransposeLayerParams
) -> Problems:
    """Each axis occurs once."""
    axes = list(params.axis if isinstance(params, nn.PermuteLayerParams) else params.axes)
    if sorted(axes) != list(range(len(axes))):
        yield error(f"{listed(axes)} is not a permutation of the axes 0 to {len(axes) - 1}")


@layer_rule("squeeze", "expandDims")
def check_axes_are_given(
    layer: nn.NeuralNetworkLayer, params: nn.SqueezeLayerParams | nn.ExpandDimsLayerParams
) -> Problems:
    """Axes are given, each once."""
    if isinstance(params, nn.SqueezeLayerParams) and params.squeezeAll:
        return
    if not params.axes:
        yield warning("axes is empty")
    elif len(set(params.axes)) < len(params.axes):
        text = f"axes {listed(params.axes)} name one axis twice"
        yield error(text) if isinstance(params, nn.ExpandDimsLayerParams) else warning(text)


@layer_rule("reshapeStatic", "rankPreservingReshape")
def check_one_extent_is_left_open(
    layer: nn.NeuralNetworkLayer,
    params: nn.RankPreservingReshapeLayerParams | nn.ReshapeStaticLayerParams,
) -> Problems:
    """At most one extent of a reshape is inferred."""
    if list(params.targetShape).count(-1) > 1:
        yield error(f"targetShape is {listed(params.targetShape)}; only one extent may be -1")


@layer_rule("rankPreservingReshape")
def check_ranks_are_given(
    layer: nn.NeuralNetworkLayer, params: nn.RankPreservingReshapeLayerParams
) -> Problems:
    """This kind must declare the ranks of its blobs."""
    if not (layer.inputTensor and layer.outputTensor):
        yield warning("inputTensor and outputTensor must tell the ranks of its blobs")


@layer_rule("padding")
def check_padding(layer: nn.NeuralNetworkLayer, params: nn.PaddingLayerParams) -> Problems:
    """The padding is set."""
    yield from padding_is_set(params, "PaddingType", ("constant", "reflection", "replication"))
    yield from borders_are_two(params.paddingAmounts, "paddingAmounts")


@layer_rule("crop")
def check_crop(layer: nn.NeuralNetworkLayer, params: nn.CropLayerParams) -> Problems:
    """One input is cut by amounts; with two, an offset is set."""
    if len(layer.input) > 1:
        if len(params.offset) != 2:
            yield error(f"offset has {len(params.offset)} entries; with two inputs it has 2")
        return
    yield from borders_are_two(params.cropAmounts, "cropAmounts")
    if not params.cropAmounts.borderAmounts:
        yield warning("cropAmounts is empty; with one input it has amounts for 2 axes (H, W)")


@layer_rule("constantPad")
def check_constant_pad(
    layer: nn.NeuralNetworkLayer, params: nn.ConstantPaddingLayerParams
) -> Problems:
    """With one input, there are two amounts per axis; an output size is on one side only."""
    if len(layer.input) > 1:
        return
    amounts = params.padAmounts
    if not amounts or len(amounts) % 2:
        yield error(f"padAmounts has {len(amounts)} entries; it has two for each axis")
    elif params.padToGivenOutputSizeMode and any(map(min, amounts[::2], amounts[1::2])):
        yield error(
            f"padAmounts is {listed(amounts)}; with padToGivenOutputSizeMode only one amount of "
            "an axis is not 0"
        )
