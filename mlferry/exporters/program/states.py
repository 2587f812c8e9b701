"""Inputs that a network only passes on from one prediction to the next, as states of a program."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlferry.errors import ExportError
from mlferry.registry import did_you_mean
from mlferry.spec import features
from mlferry.spec.proto import features_pb2 as ft, model_pb2

# How the names of a pair differ: for stateful Keras layers, and for key-value caches.
_PAIRS = (
    (r"^(.*)_in$", r"\1_out"),
    (r"^past_key_values(.*)$", r"present\1"),
    (r"^past(.*)$", r"present\1"),
)


def pairs_of(
    description: model_pb2.ModelDescription, states: Mapping[str, str] | bool
) -> dict[str, str]:
    """The output that is the next value of each input that becomes a state.

    Args:
        description: of a network.
        states: inputs and their outputs; True for all pairs whose names say so: NAME_in and
            NAME_out, past... and present....

    Raises:
        ExportError: an input or output does not exist, the two differ in shape, or no output is
            left; or, for True, no pair is found. All problems are named.
    """
    inputs = {feature.name: feature.type for feature in description.input}
    outputs = {feature.name: feature.type for feature in description.output}
    pairs = dict(_pairs_by_name(inputs, outputs) if states is True else states or {})
    if states is True and not pairs:
        raise ExportError(
            "states=True: no input and output are called NAME_in and NAME_out, or past... and "
            "present...; name the pairs: states={'input': 'output'}"
        )
    problems = []
    for name, kinds, role in (
        *((name, inputs, "input") for name in pairs),
        *((name, outputs, "output") for name in pairs.values()),
    ):
        if name not in kinds:
            problems.append(f"there is no {role} {name!r}.{did_you_mean(name, list(kinds))}")
    for name, following in pairs.items():
        if name in inputs and following in outputs:
            problems += _misfits(name, inputs[name], following, outputs[following])
    for following in dict.fromkeys(pairs.values()):
        users = [name for name in pairs if pairs[name] == following]
        if len(users) > 1:
            problems.append(f"{following!r} is the next value of one input, not of {users}")
    if pairs and not problems and outputs.keys() <= set(pairs.values()):
        problems.append(
            "no output is left: the next value of a state is not an output; leave one of them out"
        )
    if problems:
        raise ExportError("these cannot be states:\n  - " + "\n  - ".join(problems))
    return pairs


def _pairs_by_name(
    inputs: Mapping[str, ft.FeatureType], outputs: Mapping[str, ft.FeatureType]
) -> Mapping[str, str]:
    pairs: dict[str, str] = {}
    for name in inputs:
        for pattern, following in _PAIRS:
            other = re.sub(pattern, following, name)
            if other != name and other in outputs:
                pairs.setdefault(name, other)
    return pairs


def _misfits(name: str, before: ft.FeatureType, following: str, after: ft.FeatureType) -> list[str]:
    shape, other = list(before.multiArrayType.shape), list(after.multiArrayType.shape)
    if not before.HasField("multiArrayType") or not after.HasField("multiArrayType"):
        return [f"{name!r} and {following!r} are not both multi-arrays"]
    if not shape or before.multiArrayType.WhichOneof("ShapeFlexibility") is not None:
        return [f"input {name!r} is a {features.show(before)}: a state has one size"]
    if other and shape != other:
        return [f"{name!r} has the shape {shape} and {following!r} {other}: a state has one size"]
    return []


def state_name(name: str) -> str:
    """The name of an input's state, which lacks the ending that stateful layers add."""
    return name.removesuffix("_in")
