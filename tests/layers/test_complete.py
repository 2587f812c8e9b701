"""Every layer kind of the schema has a kernel, a shape rule and its rows."""

from __future__ import annotations

import pytest

from mlferry.layers.definitions import DEFINITIONS
from mlferry.layers.kernels import KERNELS
from mlferry.runtime.session import CONTROL_FLOW
from mlferry.spec.proto import neural_network_pb2 as nn
from tests.layers.test_kernels import CASES

FIELDS = nn.NeuralNetworkLayer.DESCRIPTOR.oneofs_by_name["layer"].fields
KINDS = [field.name for field in FIELDS]
# Their numbers tell the version: 1 to 3 below 600, 4 and 5 above.
CLASSIC = [field.name for field in FIELDS if field.number < 600 and field.name != "custom"]
# What does nothing by itself is tested in test_control_flow.py and tests of custom layers.
ELSEWHERE = {*CONTROL_FLOW, "custom"}


def test_the_schema_is_whole() -> None:
    assert len(KINDS) == 158
    assert len(CLASSIC) == 38


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_complete(kind: str) -> None:
    assert kind in KERNELS or kind in ELSEWHERE
    assert kind in DEFINITIONS
    mappings = {case.mapping for case in CASES if case.kind == kind}
    if kind not in ELSEWHERE:
        assert "exact" in mappings
    assert ("rank5" in mappings) == (kind in CLASSIC)


def test_nothing_is_registered_that_the_schema_lacks() -> None:
    assert set(KERNELS) | ELSEWHERE == set(KINDS) == set(DEFINITIONS)
