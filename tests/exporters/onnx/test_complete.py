"""Every layer kind of the schema becomes ONNX, or is refused with a reason that is written down."""

from __future__ import annotations

import pytest

from mlferry.exporters.onnx.network import SPECIAL
from mlferry.layers.exports import OPS
from tests.exporters.onnx.test_layers import NEEDS_EXTENTS, REFUSED
from tests.layers.test_complete import KINDS
from tests.layers.test_kernels import CASES


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_exported_and_tested(kind: str) -> None:
    assert (kind in OPS) != (kind in SPECIAL)
    if kind in OPS:
        assert any(case.kind == kind for case in CASES)


def test_nothing_is_registered_that_the_schema_lacks() -> None:
    assert {*OPS, *SPECIAL} == set(KINDS)


def test_what_is_refused_is_documented() -> None:
    """Ranks that nothing tells are a limit of a whole model, not of a kind."""
    for kind in {*REFUSED, *NEEDS_EXTENTS}:
        entry = OPS.find(kind)
        assert entry is not None
        assert entry.options.get("limits") or "the rank of output" in NEEDS_EXTENTS[kind]
