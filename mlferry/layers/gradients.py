"""The registry of gradients: one function a layer kind, the way back of its kernel.

A gradient gets the `LayerRun` that is looked back at, and the gradient with respect to each output
of the layer; it returns one with respect to each input, in order: an array of its shape, or None
where a change of that input changes nothing. What it makes of a stored weight it tells with
`LayerRun.weight`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.layers.params import Params
from mlferry.numerics.gradients import scattered
from mlferry.rooms import LAYERS, RoomRegistry

Array = NDArray[Any]
Shape = tuple[int, ...]
Gradient = Callable[..., Any]
Kept = str | Callable[[Params], str]

# What a gradient reads of the arrays that went through the layer.
SHAPES, INPUTS, OUTPUTS, BOTH = "", "x", "y", "xy"

GRADIENTS: RoomRegistry[Gradient] = RoomRegistry("gradient", LAYERS, "gradient")


def gradient(*kinds: str, keeps: Kept, weights_keep: str = "") -> Callable[[Gradient], Gradient]:
    """Decorator that registers the gradient of layer kinds.

    Args:
        kinds: names of layer kinds.
        keeps: which arrays it reads, of `SHAPES` (none), `INPUTS`, `OUTPUTS` and `BOTH`, or a
            function that tells it of the layer's parameters. Others are not kept until then.
        weights_keep: what it reads besides where the layer's own weights are trained.
    """
    return GRADIENTS.register(*kinds, keeps=keeps, weights_keep=weights_keep)


def no_gradient(*kinds: str) -> None:
    """Register layer kinds whose outputs do not change with a small change of an input."""
    for kind in kinds:
        GRADIENTS.add(kind, _nothing, keeps=SHAPES, weights_keep="")


def _nothing(run: LayerRun, *gradients: Array) -> tuple[None, ...]:
    return (None,) * len(run.input_shapes)


def has_none(kind: str) -> bool:
    """Whether a change of the inputs of a layer of a kind changes nothing, or jumps."""
    entry = GRADIENTS.find(kind)
    return entry is not None and entry.value is _nothing


def kept(kind: str, params: Params, *, trained: bool) -> str:
    """What of "x" and "y", inputs and outputs, the gradient of a layer reads.

    Raises:
        KeyError: the kind has no gradient.
    """
    entry = GRADIENTS.find(kind)
    if entry is None:
        raise KeyError(kind)
    keeps = entry.options["keeps"]
    found: str = keeps if isinstance(keeps, str) else keeps(params)
    return found + entry.options["weights_keep"] if trained else found


@dataclass
class LayerRun:
    """One evaluation of a layer, as its gradient sees it.

    Attributes:
        params: the layer's parameters.
        inputs: what went in; None each where the gradient said that it does not read them.
        outputs: what came out, likewise.
        input_shapes: the shapes of the inputs.
        output_shapes: the shapes of the outputs.
        wanted: for each input, whether its gradient is used; of the others None may be returned.
        trained: the fields of weights whose gradients are wanted.
        weights: those gradients by field, once they are told.
    """

    params: Params
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    input_shapes: Sequence[Shape]
    output_shapes: Sequence[Shape]
    wanted: Sequence[bool]
    trained: frozenset[str] = frozenset()
    weights: dict[str, Array] = field(default_factory=dict)

    def weight(self, name: str, make: Callable[[], Array]) -> None:
        """Tell the gradient of a stored weight by its field; it is made where it is wanted.

        A field of a message inside is told by its path: ``"weightParams.inputGateWeightMatrix"``.
        """
        if name in self.trained:
            self.weights[name] = make()

    def moved(self, kernel: Callable[..., Any], *gradients: Array) -> Array:
        """The gradient of the first input of a kernel that only moves values, or drops some.

        The kernel is given the places of values in place of values.
        """
        shape = self.input_shapes[0]
        places = np.arange(1, math.prod(shape) + 1, dtype=np.int64).reshape(shape)
        made = kernel(self.params, places, *self.inputs[1:])
        results = made if isinstance(made, tuple) else (made,)
        total = np.zeros(shape, gradients[0].dtype)
        for result, gradient in zip(results, gradients, strict=False):
            total += scattered(np.asarray(result) - 1, gradient, shape)
        return total
