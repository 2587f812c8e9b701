"""Convolutions, pooling, and other layers that work on height and width."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mlferry.errors import SpecError
from mlferry.layers.methods.table import Params, method, one_of, row
from mlferry.layers.methods.values import (
    QUANTIZATION,
    borders,
    edges_of,
    floats,
    positive_as,
    quantized,
    reordered,
    same_padding,
    upper_as,
)
from mlferry.registry import did_you_mean

_PADDING = "padding_top=0, padding_bottom=0, padding_left=0, padding_right=0"
_SAME = "same_padding_asymmetry_mode='BOTTOM_RIGHT_HEAVY'"


@method(
    "add_convolution(name, kernel_channels, output_channels, height, width, stride_height, "
    "stride_width, border_mode, groups, W, b, has_bias, is_deconv=False, output_shape=None, "
    "input_name='data', output_name='out', dilation_factors=[1, 1], "
    f"{_PADDING}, {_SAME}, **kwargs)"
)
def _convolution(arguments: SimpleNamespace) -> Params:
    """`W` is [height, width, kernel_channels, output_channels], or packed bits.

    Of a transposed convolution the last axis has ``output_channels / groups``. With two inputs, the
    second holds the weights, and `W` and `b` are not read.
    """
    params: Params = {
        "isDeconvolution": arguments.is_deconv,
        "outputChannels": arguments.output_channels,
        "kernelChannels": arguments.kernel_channels,
        "kernelSize": [arguments.height, arguments.width],
        "stride": [arguments.stride_height, arguments.stride_width],
        "nGroups": arguments.groups,
        "hasBias": arguments.has_bias,
        "dilationFactor": list(arguments.dilation_factors)[:2],
        "outputShape": arguments.output_shape[:2]
        if arguments.is_deconv and arguments.output_shape
        else None,
    }
    params |= one_of(_BORDERS, arguments.border_mode, "border_mode")(arguments)
    if not isinstance(arguments.input_name, str) and len(arguments.input_name) > 1:
        return params
    return params | {
        "weights": _kernel(arguments),
        "bias": floats(arguments.b)[: arguments.output_channels] if arguments.has_bias else None,
    }


def _valid(arguments: SimpleNamespace) -> Params:
    return {"valid": {"paddingAmounts": borders(*edges_of(arguments))}}


def _last_pixel(arguments: SimpleNamespace) -> Params:
    height, width = edges_of(arguments)
    if height[0] != height[1] or width[0] != width[1]:
        raise SpecError("INCLUDE_LAST_PIXEL has the same padding on both sides of an axis")
    return {"includeLastPixel": {"paddingAmounts": [height[0], width[0]]}}


_BORDERS = {"VALID": _valid, "SAME": same_padding}
_POOLING_BORDERS = {**_BORDERS, "INCLUDE_LAST_PIXEL": _last_pixel}


def _kernel(arguments: SimpleNamespace) -> Any:
    """The weights in the order of the format: output channels first, if not transposed."""
    unknown = [name for name in arguments.kwargs if name not in QUANTIZATION]
    if unknown:
        close = did_you_mean(unknown[0], list(QUANTIZATION))
        raise SpecError(f"there is no argument {unknown[0]!r}.{close}")
    axes = (2, 3, 0, 1) if arguments.is_deconv else (3, 2, 0, 1)
    if arguments.kwargs.get("quantization_type") is None:
        return reordered(arguments.W, (), axes, 32, quantized_=False)
    last = (
        arguments.output_channels // arguments.groups
        if arguments.is_deconv
        else arguments.output_channels
    )
    shape = (arguments.height, arguments.width, arguments.kernel_channels, last)
    bits = arguments.kwargs.get("nbits", 8)
    packed = reordered(arguments.W, shape, axes, bits, quantized_=True)
    return quantized(packed, arguments.output_channels, **arguments.kwargs)


_PADDING_3D = ("Front", "Back", "Top", "Bottom", "Left", "Right")


@method(
    "add_convolution3d(name, input_channels, output_channels, depth, height, width, W, b, "
    "has_bias, groups=1, stride_depth=1, stride_height=1, stride_width=1, dilation_width=1, "
    "dilation_height=1, dilation_depth=1, is_deconv=False, output_shape=None, "
    "padding_mode='valid', padding_front=0, padding_back=0, "
    f"{_PADDING}, input_name='data', output_name='out')"
)
def _convolution_3d(arguments: SimpleNamespace) -> Params:
    """`W` is [output_channels, input_channels / groups, depth, height, width].

    Of a transposed convolution it is [output_channels / groups, input_channels, ...].
    """
    if not isinstance(arguments.input_name, str) and len(arguments.input_name) > 1:
        raise SpecError(f"a 3D convolution has one input, not {len(arguments.input_name)}")
    shape = arguments.output_shape if arguments.is_deconv else None
    params: Params = {
        "isDeconvolution": arguments.is_deconv,
        "nGroups": arguments.groups,
        "inputChannels": arguments.input_channels,
        "outputChannels": arguments.output_channels,
        "outputShape": shape[:3] if shape else None,
        "hasBias": arguments.has_bias,
        "weights": floats(arguments.W).swapaxes(0, 1)
        if arguments.is_deconv
        else floats(arguments.W),
        "bias": floats(arguments.b)[: arguments.output_channels] if arguments.has_bias else None,
    }
    for axis in ("depth", "height", "width"):
        field = axis.capitalize()
        params[f"kernel{field}"] = getattr(arguments, axis)
        params[f"stride{field}"] = getattr(arguments, f"stride_{axis}")
        params[f"dilation{field}"] = getattr(arguments, f"dilation_{axis}")
    return params | _padding_3d(arguments, "padding_")


def _padding_3d(arguments: SimpleNamespace, prefix: str) -> Params:
    """The padding of volumes; amounts count only in the mode "custom"."""
    mode = arguments.padding_mode.upper()
    entries: Params = {"paddingType": mode}
    if mode == "CUSTOM":
        for side in _PADDING_3D:
            entries[f"customPadding{side}"] = getattr(arguments, f"{prefix}{side.lower()}")
    return entries


@method(
    "add_pooling(name, height, width, stride_height, stride_width, layer_type, padding_type, "
    "input_name, output_name, exclude_pad_area=True, is_global=False, "
    f"{_PADDING}, {_SAME})"
)
def _pooling(arguments: SimpleNamespace) -> Params:
    """`layer_type` is MAX, AVERAGE or L2; `padding_type` VALID, SAME or INCLUDE_LAST_PIXEL."""
    return {
        "type": arguments.layer_type.upper(),
        "kernelSize": [arguments.height, arguments.width],
        "stride": [arguments.stride_height, arguments.stride_width],
        "avgPoolExcludePadding": arguments.exclude_pad_area,
        "globalPooling": arguments.is_global,
        **one_of(_POOLING_BORDERS, arguments.padding_type, "padding_type")(arguments),
    }


@method(
    "add_pooling3d(name, input_name, output_name, pooling_type, kernel_depth, kernel_height, "
    "kernel_width, stride_depth, stride_height, stride_width, padding_mode='valid', "
    "custom_padding_front=0, custom_padding_back=0, custom_padding_top=0, "
    "custom_padding_bottom=0, custom_padding_left=0, custom_padding_right=0, "
    "average_pooling_count_excludes_padding=False)"
)
def _pooling_3d(arguments: SimpleNamespace) -> Params:
    """`pooling_type` is MAX or AVERAGE; `padding_mode` "valid", "same" or "custom"."""
    params: Params = {
        "type": arguments.pooling_type.upper(),
        "countExcludePadding": arguments.average_pooling_count_excludes_padding,
    }
    for axis in ("depth", "height", "width"):
        for option in ("kernel", "stride"):
            params[f"{option}{axis.capitalize()}"] = getattr(arguments, f"{option}_{axis}")
    return params | _padding_3d(arguments, "custom_padding_")


row(
    "add_global_pooling3d(name, input_name, output_name, pooling_type)",
    pooling_type=upper_as("type"),
)


@method(
    "add_padding(name, left=0, right=0, top=0, bottom=0, value=0, input_name='data', "
    "output_name='out', padding_type='constant')"
)
def _padding(arguments: SimpleNamespace) -> Params:
    """`padding_type` is "constant", "reflection" or "replication"."""
    kinds: dict[str, Params] = {
        "CONSTANT": {"constant": {"value": arguments.value}},
        "REFLECTION": {"reflection": {}},
        "REPLICATION": {"replication": {}},
    }
    return {
        **one_of(kinds, arguments.padding_type, "padding_type"),
        "paddingAmounts": borders(
            (arguments.top, arguments.bottom), (arguments.left, arguments.right)
        ),
    }


@method("add_crop(name, left, right, top, bottom, offset, input_names, output_name)")
def _crop(arguments: SimpleNamespace) -> Params:
    """One input is cut by the edges; the first of two at `offset`, to the size of the second."""
    single = isinstance(arguments.input_names, str) or len(arguments.input_names) == 1
    return {
        "offset": [0, 0] if single else arguments.offset,
        "cropAmounts": borders(
            (arguments.top, arguments.bottom), (arguments.left, arguments.right)
        ),
    }


@method(
    "add_upsample(name, scaling_factor_h, scaling_factor_w, input_name, output_name, mode='NN', "
    "linear_upsample_mode='DEFAULT')"
)
def _upsample(arguments: SimpleNamespace) -> Params:
    """Fractional factors need BILINEAR and one of the modes ALIGN_CORNERS."""
    mode, linear = arguments.mode.upper(), arguments.linear_upsample_mode.upper()
    factors = [arguments.scaling_factor_h, arguments.scaling_factor_w]
    fractional = any(factor - int(factor) > 0.001 for factor in factors)
    if fractional and (mode != "BILINEAR" or linear == "DEFAULT"):
        raise SpecError(
            f"the factors {factors} need mode='BILINEAR' and linear_upsample_mode="
            "'ALIGN_CORNERS_TRUE' or 'ALIGN_CORNERS_FALSE'"
        )
    return {
        "mode": mode,
        "linearUpsampleMode": linear,
        "fractionalScalingFactor": [float(f) for f in factors] if fractional else None,
        "scalingFactor": None if fractional else [int(f) for f in factors],
    }


@method(
    "add_resize_bilinear(name, input_name, output_name, target_height=1, target_width=1, "
    "mode='ALIGN_ENDPOINTS_MODE')"
)
def _resize_bilinear(arguments: SimpleNamespace) -> Params:
    """`mode` says where samples are taken: a value of `SamplingMode`."""
    return {
        "targetSize": [arguments.target_height, arguments.target_width],
        "mode": {"samplingMethod": arguments.mode.upper()},
    }


@method(
    "add_crop_resize(name, input_names, output_name, target_height=1, target_width=1, "
    "mode='STRICT_ALIGN_ENDPOINTS_MODE', normalized_roi=False, "
    "box_indices_mode='CORNERS_HEIGHT_FIRST', spatial_scale=1.0)"
)
def _crop_resize(arguments: SimpleNamespace) -> Params:
    """`box_indices_mode` says what the numbers of a box are: a value of `BoxCoordinatesMode`."""
    return {
        "targetSize": [arguments.target_height, arguments.target_width],
        "mode": {"samplingMethod": arguments.mode.upper()},
        "boxIndicesMode": {"boxMode": arguments.box_indices_mode.upper()},
        "normalizedCoordinates": arguments.normalized_roi,
        "spatialScale": arguments.spatial_scale,
    }


row(
    "add_reorganize_data(name, input_name, output_name, mode='SPACE_TO_DEPTH', block_size=2)",
    mode=upper_as("mode"),
    block_size=positive_as("blockSize", 2),
)
