"""The table of what becomes of every layer class of the installed Keras."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mlferry
from tests.converters.keras import support

Library = Callable[[str], Any]


def test_every_class_is_in_the_table(library: Library) -> None:
    """A new Keras with a new layer fails here until somebody looks at it."""
    rows = support.table(library("keras"))
    done, all_of_them = support.share(rows)
    assert done >= 0.95 * all_of_them


def test_a_class_that_nobody_looked_at() -> None:
    with pytest.raises(LookupError, match="NewLayer"):
        support.support("NewLayer")


def test_what_is_refused_says_so(library: Library) -> None:
    k = library("keras")
    model = k.Sequential([k.layers.Input((3,)), k.layers.Lambda(lambda x: x + 1, name="code")])
    with pytest.raises(mlferry.errors.UnsupportedOpError, match="Lambda: code"):
        mlferry.convert(model)
    video = k.Sequential([k.layers.Input((2, 3, 4, 4, 2)), k.layers.ConvLSTM3D(1, 2)])
    with pytest.raises(mlferry.errors.MlferryError):
        mlferry.convert(video)


def test_layers_one_after_the_other(library: Library) -> None:
    k = library("keras")
    inner = [k.layers.Rescaling(0.5), k.layers.CenterCrop(2, 2)]
    layer = k.layers.Pipeline(inner, name="prepare")
    model = k.Sequential([k.layers.Input((4, 4, 3)), layer])
    names = [item.name for item in mlferry.convert(model).get_spec().neuralNetwork.layers]
    assert any("rescaling" in name for name in names)
    assert any("center_crop" in name for name in names)
