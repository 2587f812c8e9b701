"""The family of a box, which determines its colour, and its most important attribute."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlferry.layers.definitions import DEFINITIONS as LAYERS
from mlferry.layers.params import Params
from mlferry.programs.definitions import DEFINITIONS as OPERATIONS
from mlferry.spec.proto import neural_network_pb2 as nn

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor
    from google.protobuf.message import Message

_TIMES = "\N{MULTIPLICATION SIGN}"
_LONGEST = 30  # letters of the line in a box
# The families of layers and operations in a few groups, each with a colour.
_GROUPS = {
    "convolution": "weights",
    "linear": "weights",
    "quantization": "weights",
    "recurrent": "weights",
    "normalization": "normal",
    "elementwise": "math",
    "reduction": "math",
    "random": "math",
    "arrays": "shape",
    "reshaping": "shape",
    "slicing": "shape",
    "indexing": "shape",
    "resizing": "shape",
    "volumes": "weights",
    "dynamic": "shape",
    "control": "control",
    "detection": "control",
    "constants": "constant",
}
_ACTIVATIONS = frozenset(
    [
        *("activation", "unary_relu", "clip", "clamped_relu", "elu", "erf", "gelu", "leaky_relu"),
        *("linear_activation", "prelu", "relu", "relu6", "scaled_tanh", "sigmoid", "sigmoid_hard"),
        *("silu", "softmax", "softmaxND", "softplus", "softplus_parametric", "softsign", "tanh"),
        *("thresholded_relu", "thresholdedrelu"),
    ]
)
_NAMES = {
    "ReLU": "ReLU",
    "leakyReLU": "leaky ReLU",
    "thresholdedReLU": "thresholded ReLU",
    "PReLU": "PReLU",
    "ELU": "ELU",
    "sigmoidHard": "hard sigmoid",
    "scaledTanh": "scaled tanh",
    "parametricSoftplus": "parametric softplus",
}


def layer_family(kind: str) -> str:
    """The group of a layer kind; "other" if it is unknown."""
    entry = LAYERS.find(kind)
    return _group(kind, None if entry is None else entry.value.shape)


def operation_family(kind: str) -> str:
    """The group of an op of programs; "other" if it is unknown."""
    entry = OPERATIONS.find(kind)
    return _group(kind, None if entry is None else entry.value.rule)


def _group(kind: str, rule: object) -> str:
    """The family in which its rule is defined, or None."""
    if kind in _ACTIVATIONS:
        return "activation"
    if "pool" in kind.lower():
        return "pooling"
    if kind.startswith("loadConstant"):
        return "constant"
    parts = getattr(rule, "__module__", "").split(".")
    return _GROUPS.get(parts[2] if len(parts) > 2 else "", "other")


# ---- what matters in a layer --------------------------------------------------------------------


def brief(layer: nn.NeuralNetworkLayer, kind: str) -> str:
    """The most important attribute: ``3x3 / 2``, ``MAX 3x3 / 2``, ``ReLU``."""
    params = Params(getattr(layer, kind), layer.name, kind)
    if kind in ("convolution", "pooling"):
        text = _window(params, kind, layer.pooling.type)
    elif kind == "activation":
        text = _activation(layer.activation)
    else:
        text = ", ".join(_plain(getattr(layer, kind)))
    return cut(text, _LONGEST)


def _window(params: Params, kind: str, pooling: int) -> str:
    """Kernel and stride, and unusual options."""
    parts = []
    if kind == "pooling":
        kinds = nn.PoolingLayerParams.PoolingType
        parts.append(kinds.Name(pooling) if pooling in kinds.values() else str(pooling))
        if params.globalPooling:
            return f"{parts[0]}, global"
    size = _TIMES.join(str(each) for each in params.kernelSize)
    stride = [*dict.fromkeys(params.stride)]
    parts.append(size)
    if stride not in ([1], []):
        parts.append(f"/ {_TIMES.join(map(str, stride))}")
    if kind == "convolution":
        dilation = [*dict.fromkeys(params.dilationFactor)]
        if dilation not in ([1], []):
            parts.append(f"dilated {_TIMES.join(map(str, dilation))}")
        if params.nGroups > 1:
            parts.append(f"{params.nGroups} groups")
        if params.isDeconvolution:
            parts.append("transposed")
    return " ".join(parts)


def _activation(params: nn.ActivationParams) -> str:
    name = params.WhichOneof("NonlinearityType") or ""
    numbers = (
        [
            f"{value:g}"
            for _, value in getattr(params, name).ListFields()
            if isinstance(value, float)
        ]
        if name
        else []
    )
    return " ".join([_NAMES.get(name, name), *numbers])


def _plain(message: Message) -> Iterator[str]:
    """Numbers, names and short lists of a message, without arrays."""
    for descriptor, value in message.ListFields():
        if descriptor.message_type is not None or descriptor.name in _DULL:
            continue
        if isinstance(value, bool):
            yield descriptor.name
        elif isinstance(value, int | float | str):
            if descriptor.enum_type is not None:
                yield f"{descriptor.name} {enum_name(descriptor.enum_type, int(value))}"
            else:
                text = f"{value:g}" if isinstance(value, float) else str(value)
                yield f"{descriptor.name} {text}"
        elif isinstance(value, bytes):
            continue
        else:
            yield f"{descriptor.name} {_listed(value)}"


# known from the weights, or useless in a picture
_DULL = frozenset({"hasBias", "inputChannels", "outputChannels", "channels", "inputVectorSize"})


def enum_name(kind: EnumDescriptor | None, number: int) -> str:
    """The name of a value of an enum; the number itself where the format has none."""
    entry = None if kind is None else kind.values_by_number.get(number)
    return str(number) if entry is None else str(entry.name)


def _listed(values: Sequence[Any]) -> str:
    text = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:6])
    return text + "…" * (len(values) > 6)


_TYPE = re.compile(r"(fp|u?int|bool|string)\d*( \(.*\))?$")  # of a value that is not shown
_USUAL = ("1, 1", "1", "False")
# What may matter in an operation, in this order.
_KEYS = (
    *("strides", "kernel_sizes", "pad_type", "groups", "axis", "axes", "perm", "shape", "alpha"),
    *("mode", "transpose_y", "dtype", "epsilon", "begin", "end"),
)


def operation_brief(
    rows: Mapping[str, str], names: frozenset[str], kernel: Sequence[int] = ()
) -> str:
    """The same of an operation.

    Args:
        rows: its parameters as text.
        names: of values, which are not attributes.
        kernel: the shape of its weight, where it is a convolution.
    """
    texts = []
    if "strides" in rows:
        size = [*map(str, kernel[2:])] or _numbers(rows.get("kernel_sizes", ""))
        stride = [*dict.fromkeys(_numbers(rows["strides"]))]
        window = _TIMES.join(size) + f" / {_TIMES.join(stride)}" * (stride not in ([], ["1"]))
        texts = [window.strip(" /")] if size else []
    for key in _KEYS if not texts else ("pad_type", "groups"):
        value = rows.get(key, "").rpartition(": ")[2]
        if value and value not in names and not _TYPE.match(value) and value not in _USUAL:
            texts.append(value if key in ("pad_type", "mode") else f"{key} {value}")
    return cut(", ".join(texts[:3]), _LONGEST)


def _numbers(row: str) -> list[str]:
    """Those of a parameter that is shown as ``int32 (2): 3, 3``."""
    return [part for part in row.rpartition(": ")[2].split(", ") if part.isdigit()]


def cut(text: str, longest: int) -> str:
    """A text, cut if it is too long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
