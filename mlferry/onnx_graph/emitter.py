"""The emitter with which functions of layer kinds write nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry.numerics.shapes import Array, Shape, axis_of, broadcast, product, runs
from mlferry.onnx_graph.graph import BY_VALUE, Attribute, Graph, Node
from mlferry.refusals import RankHiddenError

FLOAT, INT32, INT64, BOOL = 1, 6, 7, 9  # TensorProto's numbers
FARTHEST = np.iinfo(np.int64).max
Extents = Sequence[int | str]  # a known extent, or the value of one int64 that holds it

_SHARED_MOST = 64  # constants of up to so many values are shared
_SAME_SHAPE = BY_VALUE | {"CumSum", "Identity", "Softmax", "Trilu"}
_COMPARISONS = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
_BOOLEAN = {*_COMPARISONS, "And", "Not", "Or", "Xor"}
_BROADCAST = {
    *("Add", "And", "Div", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub"),
    *("Where", "Xor"),
    *_COMPARISONS,
}
# Functions of two values by their names in ML Programs.
BINARY_NODES = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "real_div": "Div", "pow": "Pow", "maximum": "Max",
    "minimum": "Min", "logical_and": "And", "logical_or": "Or", "logical_xor": "Xor",
    "equal": "Equal", "less": "Less", "less_equal": "LessOrEqual",
    "greater": "Greater", "greater_equal": "GreaterOrEqual",
}  # fmt: skip
_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "real_div": 1}


class Emitter:
    """Adds nodes and constants to a graph; values are named by strings.

    Attributes:
        graph: the graph being written.
        layer: the name of the current layer.
        results: the shapes of its outputs, if they are known.
        shapes: what is known about the shapes of values.
        made: the node that writes each value.
        booleans: the values that are booleans.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.graph = Graph()
        self.layer = ""
        self.results: list[Shape] | None = None
        self.shapes: dict[str, Shape | None] = {}
        self._nodes = self.graph.nodes
        self._taken = set(names)
        self._last: dict[str, int] = {}  # the number after the last name of a hint
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._wholes: dict[str, str] = {}
        self._flags: dict[str, str] = {}
        self.made: dict[str, Node] = {}
        self.booleans: set[str] = set()

    # ---- values ------------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """A new name for a value."""
        name = hint
        while name in self._taken or not name:
            self._last[hint] = self._last.get(hint, 0) + 1
            name = f"{hint}_{self._last[hint]}"
        self._taken.add(name)
        return name

    def shape(self, x: str) -> Shape:
        """The shape of a value; None is an extent known only at run time.

        Raises:
            CannotExpressError: not even its rank is known.
        """
        match = self.shapes.get(x)
        if match is None:
            raise RankHiddenError(
                "the rank of an input is unknown: a custom layer before it hides it; register its "
                "class with output_shapes"
            )
        return match

    def rank(self, x: str) -> int:
        """How many axes a value has; see `shape`."""
        return len(self.shape(x))

    def known(self, x: str) -> Array | None:
        """The values of a constant."""
        return self.graph.arrays.get(x)

    def constant(self, values: ArrayLike, hint: str = "constant") -> str:
        """A constant with the values of an array; small ones are shared."""
        array = np.asarray(values)
        key = (array.dtype.str, array.shape, array.tobytes() if array.size <= _SHARED_MOST else b"")
        if array.size <= _SHARED_MOST and key in self._shared:
            return self._shared[key]
        name = self.fresh(hint)
        self.graph.arrays[name] = array
        self.shapes[name] = array.shape
        if array.size <= _SHARED_MOST:
            self._shared[key] = name
        return name

    def number(self, value: float) -> str:
        """One float32."""
        return self.constant(np.float32(value))

    def integers(self, values: Sequence[int]) -> str:
        """A vector of int64."""
        return self.constant(np.array(values, np.int64).reshape(-1))

    # ---- nodes -------------------------------------------------------------------------------

    def node(self, op: str, *inputs: str, domain: str = "", **attributes: Attribute | None) -> str:
        """One node with one output."""
        return self.nodes(op, inputs, 1, domain, **attributes)[0]

    def nodes(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: int,
        domain: str = "",
        **attributes: Attribute | None,
    ) -> tuple[str, ...]:
        """One node with several outputs; an attribute of None is left out."""
        remaining = {key: value for key, value in attributes.items() if value is not None}
        return self.add(op, inputs, outputs, remaining, domain)

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: int,
        attributes: dict[str, Any],
        domain: str = "",
    ) -> tuple[str, ...]:
        """One node, with attributes of any names."""
        results = [self.fresh(f"{self.layer}/{op}") for _ in range(outputs)]
        node = Node(op, list(inputs), results, attributes, domain, self.fresh(f"{results[0]}/op"))
        self.made |= dict.fromkeys(results, node)
        self._nodes.append(node)
        self.shapes[results[0]] = self._shape_of(op, inputs)
        if op in _BOOLEAN or (op == "Reshape" and inputs[0] in self.booleans):
            self.booleans.add(results[0])
        return tuple(results)

    def _shape_of(self, op: str, inputs: Sequence[str]) -> Shape | None:
        if op in _SAME_SHAPE:
            return self.shapes.get(inputs[0])
        if op in _BROADCAST:
            input_shapes = [self.shapes.get(name) for name in inputs]
            known = [shape for shape in input_shapes if shape is not None]
            return broadcast(*known) if len(known) == len(input_shapes) else None
        return None

    @contextmanager
    def inside(self) -> Iterator[list[Node]]:
        """Nodes added in the block go into a list of their own, for the body of a node."""
        outer, self._nodes = self._nodes, []
        try:
            yield self._nodes
        finally:
            self._nodes = outer

    # ---- types -------------------------------------------------------------------------------

    def whole(self, x: str) -> str:
        """A blob truncated to int64; a blob that was made from int64 returns that."""
        if x in self._wholes:
            return self._wholes[x]
        array = self.known(x)
        if array is not None:
            return self.constant(array.astype(np.int64))
        return self.node("Cast", x, to=INT64)

    def flag(self, x: str) -> str:
        """Whether the values of a blob differ from 0."""
        return self._flags[x] if x in self._flags else self.node("Cast", x, to=BOOL)

    def is_flag(self, x: str) -> bool:
        """Whether a blob was made of booleans."""
        return x in self._flags

    def dtype(self, x: str) -> str:
        """NumPy's name of the type of a blob, a flag or a count of the control flow."""
        array = self.known(x)
        if array is not None:
            return str(array.dtype)
        return "bool" if x in self.booleans else "float32"

    def from_whole(self, x: str) -> str:
        """A blob of int64 values."""
        array = self.known(x)
        if array is not None:
            return self.constant(array.astype(np.float32))
        result = self.node("Cast", x, to=FLOAT)
        self._wholes[result] = x
        return result

    def from_flag(self, x: str) -> str:
        """A blob of 1 and 0."""
        result = self.node("Cast", x, to=FLOAT)
        self._flags[result] = x
        return result

    def as_float(self, x: str) -> str:
        """A blob as it is, as all of them are float32."""
        return x

    def alike(self, *values: str) -> list[str]:
        """Blobs as they are; see `as_float`."""
        return list(values)

    # ---- functions, by their names in ML Programs --------------------------------------------

    def unary(self, function: str, x: str) -> str:
        """A function of one blob."""
        if function == "logical_not":
            return self.from_flag(self.node("Not", self.flag(x)))
        return self.node(function.capitalize(), x)

    def binary(self, function: str, x: str, y: str | float) -> str:
        """A function of two blobs; numbers without effect are left out."""
        if not isinstance(y, str):
            if y == _NEUTRAL.get(function):
                return x
            y = self.number(y)
        if function == "not_equal":
            return self.from_flag(self.node("Not", self.node("Equal", x, y)))
        if function.startswith("logical"):
            x, y = self.flag(x), self.flag(y)
        result = self.node(BINARY_NODES[function], x, y)
        return self.from_flag(result) if BINARY_NODES[function] in _BOOLEAN else result

    def affine(self, x: str, scale: float, shift: float) -> str:
        """scale * x + shift, without operations that have no effect."""
        return self.binary("add", self.binary("mul", x, scale), shift)

    def matmul(self, x: str, y: str) -> str:
        """The product of matrices, which lie along the last two axes."""
        return self.node("MatMul", x, y)

    def count_up(self, limit: str, step: int = 1) -> str:
        """0, `step`, ... below a limit, which is one int64; as int64."""
        ends = self.constant(np.int64(0)), self.reshape(limit, []), self.constant(np.int64(step))
        values = self.node("Range", *ends)
        self.shapes[values] = (None,)
        return values

    def positions(self, extent: int | str) -> str:
        """0, 1, ... below an extent, as floats."""
        if isinstance(extent, int):
            return self.constant(np.arange(extent, dtype=np.float32))
        return self.node("Cast", self.count_up(extent), to=FLOAT)

    # ---- shapes ------------------------------------------------------------------------------

    def extent(self, x: str, axis: int) -> int | str:
        """The size of an axis: a number, or a vector of one int64 that is computed at run time."""
        shape = self.shape(x)
        axis = axis_of(axis, len(shape))
        result = shape[axis]
        if result is not None:
            return result
        return self.node("Shape", x, start=axis, end=axis + 1)

    def size(self, x: str, axis: int) -> str:
        """The size of an axis, as one float."""
        extent = self.extent(x, axis)
        if isinstance(extent, int):
            return self.number(extent)
        return self.from_whole(self.reshape(extent, []))

    def extents(self, x: str) -> list[int | str]:
        """The sizes of all axes; see `extent`."""
        return [self.extent(x, axis) for axis in range(self.rank(x))]

    def vector(self, extents: Extents) -> str:
        """Sizes, known or computed, as a vector of int64."""
        parts = [
            self.integers(part) if isinstance(part, list) else part
            for part in runs(extents) or [[]]
        ]
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def shape_vector(self, x: str) -> str:
        """The shape of a value as a vector of int64, known or computed."""
        shape = self.shapes.get(x)
        if shape is not None and None not in shape:
            return self.vector(self.extents(x))
        return self.node("Shape", x)

    def reshape(self, x: str, extents: Extents) -> str:
        """`x` in another shape; one extent may be -1, which means the rest."""
        target = list(extents)
        computed = [index for index, extent in enumerate(target) if isinstance(extent, str)]
        if len(computed) == 1 and -1 not in target:
            target[computed[0]] = -1
        match = self.shapes.get(x)
        result = _filled(match, target)
        if result == match and match is not None and None not in match:
            return x
        array = self.known(x)
        if array is not None and None not in result:
            return self.constant(array.reshape([n or 0 for n in result]))
        if None not in result:
            target = [n or 0 for n in result]
        y = self.node("Reshape", x, self.vector(target), allowzero=1 if 0 in target else None)
        self.shapes[y] = result
        return y

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        """`x` with its axes in another order."""
        order = list(axes)
        if order == list(range(len(order))):
            return x
        array = self.known(x)
        if array is not None:
            return self.constant(np.ascontiguousarray(array.transpose(order)))
        y = self.node("Transpose", x, perm=order)
        match = self.shapes.get(x)
        self.shapes[y] = None if match is None else tuple(match[axis] for axis in order)
        return y

    def expand(self, x: str, axes: Sequence[int]) -> str:
        """`x` with axes of extent 1 at places of the result."""
        if not axes:
            return x
        array = self.known(x)
        if array is not None:
            return self.constant(np.expand_dims(array, tuple(axes)))
        y = self.node("Unsqueeze", x, self.integers(axes))
        match = self.shapes.get(x)
        if match is not None:
            rank = len(match) + len(axes)
            places = {axis_of(axis, rank) for axis in axes}
            rest = iter(match)
            self.shapes[y] = tuple(1 if axis in places else next(rest) for axis in range(rank))
        return y

    def squeeze(self, x: str, axes: Sequence[int]) -> str:
        """`x` without axes of extent 1."""
        if not axes:
            return x
        array = self.known(x)
        if array is not None:
            return self.constant(np.squeeze(array, tuple(axes)))
        y = self.node("Squeeze", x, self.integers(axes))
        match = self.shapes.get(x)
        if match is not None:
            dropped = {axis_of(axis, len(match)) for axis in axes}
            self.shapes[y] = tuple(n for axis, n in enumerate(match) if axis not in dropped)
        return y

    def at_least_1d(self, x: str, shape: Shape) -> str:
        """A value of a known shape; a scalar becomes a vector, as Core ML has no scalars."""
        self.shapes[x] = shape
        return self.reshape(x, [1]) if shape == () else x

    def joined(self, values: Sequence[str], axis: int) -> str:
        """Values one after another along an axis."""
        if len(values) == 1:
            return values[0]
        arrays = [self.known(x) for x in values]
        results = [array for array in arrays if array is not None]
        if len(results) == len(arrays):
            return self.constant(np.concatenate(results, axis=axis))
        return self.node("Concat", *values, axis=axis)

    def sliced(self, x: str, axis: int, start: int, end: int, step: int = 1) -> str:
        """Part of an axis."""
        y = self.node("Slice", x, *(self.integers([n]) for n in (start, end, axis, step)))
        match = self.shapes.get(x)
        if match is not None:
            place = axis_of(axis, len(match))
            extent = match[place]
            size = None if extent is None else len(range(*slice(start, end, step).indices(extent)))
            self.shapes[y] = (*match[:place], size, *match[place + 1 :])
        return y


def _filled(shape: Shape | None, target: Extents) -> Shape:
    """What is known about the shape after a reshape."""
    numbers = [extent if isinstance(extent, int) else None for extent in target]
    if -1 not in numbers:
        return tuple(numbers)
    size = product(shape) if shape is not None else None
    others = product(n for n in numbers if n != -1)
    rest = size // others if size is not None and others else None
    return tuple(rest if n == -1 else n for n in numbers)
