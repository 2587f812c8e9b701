"""Conditions and loops that are computed: Core ML's branch and loop layers.

Both hold networks of their own, which see the blobs around them. Results of such a network are
copied to blobs that are known outside; a copy is the only layer that may overwrite a blob.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mlferry.converters.lowering import Lowering
from mlferry.converters.values import SCALAR, Blob, Constant
from mlferry.errors import ConversionError
from mlferry.numerics.shapes import Shape, in_common, show

Body = Callable[[], Sequence[Blob | Constant]]
Round = Callable[[Blob, list[Blob]], tuple["Blob | Constant | None", Sequence[Blob | Constant]]]


def branch(context: Lowering, condition: Blob, yes: Body, no: Body) -> list[Blob]:
    """The results of one of two branches.

    Args:
        condition: one number, true where it is not 0.
        yes: converts the branch for a true condition, and returns its results.
        no: converts the other branch, with as many results, of the same ranks.

    Raises:
        ConversionError: the results do not fit together, or the condition is not a single number.
    """
    _check_single(condition, "a condition")
    results: list[list[Blob]] = []
    branches: list[Any] = []
    targets: list[str] = []
    for body in (yes, no):
        with context.inside() as network:
            outputs = [_plain(context, x) for x in body()]
            targets = targets or [context.fresh(f"result_{index}") for index in range(len(outputs))]
            if len(outputs) != len(targets):
                raise ConversionError(
                    f"one branch makes {len(targets)} results, the other {len(outputs)}"
                )
            for x, target in zip(outputs, targets, strict=True):
                context.copy(x, target)
            results.append(outputs)
            branches.append(network)
    label = context.builder.unused_layer(context.fresh("branch"))
    context.builder.layer(
        "branch", label, [condition.name], [], ifBranch=branches[0], elseBranch=branches[1]
    )
    entries = []
    for target, first, second in zip(targets, *results, strict=True):
        shape = _common(first, second)
        context.builder.made_inside(target, shape)
        hidden = first.hidden_by or second.hidden_by
        entries.append(Blob(target, shape, first.layout, hidden if shape is None else ""))
    return entries


def _common(first: Blob, second: Blob) -> Shape | None:
    """The shape of a result of either branch."""
    if first.shape is None or second.shape is None:
        return None
    if len(first.shape) != len(second.shape) or first.is_scalar != second.is_scalar:
        raise ConversionError(
            f"the two branches of a condition make shapes {show(first.source_shape)} and "
            f"{show(second.source_shape)}: Core ML needs one rank"
        )
    return in_common(first.shape, second.shape)


def loop(
    context: Lowering,
    limit: Blob | int | None,
    condition: Blob | None,
    states: Sequence[Any],
    body: Round,
) -> list[Blob]:
    """The states after all rounds of a body.

    Args:
        limit: the number of rounds at most; None is no limit.
        condition: whether there is a first round; None if only the limit counts.
        states: blobs or constants; their shapes stay the same.
        body: takes the number of the round, from 0, and the states; returns whether there is
            another round (None: up to the limit) and the new states.

    Raises:
        ConversionError: nothing ends the loop, or a state changes its shape.
    """
    if limit is None and condition is None:
        raise ConversionError("a loop without an end")
    if isinstance(limit, Blob):
        _check_single(limit, "a number of rounds")
    values = [_plain(context, x) for x in states]
    variables = [replace(x, name=_variable(context, x, f"state_{i}")) for i, x in enumerate(values)]
    zero = context.constant([0.0])
    index = replace(zero, name=_variable(context, zero, "round"), layout=SCALAR)
    going = None
    if condition is not None:
        _check_single(condition, "a condition")
        going = replace(condition, name=_variable(context, condition, "goes_on"))
    with context.inside() as network:
        again, results = body(index, variables)
        outputs = [_plain(context, x) for x in results]
        _check_states(variables, outputs)
        changed = dict(zip(variables, outputs, strict=True))
        if going is not None and again is not None:
            changed[going] = _plain(context, again)
        changed[index] = context.layer("activation", index, linear={"alpha": 1.0, "beta": 1.0})
        _assign(context, changed)
    options: dict[str, Any] = {}
    if going is not None:
        name = context.fresh("condition")
        with context.inside() as question:
            context.copy(going, name)
        options = {"conditionNetwork": question, "conditionVar": name}
    if isinstance(limit, int):
        options["maxLoopIterations"] = limit
    label = context.builder.unused_layer(context.fresh("loop"))
    inputs = [limit.name] if isinstance(limit, Blob) else []
    context.builder.layer("loop", label, inputs, [], bodyNetwork=network, **options)
    return variables


def _variable(context: Lowering, x: Blob, name: str) -> str:
    """A new blob that starts as a copy of another."""
    target = context.fresh(name)
    context.copy(x, target)
    return target


def _assign(context: Lowering, changed: dict[Blob, Blob]) -> None:
    """Give variables new values at once: values that are variables themselves are copied first."""
    names = {variable.name for variable in changed}
    values = {}
    for variable, value in changed.items():
        if value.name in names and value.name != variable.name:
            value = replace(value, name=_variable(context, value, "aside"))  # noqa: PLW2901 - its copy
        values[variable] = value
    for variable, value in values.items():
        if value.name != variable.name:
            context.copy(value, variable.name)


def _check_states(variables: Sequence[Blob], results: Sequence[Blob]) -> None:
    if len(variables) != len(results):
        raise ConversionError(f"a loop of {len(variables)} states makes {len(results)}")
    for before, after in zip(variables, results, strict=True):
        if before.shape != after.shape or before.is_scalar != after.is_scalar:
            raise ConversionError(
                f"a state of a loop has shape {show(before.source_shape)} before a round and "
                f"{show(after.source_shape)} after it; in Core ML it stays the same"
            )


def _plain(context: Lowering, x: Blob | Constant) -> Blob:
    return context.stored(x) if isinstance(x, Constant) else context.source_order(x)


def _check_single(x: Blob, subject: str) -> None:
    if x.shape is not None and any(n not in (1, None) for n in x.shape):
        raise ConversionError(f"{subject} of shape {show(x.source_shape)}: it is one number")
