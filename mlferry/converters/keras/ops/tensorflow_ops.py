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
    """The key of a TensorFlowOpLayer among the converters, from its op if there is no other."""
    definition = config.get("node_def")
    name = definition.get("op") if isinstance(definition, Mapping) else None
    known = name is None or name in TENSORFLOW_OPS
    return "TensorFlowOpLayer" if known else f"tf.raw_ops.{name}"


@op("TensorFlowOpLayer", layouts=(SOURCE, CHANNELS_FIRST, FLAT))
def tensorflow_op(context: Lowering, node: Node, *inputs: Blob) -> Results:
    definition = _message(node.attrs["node_def"])
    name = str(definition.get("op", ""))
    convert = TENSORFLOW_OPS.find(name)
    assert convert is not None  # `key_of` gives unknown ops another name
    attributes = definition.get("attr", {})
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
    node.parts = {**node.parts, name: inner}  # its options count as those of the layer
    return convert.value(context, inner, *operands)


def _message(definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """A NodeDef as JSON."""
    if not isinstance(definition, Mapping) or "op" not in definition:
        raise ConversionError(f"node_def is not a NodeDef as JSON: {definition!r:.80}")
    return definition


def _dtype(attributes: Mapping[str, Any]) -> str:
    """The result type of most ops: that of their `T`, or the target of a cast."""
    result = attributes.get("DstT") or attributes.get("T") or {}
    name = str(result.get("type", "DT_FLOAT")).removeprefix("DT_").lower()
    return {"float": "float32", "double": "float64", "half": "float16"}.get(name, name)


def _value(attribute: Mapping[str, Any]) -> Any:
    """An AttrValue in JSON, where bytes are base64 and 64-bit integers are strings."""
    if "list" in attribute:
        kinds = [kind for kind in attribute["list"] if kind in _SCALARS]
        return [_SCALARS[kind](each) for kind in kinds for each in attribute["list"][kind]]
    if "shape" in attribute:
        return tuple(int(dim.get("size", 0)) for dim in attribute["shape"].get("dim", ()))
    for kind, parse in _SCALARS.items():
        if kind in attribute:
            return parse(attribute[kind])
    raise ConversionError(
        f"an attribute of node_def has none of the known values: {attribute!r:.80}"
    )


def _text(encoded: str) -> str:
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return encoded


_SCALARS: dict[str, Callable[[Any], Any]] = {"i": int, "f": float, "b": bool, "s": _text}
