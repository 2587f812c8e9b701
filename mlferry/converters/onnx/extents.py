"""What is known about computed shapes: the numbers of some extents, the origins of others.

Exporters compute shapes from shapes. If an extent of an input varies, these are blobs. What is
known about their elements is remembered beside them, so that a reshape or a resize does not lose
the fixed extents.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mlferry.converters.lowering import Lowering
from mlferry.converters.operands import as_blob, joined, vector
from mlferry.converters.sizes import Extents, as_constant
from mlferry.converters.slices import sliced
from mlferry.converters.values import Blob, Constant, Operand


@dataclass(frozen=True)
class Element:
    """An element of a shape.

    Attributes:
        value: its number, if it is known.
        made_of: the extents from which the number was computed.
        extent: the blob and the axis whose extent it is, if its number is unknown.
    """

    value: int | None = None
    made_of: Extents = frozenset()
    extent: tuple[str, int] | None = None

    def is_extent(self, x: Blob, axis: int) -> bool:
        """Whether it is the extent of a blob along an axis, whatever its size."""
        return self.extent == (x.name, axis)


UNKNOWN = Element()
_OPEN = 2**31 - 1
_MOST = 64  # the most elements of a shape, or of amounts before and after its axes
Elements = tuple[Element, ...]


def elements_of(context: Lowering, x: Operand) -> Elements | None:
    """What is known about the elements of an operand of at most one axis, or None if nothing is."""
    if isinstance(x, Constant):
        if x.array.ndim > 1 or x.array.dtype.kind not in "iu" or x.array.size > _MOST:
            return None
        codes = np.zeros(x.array.size, int) if x.origins is None else x.origins.ravel()
        pairs = zip(x.array.ravel().tolist(), codes.tolist(), strict=True)
        return tuple(Element(int(n), context.sizes.sets[code]) for n, code in pairs)
    if not isinstance(x, Blob):
        return None
    known: Elements | None = context.elements.get(x.name)
    if known is None and x.shape is not None and len(x.shape) == 1:
        count = x.shape[0]
        return None if count is None or count > _MOST else (UNKNOWN,) * count
    return known


def noted(context: Lowering, output: Blob, elements: Sequence[Element] | None) -> Operand:
    """A blob whose elements are remembered; a constant if all are known."""
    if not elements:
        return output
    if all(e.value is not None for e in elements):
        codes = [context.sizes.code(e.made_of) for e in elements]
        shape = () if output.is_scalar else (len(elements),)
        array = np.array([e.value for e in elements], np.int64).reshape(shape)
        return Constant("", array, origins=np.array(codes, np.int64).reshape(shape))
    if any(e != UNKNOWN for e in elements):
        context.elements[output.name] = tuple(elements)
    return output


def shape_of(context: Lowering, x: Blob, start: int = 0, end: int | None = None) -> Operand:
    """The shape of a blob, or a part of it."""
    axes = range(x.rank)[start:end]
    sizes = [x.known[axis] for axis in axes]
    if None not in sizes:
        return as_constant(context.sizes, x, np.array(sizes, np.int64), axes)
    output = context.layer("getShape", x)
    if len(axes) < x.rank:
        output = sliced(context, output, [axes.start], [axes.stop], None, None)
    return noted(context, output, extents(context, x)[start:end])


def extents(context: Lowering, x: Blob) -> Elements:
    """The extents of a blob as elements of a shape."""
    return tuple(_element(context, x, axis) for axis in range(x.rank))


def _element(context: Lowering, x: Blob, axis: int) -> Element:
    size = x.known[axis]
    if size is None:
        return Element(None, extent=(x.name, axis))
    return Element(size, frozenset([(x.name, axis)]))


def size_of(context: Lowering, x: Blob, axis: int) -> Blob:
    """One extent of a blob as a blob of one element, made once."""
    key = (x.name, f"extent {axis}")
    if key not in context.arranged:
        result = shape_of(context, x, axis, axis + 1)
        context.arranged[key] = as_blob(context, result)
    return context.arranged[key]


def as_vector(
    context: Lowering, elements: Sequence[Element | Blob], whole: Blob | None = None
) -> Blob:
    """A blob of elements, each of which is known, an extent of a blob, or a blob of its own.

    Args:
        whole: the vector from which unknown elements are taken.
    """
    parts: list[Blob] = []
    numbers: list[int] = []

    def flush() -> None:
        if numbers:
            parts.append(context.constant(list(numbers)))
            numbers.clear()

    for place, element in enumerate(elements):
        if isinstance(element, Blob):
            flush()
            parts.append(vector(element))
        elif element.value is not None:
            context.sizes.use(element.made_of)
            numbers.append(element.value)
        elif element.extent is not None:
            flush()
            name, axis = element.extent
            shape = Blob(name, context.builder.shapes[name])
            parts.append(size_of(context, shape, axis))
        else:
            flush()
            assert whole is not None
            parts.append(sliced(context, whole, [place], [place + 1], [0], None))
    flush()
    return joined(context, parts, 0)


def numbered(context: Lowering, count: int | Blob) -> Blob:
    """0, 1, ... up to a number that is known or computed."""
    if isinstance(count, int):
        return context.constant(np.arange(count))
    return context.layer("rangeDynamic", vector(count), startValue=0.0, stepSizeValue=1.0)


def zeros_along(context: Lowering, element: Element) -> Blob | None:
    """As many zeros as an extent of a blob, whose number is thus known at every size."""
    if element.extent is None:
        return None
    name, axis = element.extent
    x = Blob(name, context.builder.shapes[name])
    others = [place for place in range(x.rank) if place != axis]
    if others:
        count = len(others)  # the last entries, which an axis of any size has
        x = sliced(context, x, [-1] * count, [_OPEN] * count, others, None)
        x = context.layer("squeeze", x, axes=others)
    return context.layer("fillLike", x, value=0.0)


def refined(context: Lowering, x: Blob, shape: Sequence[int | None]) -> Blob:
    """A blob with more known extents than its layer gives."""
    before = x.shape or (None,) * len(shape)
    values = tuple(b if a is None else a for a, b in zip(before, shape, strict=True))
    context.builder.shapes[x.name] = values
    return Blob(x.name, values, x.layout)


def combined(
    context: Lowering,
    output: Blob,
    left: Operand,
    right: Operand,
    compute: Callable[[int, int], int],
) -> Operand:
    """Elementwise arithmetic of two shapes; what is known about both is known about the result."""
    pair = _paired(context, output, left, right)
    if pair is None:
        return output
    results = []
    for a, b in pair:
        if a.value is None or b.value is None:
            results.append(UNKNOWN)
        else:
            results.append(Element(compute(a.value, b.value), a.made_of | b.made_of))
    return noted(context, output, results)


def equal_shapes(context: Lowering, output: Blob, left: Operand, right: Operand) -> Blob:
    """Which elements of two shapes are equal; an extent is never negative, and never 0."""
    pair = _paired(context, output, left, right)
    if pair is None:
        return output
    results = []
    for a, b in pair:
        made_of = a.made_of | b.made_of
        if a.value is not None and b.value is not None:
            results.append(Element(int(a.value == b.value), made_of))
        elif any(e.extent and o.value is not None and o.value < 1 for e, o in ((a, b), (b, a))):
            results.append(Element(0, made_of))
        else:
            results.append(UNKNOWN)
    if any(e != UNKNOWN for e in results):
        context.elements[output.name] = tuple(results)
    return output


def chosen(context: Lowering, output: Blob, condition: Operand, x: Operand, y: Operand) -> Operand:
    """Elements of one shape or of the other, if it is known which."""
    if isinstance(condition, Constant):
        flags: Elements | None = tuple(Element(int(n)) for n in condition.array.ravel())
    else:
        flags = context.elements.get(condition.name)
    pair = _paired(context, output, x, y)
    if flags is None or pair is None or len(flags) != len(pair):
        return output
    results = []
    for flag, (a, b) in zip(flags, pair, strict=True):
        element = UNKNOWN if flag.value is None else a if flag.value else b
        if element != UNKNOWN:
            element = replace(element, made_of=element.made_of | flag.made_of)
        results.append(element)
    return noted(context, output, results)


def _paired(
    context: Lowering, output: Blob, left: Operand, right: Operand
) -> list[tuple[Element, Element]] | None:
    """The elements of two operands in pairs; a single element goes with all."""
    first, second = (elements_of(context, x) for x in (left, right))
    if first is None or second is None or output.rank > 1:
        return None
    size = max(len(first), len(second))
    if any(len(part) not in (1, size) for part in (first, second)):
        return None
    wide = [part * size if len(part) == 1 else part for part in (first, second)]
    return list(zip(*wide, strict=True))
