"""Fixtures for all tests."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models; tests that need it skip where it is not there."""
    place = os.environ.get("MLFERRY_DATA")
    if not place:
        pytest.skip("MLFERRY_DATA does not name a folder of real models")
    return Path(place)


@pytest.fixture(scope="session")
def library() -> Callable[[str], Any]:
    """Imports an oracle by name; what it warns of while importing is its own affair."""

    def load(name: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(name)

    return load


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every test."""
    return np.random.default_rng(7)
