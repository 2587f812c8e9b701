"""The input axes whose sizes a converted network depends on; see `sizes`."""

from __future__ import annotations

from collections.abc import Sequence

from mlferry.converters.lowering import Lowering
from mlferry.converters.sizes import ANY_AXIS
from mlferry.layers.trace import LayerStep, steps_of, trace
from mlferry.numerics.shapes import Shape
from mlferry.spec.sizes import Record


def bound_axes(context: Lowering) -> Record:
    """The input axes on which the layers depend, with what depends on them.

    Every axis is given other extents, one at a time: those that are logged vary with it, or not.
    """
    builder, log = context.builder, context.sizes
    inputs = {feature.name: builder.shapes[feature.name] for feature in builder.description.input}
    entries: Record = {}
    log.node = "an output"
    log.use(log.behind(*(context.operand(value) for _, value in context.graph.outputs)))
    if not log.uses:
        return entries
    steps = steps_of(builder.network)
    for name, shape in inputs.items():
        for axis, extent in enumerate(shape or ()):
            source = None if extent is None else _dependent(context, steps, inputs, name, axis)
            if source is not None:
                entries.setdefault(name, {})[axis - len(shape or ())] = source
    return entries


def _dependent(
    context: Lowering,
    steps: Sequence[LayerStep],
    inputs: dict[str, Shape | None],
    name: str,
    axis: int,
) -> str | None:
    """The first node that computed with an extent which varies with an input axis."""
    left = dict(context.sizes.uses)
    shape = inputs[name] or ()
    size = shape[axis] or 1
    for other in (2 * size, size + 1):
        changed = (*shape[:axis], other, *shape[axis + 1 :])
        shapes = trace(context.builder.network, {**inputs, name: changed}, steps=steps).shapes
        for (blob, place), node in list(left.items()):
            before, now = context.builder.shapes.get(blob), shapes.get(blob)
            if before is None or now is None or len(before) != len(now):
                continue  # nothing is known about it at this size
            if now != before if place == ANY_AXIS else now[place] != before[place]:
                return node
            del left[blob, place]
        if not left:
            return None
    return next(iter(left.values()), None)
