"""Layers that work value by value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry.errors import SpecError
from mlferry.layers.methods.table import NewLayer, Params, method, one_of, row
from mlferry.layers.methods.values import floats, number_as, upper_as

for _name in (
    *("erf", "sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
    *("exp2", "ceil", "floor", "round", "sign", "copy", "softmax"),
):
    row(f"add_{_name}(name, input_name, output_name)")

for _name in (
    *("add", "multiply", "divide", "subtract", "max", "min"),
    *("floor_div", "mod", "pow", "where"),
):
    row(f"add_{_name}_broadcastable(name, input_names, output_name)")

row("add_gelu(name, input_name, output_name, mode='EXACT')", mode=upper_as("mode"))
row(
    "add_clip(name, input_name, output_name, min_value=0.0, max_value=1.0)",
    min_value=number_as("minVal"),
    max_value=number_as("maxVal"),
)
row(
    "add_clamped_relu(name, input_name, output_name, alpha=0.0, beta=6.0)",
    kind="clampedReLU",
    alpha=number_as("alpha"),
    beta=number_as("beta"),
)


def _pair(alpha: float, beta: float) -> Callable[[Sequence[float] | None], Params]:
    """A setter of two numbers, with defaults."""

    def pair(params: Sequence[float] | None) -> Params:
        first, second = (alpha, beta) if params is None else params
        return {"alpha": float(first), "beta": float(second)}

    return pair


def _single(default: float | None = None) -> Callable[[ArrayLike | None], Params]:
    """A setter of one number, with a default."""

    def single(params: ArrayLike | None) -> Params:
        value = default if params is None else np.ravel(params)[0]
        if value is None:
            raise SpecError("params is the number alpha")
        return {"alpha": float(value)}

    return single


def _nothing(params: ArrayLike | None) -> Params:
    return {}


def _soft_plus(params: Sequence[ArrayLike]) -> Params:
    alpha, beta = params
    return {"alpha": floats(alpha), "beta": floats(beta)}


_ACTIVATIONS: dict[str, tuple[str, Callable[[Any], Params]]] = {
    "RELU": ("ReLU", _nothing),
    "SIGMOID": ("sigmoid", _nothing),
    "TANH": ("tanh", _nothing),
    "SCALED_TANH": ("scaledTanh", _pair(0.0, 0.0)),
    "SOFTPLUS": ("softplus", _nothing),
    "SOFTSIGN": ("softsign", _nothing),
    "SIGMOID_HARD": ("sigmoidHard", _pair(0.2, 0.5)),
    "LEAKYRELU": ("leakyReLU", _single(0.3)),
    "PRELU": ("PReLU", lambda params: {"alpha": floats(params)}),
    "ELU": ("ELU", _single()),
    "PARAMETRICSOFTPLUS": ("parametricSoftplus", _soft_plus),
    "THRESHOLDEDRELU": ("thresholdedReLU", _single(1.0)),
    "LINEAR": ("linear", _pair(1.0, 0.0)),
}


@method(
    "add_activation(name, non_linearity, input_name, output_name, params=None, input_rank=None, "
    "input_shape=None, output_rank=None, output_shape=None)"
)
def _activation(arguments: SimpleNamespace) -> NewLayer:
    """`params` are the numbers of the function, in the order of its fields."""
    field, fill = one_of(_ACTIVATIONS, arguments.non_linearity, "non_linearity")
    declared = {
        "inputTensor": _tensor(arguments.input_rank, arguments.input_shape),
        "outputTensor": _tensor(arguments.output_rank, arguments.output_shape),
    }
    return NewLayer("activation", {field: fill(arguments.params)}, declared)


def _tensor(rank: int | None, shape: Sequence[int] | None) -> list[Params]:
    """The declaration of a blob in a layer: nothing, its rank, or its shape."""
    if not shape:
        return [{"rank": rank}] if rank else []
    return [{"rank": rank or len(shape), "dimValue": [int(n) for n in shape]}]


_ELEMENTWISE: dict[str, tuple[str, Params]] = {
    "CONCAT": ("concat", {"sequenceConcat": False}),
    "SEQUENCE_CONCAT": ("concat", {"sequenceConcat": True}),
    "ADD": ("add", {}),
    "MULTIPLY": ("multiply", {}),
    "COS": ("dot", {"cosineSimilarity": True}),
    "DOT": ("dot", {"cosineSimilarity": False}),
    "MAX": ("max", {}),
    "MIN": ("min", {}),
    "AVE": ("average", {}),
}


@method("add_elementwise(name, input_names, output_name, mode, alpha=None)")
def _elementwise(arguments: SimpleNamespace) -> NewLayer:
    """`alpha` is the number that one input is added to, or multiplied by."""
    kind, params = one_of(_ELEMENTWISE, arguments.mode, "mode")
    takes_alpha = kind in ("add", "multiply") and arguments.alpha
    return NewLayer(kind, {**params, "alpha": arguments.alpha} if takes_alpha else params)


_EPSILONS = {"INVERSE": 1e-4, "RSQRT": 1e-4, "LOG": 1e-45}
_UNARY = ("SQRT", "RSQRT", "INVERSE", "POWER", "EXP", "LOG", "ABS", "THRESHOLD")


@method(
    "add_unary(name, input_name, output_name, mode, alpha=1.0, shift=0, scale=1.0, epsilon=None)"
)
def _unary(arguments: SimpleNamespace) -> Params:
    """A function of ``scale * x + shift``; `epsilon` is by default the function's own."""
    function = one_of({name: name for name in _UNARY}, arguments.mode, "mode")
    epsilon = _EPSILONS.get(function, 1e-6) if arguments.epsilon is None else arguments.epsilon
    return {
        "type": function,
        "alpha": arguments.alpha,
        "shift": arguments.shift,
        "scale": arguments.scale,
        "epsilon": epsilon,
    }


def _comparison(otherwise: str, kind: str, flag: str) -> Callable[[SimpleNamespace], NewLayer]:
    def compare(arguments: SimpleNamespace) -> NewLayer:
        chosen = otherwise if flag and getattr(arguments, flag) else kind
        return NewLayer(chosen, _with_alpha(arguments))

    return compare


def _with_alpha(arguments: SimpleNamespace) -> Params:
    """One input is compared with `alpha`."""
    single = isinstance(arguments.input_names, str) or len(arguments.input_names) == 1
    return {"alpha": arguments.alpha} if single else {}


method("add_greater_than(name, input_names, output_name, use_greater_than_equal=False, alpha=0.0)")(
    _comparison("greaterEqual", "greaterThan", "use_greater_than_equal")
)
method("add_less_than(name, input_names, output_name, use_less_than_equal=False, alpha=0.0)")(
    _comparison("lessEqual", "lessThan", "use_less_than_equal")
)
method("add_equal(name, input_names, output_name, alpha=0.0)")(_with_alpha)
method("add_not_equal(name, input_names, output_name, alpha=0.0)")(_with_alpha)

_LOGICAL = {
    "AND": ("logicalAnd", 2),
    "OR": ("logicalOr", 2),
    "XOR": ("logicalXor", 2),
    "NOT": ("logicalNot", 1),
}


@method("add_logical(name, input_names, output_name, mode)")
def _logical(arguments: SimpleNamespace) -> NewLayer:
    """AND, OR and XOR of two inputs, NOT of one."""
    kind, count = one_of(_LOGICAL, arguments.mode, "mode")
    names = (
        [arguments.input_names] if isinstance(arguments.input_names, str) else arguments.input_names
    )
    if len(names) != count:
        raise SpecError(f"{arguments.mode} has {count} inputs, not {len(names)}")
    return NewLayer(kind)
