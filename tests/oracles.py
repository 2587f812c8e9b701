"""Libraries that a whole module of tests compares with."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest


def oracle(name: str) -> Any:
    """A library; the module is skipped where it does not go with the versions of the others."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        if "MLFERRY_FEW_ORACLES" in os.environ:
            pytest.skip(f"{name} does not go with these versions", allow_module_level=True)
        raise
