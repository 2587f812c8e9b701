"""Some architectures of `keras.applications`; ``make keras-applications`` has all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import mlferry
from tests.converters.keras import applications
from tests.converters.keras.test_models import kinds

Library = Callable[[str], Any]


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "EfficientNetB0"])
def test_architecture(name: str, library: Library) -> None:
    result = applications.check(library("keras"), name)
    assert result.error <= applications.TOLERANCE
    assert result.transposes == 1  # where the array comes in


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
def test_no_transpose_behind_an_image(name: str, library: Library) -> None:
    model = applications.build(library("keras"), name)
    converted = mlferry.convert(model, inputs=[mlferry.ImageType()])
    assert "transpose" not in kinds(converted)
