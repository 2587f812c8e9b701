"""Layers that join, split, repeat, slice or make arrays."""

from __future__ import annotations

from mlferry.errors import SpecError
from mlferry.layers.definitions import (
    EXTENTS,
    MANY,
    Entries,
    LaterOption,
    StoredWeight,
    StoredWeights,
    layer_kind,
    layer_rule,
    per_channel,
    stored_weights,
)
from mlferry.layers.params import Params
from mlferry.numerics.shapes import (
    Shape,
    axis_of,
    need_rank,
    number_of_parts,
    replaced,
    show,
    total,
)
from mlferry.spec.problems import Problems, error
from mlferry.spec.proto import neural_network_pb2 as nn


def joined(shapes: tuple[Shape, ...], axis: int) -> Shape:
    """The shape of a concatenation.

    Raises:
        SpecError: ranks, or extents off the axis, differ.
    """
    if not shapes:
        raise SpecError("nothing to concatenate")
    if len({len(shape) for shape in shapes}) != 1:
        raise SpecError(f"inputs of different ranks: {', '.join(map(show, shapes))}")
    axis = axis_of(axis, len(shapes[0]))
    result = []
    for index, extents in enumerate(zip(*shapes, strict=True)):
        known = set(extents) - {None}
        if index == axis:
            result.append(total(extents))
        elif len(known) > 1:
            raise SpecError(f"inputs differ off axis {axis}: {', '.join(map(show, shapes))}")
        else:
            result.append(known.pop() if known else None)
    return tuple(result)


@layer_kind("concat", inputs=(2, MANY), evaluated=(1, MANY))
def concat(params: Params, *shapes: Shape) -> list[Shape]:
    return [joined(shapes, -5 if params.sequenceConcat else -3)]


@layer_kind(
    "concatND",
    inputs=(2, MANY),
    evaluated=(1, MANY),
    features=(LaterOption(lambda layer: layer.concatND.interleave, 5, "the interleaving"),),
)
def concat_nd(params: Params, *shapes: Shape) -> list[Shape]:
    if params.interleave and len({shape for shape in shapes if None not in shape}) > 1:
        raise SpecError(f"interleaved inputs differ: {', '.join(map(show, shapes))}")
    return [joined(shapes, params.axis)]


@layer_kind("stack", inputs=(2, MANY), evaluated=(1, MANY))
def stack(params: Params, *shapes: Shape) -> list[Shape]:
    if not shapes:
        raise SpecError("nothing to stack")
    axis = axis_of(params.axis, len(shapes[0]) + 1)
    if len(set(shapes)) != 1:
        raise SpecError(f"inputs differ: {', '.join(map(show, shapes))}")
    return [(*shapes[0][:axis], len(shapes), *shapes[0][axis:])]


@layer_kind("tile", inputs=(1, 2))
def tile(params: Params, shape: Shape, *dynamic: Shape) -> list[Shape]:
    """With fewer repetitions than axes, they are those of the last axes."""
    if dynamic:
        return [(None,) * len(shape)]
    if len(params.reps) > len(shape):
        raise SpecError(f"{len(params.reps)} repetitions for {show(shape)}")
    reps = (1,) * (len(shape) - len(params.reps)) + params.reps
    return [tuple(None if n is None else n * r for n, r in zip(shape, reps, strict=True))]


@layer_kind("loadConstantND", inputs=0, lists={"shape": EXTENTS})
def load_constant_nd(params: Params) -> list[Shape]:
    return [tuple(params.shape)]


@layer_kind("loadConstant", inputs=0, lists={"shape": Entries((3,), 1)})
def load_constant(params: Params) -> list[Shape]:
    if len(params.shape) != 3:
        raise SpecError(f"the shape of a constant is C, H, W, not {show(params.shape)}")
    return [(1, 1, *params.shape)]


@layer_kind("sequenceRepeat", inputs=1, defaults={"nRepetitions": 1})
def sequence_repeat(params: Params, shape: Shape) -> list[Shape]:
    need_rank(shape, 5)
    steps = shape[-5]
    return [replaced(shape, -5, None if steps is None else steps * params.nRepetitions)]


@layer_kind("splitND", inputs=1, outputs=(2, MANY))
def split_nd(params: Params, shape: Shape) -> list[Shape]:
    axis = axis_of(params.axis, len(shape))
    extent = shape[axis]
    if params.splitSizes:
        sizes = list(params.splitSizes)
        if extent is not None and sum(sizes) != extent:
            raise SpecError(f"split sizes {sizes} do not add up to {extent}")
        return [replaced(shape, axis, size) for size in sizes]
    if params.numSplits < 1 or (extent is not None and extent < params.numSplits):
        raise SpecError(f"{params.numSplits} parts of axis {axis} of {show(shape)}")
    if extent is None:
        return [replaced(shape, axis, None)] * number_of_parts(params.numSplits)
    part, longer = divmod(extent, params.numSplits)  # the first parts take the remainder
    return [replaced(shape, axis, part + (index < longer)) for index in range(params.numSplits)]


# ---- rules and stored weights ------------------------------------------------------------------


@layer_rule("tile")
def check_tile(layer: nn.NeuralNetworkLayer, params: nn.TileLayerParams) -> Problems:
    """With one input, the repetitions are stored."""
    if len(layer.input) < 2 and not params.reps:
        yield error("reps is empty; with one input it holds the repetitions")


@layer_rule("splitND")
def check_split_nd_outputs(layer: nn.NeuralNetworkLayer, params: nn.SplitNDLayerParams) -> Problems:
    """As many parts as outputs."""
    sizes = params.splitSizes
    parts = len(sizes) or params.numSplits
    if parts != len(layer.output):
        subject = f"splitSizes has {parts} entries" if sizes else f"numSplits is {parts}"
        yield error(f"{subject}; it has {len(layer.output)} outputs")


@stored_weights("loadConstant")
def weights_of_load_constant(
    layer: nn.NeuralNetworkLayer, params: nn.LoadConstantLayerParams
) -> StoredWeights:
    yield per_channel("data", params, tuple(params.shape))


@stored_weights("loadConstantND")
def weights_of_load_constant_nd(
    layer: nn.NeuralNetworkLayer, params: nn.LoadConstantNDLayerParams
) -> StoredWeights:
    yield StoredWeight("data", params.data, tuple(params.shape))
