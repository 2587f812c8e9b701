"""Weights that Keras keeps quantized (`model.quantize`): which arrays there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mode(config: Mapping[str, Any]) -> str:
    """ "int8", "int4", ... of a layer's dtype policy, or ""."""
    policy = config.get("dtype")
    inner = policy.get("config") if isinstance(policy, Mapping) else None
    found = inner.get("mode") if isinstance(inner, Mapping) else None
    return str(found or "").split("/")[0]


def names(config: Mapping[str, Any], weight: str) -> list[str]:
    """The arrays that quantization adds to a layer whose weight has this name."""
    added = {"int8": ("scale",), "int4": ("scale", "zero", "g_idx")}.get(mode(config), ())
    return [name if name == "g_idx" else f"{weight}_{name}" for name in added]


def is_fixed(config: Mapping[str, Any], name: str) -> bool:
    """Whether quantization makes an array one that is not trained."""
    return bool(mode(config)) and name != "bias"
