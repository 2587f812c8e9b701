"""TensorFlowOpLayer: TensorFlow ops in functional models of Keras of TensorFlow 1.15 to 2.3.

Each is converted by its converter of the TensorFlow frontend.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mlferry.converters.graph import Attributes, Node, Value
from mlferry.converters.keras.ops.registry import op
from mlferry.converters.lowering import Lowering
from mlferry.converters.tensorflow.ops import OPS as TENSORFLOW_OPS
from mlferry.converters.values import CHANNELS_FIRST, FLAT, SOURCE, Blob, Constant, Results
from mlferry.errors import ConversionError

_TYPES = {"type", "func", "tensor", "placeholder"}


def key_of(config: Mapping[str, Any]) -> str:
    """What a TensorFlowOpLayer is called among the converters: by its op, where that has none."""
    told = config.get("node_def")
    name = told.get("op") if isinstance(told, Mapping) else None
    known = name is None or name in TENSORFLOW_OPS
    return "TensorFlowOpLayer" if known else f"tf.raw_ops.{name}"


@op("TensorFlowOpLayer", layouts=(SOURCE, CHANNELS_FIRST, FLAT))
def tensorflow_op(context: Lowering, node: Node, *inputs: Blob) -> Results:
    told = _message(node.attrs["node_def"])
    name = str(told.get("op", ""))
    convert = TENSORFLOW_OPS.find(name)
    assert convert is not None  # `key_of` has another name for ops that are not known
    attributes = told.get("attr", {})
    dtype = _dtype(attributes)
    operands: list[Any] = list(inputs)
    values = list(node.inputs)
    constants = node.attrs.get("constants") or {}
    for place, constant in sorted((int(key), value) for key, value in constants.items()):
        if not 0 <= place <= len(operands):
            raise ConversionError(f"the constant of place {place} has no place in {name}")
        array = np.asarray(constant)
        if array.dtype.kind in "iu":
            array = array.astype(np.int32)
        elif array.dtype.kind == "f":
            array = array.astype(np.float32)
        operands.insert(place, Constant("", array))
        values.insert(place, Value("", tuple(array.shape), str(array.dtype)))
    inner = Node(
        op=name,
        name=node.name,
        inputs=tuple(values),
        outputs=tuple(Value(each.name, each.shape, dtype) for each in node.outputs),
        attrs=Attributes(
            {
                key: _value(value)
                for key, value in attributes.items()
                if not key.startswith("_") and not _TYPES & set(value)
            }
        ),
    )
    node.parts = {**node.parts, name: inner}  # its options count as the layer's
    return convert.value(context, inner, *operands)


def _message(told: Mapping[str, Any]) -> Mapping[str, Any]:
    """A NodeDef as JSON."""
    if not isinstance(told, Mapping) or "op" not in told:
        raise ConversionError(f"node_def is not a NodeDef as JSON: {told!r:.80}")
    return told


def _dtype(attributes: Mapping[str, Any]) -> str:
    """The type of what most ops make: that of their `T`, or what a cast makes."""
    result = attributes.get("DstT") or attributes.get("T") or {}
    name = str(result.get("type", "DT_FLOAT")).removeprefix("DT_").lower()
    return {"float": "float32", "double": "float64", "half": "float16"}.get(name, name)


def _value(told: Mapping[str, Any]) -> Any:
    """An AttrValue of JSON, in which bytes are base64 and 64-bit integers text."""
    if "list" in told:
        kinds = [kind for kind in told["list"] if kind in _SCALARS]
        return [_SCALARS[kind](each) for kind in kinds for each in told["list"][kind]]
    if "shape" in told:
        return tuple(int(dim.get("size", 0)) for dim in told["shape"].get("dim", ()))
    for kind, read in _SCALARS.items():
        if kind in told:
            return read(told[kind])
    raise ConversionError(f"an attribute of node_def has none of the known values: {told!r:.80}")


def _text(told: str) -> str:
    try:
        return base64.b64decode(told, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return told


_SCALARS: dict[str, Callable[[Any], Any]] = {"i": int, "f": float, "b": bool, "s": _text}
