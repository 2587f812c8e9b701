"""Sums of products over named axes, NumPy as the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import mlferry
from mlferry.errors import ConversionError

EQUATIONS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("ij,kj->ik", [(2, 3), (4, 3)]),
    ("i,i->", [(3,), (3,)]),
    ("i,j->ij", [(2,), (3,)]),
    ("ij->", [(2, 3)]),
    ("ij->ji", [(2, 3)]),
    ("ij->j", [(2, 3)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("iij->ij", [(3, 3, 2)]),
    ("ijij->j", [(2, 3, 2, 3)]),
    ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
    ("bhqd,bhkd->bhqk", [(1, 2, 3, 4), (1, 2, 5, 4)]),
    ("bqd,hdk->bhqk", [(2, 3, 4), (5, 4, 2)]),
    ("bqhd,hdo->bqo", [(2, 3, 2, 4), (2, 4, 5)]),
    ("...ij,...jk->...ik", [(2, 2, 3), (2, 3, 4)]),
    ("...ij,jk->...ik", [(2, 5, 2, 3), (3, 4)]),
    ("...ij,...jk", [(2, 2, 3), (3, 4)]),
    ("...i->...", [(2, 3, 4)]),
    ("i...->...i", [(2, 3, 4)]),
    ("...ij,...jk->...ik", [(1, 2, 3), (5, 3, 4)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("ab,bc,cd,de->ea", [(2, 3), (3, 4), (4, 2), (2, 3)]),
    ("i,i,i->i", [(3,), (3,), (3,)]),
    ("ij,ij->ij", [(2, 3), (2, 3)]),
    ("ij,ij->", [(2, 3), (2, 3)]),
    ("ijk,k->ij", [(2, 3, 4), (4,)]),
    ("ij,k->jk", [(2, 3), (4,)]),
    ("ij , jk -> ik", [(2, 3), (3, 4)]),
]


def model(equation: str, shapes: list[tuple[int, ...]]) -> object:
    names = [f"x{index}" for index in range(len(shapes))]
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Einsum", names, ["y"], equation=equation)],
            "g",
            [helper.make_tensor_value_info(n, 1, s) for n, s in zip(names, shapes, strict=True)],
            [helper.make_tensor_value_info("y", 1, None)],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=str)
def test_einsum(equation: str, shapes: list[tuple[int, ...]], rng: np.random.Generator) -> None:
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    expected = np.atleast_1d(np.einsum(equation.replace(" ", ""), *arrays))
    inputs = {f"x{index}": x for index, x in enumerate(arrays)}
    (actual,) = mlferry.convert(model(equation, shapes)).predict(inputs).values()
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [("ij,jk->ik", [(2, 3)]), ("ijk->i", [(2, 3)]), ("i->ii", [(2,)]), ("i->j", [(2,)])],
)
def test_equations_that_do_not_fit(equation: str, shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ConversionError):
        mlferry.convert(model(equation, shapes))
