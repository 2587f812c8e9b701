"""Which weights are quantized: by kind, by name, by size, or by any function.

A selector is a function from a `Site` (its `layer`, `kind`, `name`, `field`, `shape`, `count`)
to whether it is quantized. Those made here pick from the weights that are quantized by
default, the matrices; `everything` and functions of users decide about vectors as well.
Objects with coremltools' method ``do_quantize(layer, weight_param=...)`` work, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from mlferry.errors import SpecError
from mlferry.layers.sites import Site

Selector = Callable[[Site], bool]


def matrices(site: Site) -> bool:
    """The default: all but biases, normalization, and small or integral constants."""
    return site.is_matrix


def everything(site: Site) -> bool:
    """Every weight, vectors too."""
    return True


def by_kind(*kinds: str) -> Selector:
    """Matrices of layers of these kinds, e.g. ``by_kind("convolution")``."""
    return lambda site: site.kind in kinds and site.is_matrix


def by_name(*patterns: str) -> Selector:
    """Matrices of layers whose names match one of these patterns (``*`` and ``?``)."""
    return lambda site: any(fnmatchcase(site.name, p) for p in patterns) and site.is_matrix


def at_least(count: int) -> Selector:
    """Matrices of at least `count` values."""
    return lambda site: site.count >= count and site.is_matrix


def but(selector: Selector) -> Selector:
    """Matrices that `selector` does not pick."""
    return lambda site: site.is_matrix and not selector(site)


class QuantizedLayerSelector:
    """Picks layers; derive from it and override `do_quantize`."""

    def do_quantize(self, layer: Any, **kwargs: Any) -> bool:
        """Whether a layer is quantized; ``weight_param`` is the field of its weight."""
        return True


class AdvancedQuantizedLayerSelector(QuantizedLayerSelector):
    """Skips kinds of layers, and small convolutions.

    Args:
        skip_layer_types: kinds that stay as they are; ``"depthwiseConv"`` stands for
            convolutions with one input channel a group.
        minimum_conv_kernel_channels: convolutions with fewer input channels a group stay.
        minimum_conv_weight_count: convolutions with fewer weights stay.
    """

    def __init__(
        self,
        skip_layer_types: Iterable[str] = (),
        minimum_conv_kernel_channels: int = 4,
        minimum_conv_weight_count: int = 4096,
    ) -> None:
        self.skip_layer_types = tuple(skip_layer_types)
        self.minimum_conv_kernel_channels = minimum_conv_kernel_channels
        self.minimum_conv_weight_count = minimum_conv_weight_count

    def do_quantize(self, layer: Any, **kwargs: Any) -> bool:
        """Whether a layer is quantized."""
        kind = layer.WhichOneof("layer")
        if kind in self.skip_layer_types:
            return False
        if kind != "convolution":
            return True
        p = layer.convolution
        depthwise = p.kernelChannels == 1 and p.nGroups > 1
        if depthwise and "depthwiseConv" in self.skip_layer_types:
            return False
        count = p.outputChannels * p.kernelChannels
        for size in p.kernelSize or (3, 3):
            count *= size
        return bool(
            p.kernelChannels >= self.minimum_conv_kernel_channels
            and count >= self.minimum_conv_weight_count
        )


def resolve(selector: Any, default: Selector) -> Selector:
    """What a user gave as `selector`, as a function.

    Raises:
        SpecError: it is neither a function nor has a method `do_quantize`.
    """
    if selector is None:
        return default
    method = getattr(selector, "do_quantize", None)
    if callable(method) and not isinstance(selector, type):
        return lambda site: default(site) and bool(method(site.layer, weight_param=site.field))
    if callable(selector) and not isinstance(selector, type):
        return lambda site: bool(selector(site))
    raise SpecError(
        f"selector is a {type(selector).__name__}; give a function of a weight's site, e.g. "
        "selector=lambda site: site.kind == 'convolution', or an object with do_quantize(layer)"
    )
