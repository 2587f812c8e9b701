"""What an op takes, in each opset: as coremltools has it."""

from __future__ import annotations

from typing import Any

import pytest

from mlferry.programs.definitions import Definition, definition_of

make: Any = pytest.importorskip("tests.programs.make")

OPSETS = (5, 6, 7, 8, 9)
NEVER = ("_const_symbolic", "conv_quantized")
# coremltools writes an epsilon of float32 beside values of float16, and says that it cannot be.
LOOSER = {("batch_norm", opset): {"epsilon"} for opset in (7, 8, 9)}


def ops() -> list[tuple[str, int, Any]]:
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    return [
        (op, opset, actual[make.target(opset)])
        for op, actual in sorted(SSAOpRegistry.core_ops.items())
        for opset in OPSETS
        if make.target(opset) in actual and op not in NEVER
    ]


OPS = ops()


def theirs(kind: Any) -> dict[str, Any]:
    """The parameters that are written; blocks are told apart."""
    actual = kind.input_spec.input_types
    return {name: inputs for name, inputs in actual.items() if not name.startswith("_")}


def domain(kind: Any, inputs: Any) -> set[str]:
    from coremltools.converters.mil.mil import types

    shared = inputs.type_domain_id
    allowed = kind.type_domains[shared] if shared else inputs.type_domain
    each = allowed if isinstance(allowed, tuple | list | set) else (allowed,)
    return {types.builtin_to_string(dtype) for dtype in each}


def ours(definition: Definition, name: str) -> set[str]:
    allowed = definition.parameters[name].dtypes
    return set(definition.variables[allowed] if isinstance(allowed, str) else allowed)


@pytest.mark.parametrize(("op", "opset", "kind"), OPS, ids=[f"{o}-{n}" for o, n, _ in OPS])
def test_parameters(op: str, opset: int, kind: Any) -> None:
    from coremltools.converters.mil.mil.input_type import TensorInputType

    definition = definition_of(op, opset)
    expected = theirs(kind)
    assert set(definition.parameters) == set(expected)
    for name, inputs in expected.items():
        parameter = definition.parameters[name]
        assert parameter.required is not inputs.optional, name
        assert parameter.constant == bool(inputs.const), name
        if isinstance(inputs, TensorInputType):
            assert ours(definition, name) == domain(kind, inputs), name


@pytest.mark.parametrize(("op", "opset", "kind"), OPS, ids=[f"{o}-{n}" for o, n, _ in OPS])
def test_parameters_of_one_type(op: str, opset: int, kind: Any) -> None:
    """Which parameters have the same type of elements."""
    definition = definition_of(op, opset)
    shared: dict[str, set[str]] = {}
    for name, inputs in theirs(kind).items():
        variable = getattr(inputs, "type_domain_id", None)
        if variable and len(domain(kind, inputs)) > 1:
            shared.setdefault(variable, set()).add(name)
    free = LOOSER.get((op, opset), set())
    expected = {frozenset(names - free) for names in shared.values() if len(names) > 1}
    own: dict[str, set[str]] = {}
    for name, parameter in definition.parameters.items():
        if isinstance(parameter.dtypes, str) and len(ours(definition, name)) > 1:
            own.setdefault(parameter.dtypes, set()).add(name)
    assert {frozenset(names) for names in own.values() if len(names) > 1} == expected


def test_an_op_is_there_from_its_opset_on() -> None:
    from mlferry.errors import SpecError

    there = {(op, opset) for op, opset, _ in OPS}
    for op in {op for op, _, _ in OPS}:
        for opset in OPSETS:
            first = min(n for o, n in there if o == op)
            if opset >= first:
                definition_of(op, opset)
                continue
            with pytest.raises(SpecError, match=f"came with the opset CoreML{first}"):
                definition_of(op, opset)
