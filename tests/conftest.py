"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models; tests that need it skip where it is not there."""
    place = os.environ.get("MLFERRY_DATA")
    if not place:
        pytest.skip("MLFERRY_DATA does not name a folder of real models")
    return Path(place)
