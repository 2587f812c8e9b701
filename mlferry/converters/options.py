"""The options of a conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlferry.converters.custom_layers import CustomFunction
from mlferry.converters.interface import InputType, OutputType
from mlferry.converters.types import ClassifierConfig


@dataclass(frozen=True)
class Options:
    """All options of a conversion, from any entry point."""

    inputs: Sequence[InputType] | None = None
    outputs: Sequence[OutputType] | None = None
    output_names: Sequence[str] | None = None
    input_names: Sequence[str] | None = None
    classifier_config: ClassifierConfig | None = None
    custom_conversion_functions: Mapping[str, CustomFunction] | None = None
    add_custom_layers: bool = False
    channels_first: bool = False
    minimum_deployment_target: str | int | None = None
    activation_quantization: str = "keep"
    signature: str | None = None
    trace_custom_layers: bool = False
    custom_objects: Mapping[str, Any] | None = None
