"""The registry of gradients: a function per layer kind, the backward pass of its kernel.

A gradient function takes the `LayerRun` to differentiate and the gradient with respect to each
output of the layer; it returns the gradient with respect to each input, in order: an array of its
shape, or None if that input changes nothing. It reports the gradients of stored weights with
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

# The arrays that a gradient reads.
SHAPES, INPUTS, OUTPUTS, BOTH = "", "x", "y", "xy"

GRADIENTS: RoomRegistry[Gradient] = RoomRegistry("gradient", LAYERS, "gradient")


def gradient(*kinds: str, keeps: Kept, weights_keep: str = "") -> Callable[[Gradient], Gradient]:
    """Decorator that registers the gradient of layer kinds.

    Args:
        kinds: names of layer kinds.
        keeps: which arrays it reads: `SHAPES` (none), `INPUTS`, `OUTPUTS` or `BOTH`, or a function
            that decides by the layer's parameters. Other arrays are not kept.
        weights_keep: what it also reads if the layer's own weights are trained.
    """
    return GRADIENTS.register(*kinds, keeps=keeps, weights_keep=weights_keep)


def no_gradient(*kinds: str) -> None:
    """Register layer kinds whose outputs do not change with a small change of an input."""
    for kind in kinds:
        GRADIENTS.add(kind, _nothing, keeps=SHAPES, weights_keep="")


def _nothing(run: LayerRun, *gradients: Array) -> tuple[None, ...]:
    return (None,) * len(run.input_shapes)


def has_none(kind: str) -> bool:
    """Whether outputs of a layer kind do not change with the inputs, or jump."""
    entry = GRADIENTS.find(kind)
    return entry is not None and entry.value is _nothing


def kept(kind: str, params: Params, *, trained: bool) -> str:
    """Which of "x" and "y", inputs and outputs, the gradient of a layer reads.

    Raises:
        KeyError: the kind has no gradient.
    """
    entry = GRADIENTS.find(kind)
    if entry is None:
        raise KeyError(kind)
    keeps = entry.options["keeps"]
    arrays: str = keeps if isinstance(keeps, str) else keeps(params)
    return arrays + entry.options["weights_keep"] if trained else arrays


@dataclass
class LayerRun:
    """One evaluation of a layer, for its gradient.

    Attributes:
        params: the layer's parameters.
        inputs: the inputs; None each if the gradient does not read them.
        outputs: the outputs, likewise.
        input_shapes: the shapes of the inputs.
        output_shapes: the shapes of the outputs.
        wanted: for each input, whether its gradient is used; for the others, None may be returned.
        trained: the fields of weights whose gradients are wanted.
        weights: those gradients by field, once they are reported.
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
        """Report the gradient of a stored weight by its field; `make` runs only if it is wanted.

        A field of a nested message is given by its path: ``"weightParams.inputGateWeightMatrix"``.
        """
        if name in self.trained:
            self.weights[name] = make()

    def moved(self, kernel: Callable[..., Any], *gradients: Array) -> Array:
        """The gradient of the first input of a kernel that only moves or drops values.

        The kernel runs on the positions of values instead of values.
        """
        shape = self.input_shapes[0]
        places = np.arange(1, math.prod(shape) + 1, dtype=np.int64).reshape(shape)
        outputs = kernel(self.params, places, *self.inputs[1:])
        results = outputs if isinstance(outputs, tuple) else (outputs,)
        total = np.zeros(shape, gradients[0].dtype)
        for result, gradient in zip(results, gradients, strict=False):
            total += scattered(np.asarray(result) - 1, gradient, shape)
        return total
