"""Programs, files of weights and packages that are written here, field by field."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlferry.spec.proto import features_pb2 as ft, mil_pb2 as mil, model_pb2

FILE = "@model_path/weights/weight.bin"
DTYPES = {
    "fp16": mil.FLOAT16, "fp32": mil.FLOAT32, "int32": mil.INT32, "bool": mil.BOOL,
    "string": mil.STRING, "int8": mil.INT8, "uint8": mil.UINT8, "int16": mil.INT16,
    "uint16": mil.UINT16, "uint32": mil.UINT32, "int4": mil.INT4, "uint1": mil.UINT1,
    "uint2": mil.UINT2, "uint3": mil.UINT3, "uint4": mil.UINT4, "uint6": mil.UINT6,
}  # fmt: skip
FIELDS = {"fp32": "floats", "int32": "ints", "bool": "bools", "string": "strings"}


def tensor(dtype: str, shape: Sequence[int | None] = ()) -> mil.ValueType:
    """A type; None is an extent that varies."""
    result = mil.ValueType()
    result.tensorType.dataType = DTYPES[dtype]  # type: ignore[assignment]
    result.tensorType.rank = len(shape)
    for extent in shape:
        dimension = result.tensorType.dimensions.add()
        if extent is None:
            dimension.unknown.SetInParent()
        else:
            dimension.constant.size = extent
    return result


def literal(dtype: str, value: Any) -> mil.Value:
    """A value that stands in the message."""
    array = np.asarray(value)
    result = mil.Value(type=tensor(dtype, array.shape))
    field = FIELDS[dtype]
    getattr(result.immediateValue.tensor, field).values.extend(array.ravel().tolist())
    getattr(result.immediateValue.tensor, field).SetInParent()
    return result


def stored(dtype: str, shape: Sequence[int], offset: int, file: str = FILE) -> mil.Value:
    """A value that lies in a file."""
    result = mil.Value(type=tensor(dtype, shape))
    result.blobFileValue.fileName, result.blobFileValue.offset = file, offset
    return result


def operation(
    kind: str,
    outputs: Mapping[str, mil.ValueType],
    inputs: Mapping[str, str | mil.Value] | None = None,
    **attributes: mil.Value,
) -> mil.Operation:
    """An operation; its inputs are names or values."""
    result = mil.Operation(type=kind)
    for name, sample in (inputs or {}).items():
        argument = result.inputs[name].arguments.add()
        if isinstance(sample, str):
            argument.name = sample
        else:
            argument.value.CopyFrom(sample)
    for name, type_ in outputs.items():
        result.outputs.add(name=name, type=type_)
    for name, attribute in attributes.items():
        result.attributes[name].CopyFrom(attribute)
    if outputs:
        result.attributes["name"].CopyFrom(literal("string", next(iter(outputs))))
    return result


def constant(name: str, value: mil.Value) -> mil.Operation:
    return operation("const", {name: value.type}, None, val=value)


def described(name: str, type_: mil.ValueType) -> ft.FeatureType:
    """What the description says of a value."""
    result = ft.FeatureType()
    dtype = {mil.FLOAT32: ft.ArrayFeatureType.FLOAT32, mil.FLOAT16: ft.ArrayFeatureType.FLOAT16,
             mil.INT32: ft.ArrayFeatureType.INT32}[type_.tensorType.dataType]  # fmt: skip
    result.multiArrayType.dataType = dtype
    shape = [each.constant.size for each in type_.tensorType.dimensions]
    result.multiArrayType.shape.extend(shape)
    return result


def model(
    inputs: Mapping[str, mil.ValueType],
    operations: Sequence[mil.Operation],
    outputs: Sequence[str],
    opset: int = 6,
) -> model_pb2.Model:
    """A model of one function, whose ends are described as they are."""
    spec = model_pb2.Model(specificationVersion=opset + 1)
    spec.mlProgram.version = 1
    function = spec.mlProgram.functions["main"]
    function.opset = f"CoreML{opset}"
    block = function.block_specializations[function.opset]
    for name, type_ in inputs.items():
        function.inputs.add(name=name, type=type_)
        spec.description.input.add(name=name).type.CopyFrom(described(name, type_))
    block.operations.extend(operations)
    block.outputs.extend(outputs)
    types = {value.name: value.type for each in operations for value in each.outputs}
    for name in outputs:
        spec.description.output.add(name=name).type.CopyFrom(described(name, types[name]))
    return spec


def block_of(spec: model_pb2.Model, function: str = "main") -> mil.Block:
    """The block of a function."""
    actual = spec.mlProgram.functions[function]
    return actual.block_specializations[actual.opset]


# ---- files of weights ----------------------------------------------------------------------------


def weight_file(*blobs: tuple[int, bytes]) -> tuple[bytes, list[int]]:
    """A file, and the offset of each blob of it.

    Args:
        blobs: the number of a type, and the bytes, of each.
    """
    result = bytearray(struct.pack("<II56x", len(blobs), 2))
    offsets = []
    for code, data in blobs:
        result += bytes(-len(result) % 64)
        offsets.append(len(result))
        result += struct.pack("<IIQQQ32x", 0xDEADBEEF, code, len(data), len(result) + 64, 0)
        result += data
    return bytes(result), offsets


def adder(value: float = 1.0) -> tuple[model_pb2.Model, bytes]:
    """A model that adds twelve numbers of a file, value, value + 1, ..., to its input."""
    data = (np.arange(12, dtype="<f4") + np.float32(value)).tobytes()
    file, (offset,) = weight_file((2, data))
    shape = tensor("fp32", (3, 4))
    spec = model(
        {"x": shape},
        [constant("w", stored("fp32", (3, 4), offset)),
         operation("add", {"y": shape}, {"x": "x", "y": "w"})],
        ["y"],
    )  # fmt: skip
    return spec, file


# ---- packages ------------------------------------------------------------------------------------

MODEL, WEIGHTS = "com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"


def manifest() -> dict[str, Any]:
    """A sound manifest, with an entry and a key that nobody here knows."""
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            "aaaa": {"author": "com.apple.CoreML", "description": "the model",
                     "name": "model.mlmodel", "path": MODEL},
            "bbbb": {"author": "com.apple.CoreML", "description": "the weights",
                     "name": "weights", "path": WEIGHTS},
            "cccc": {"author": "com.apple.CoreML", "description": "texts",
                     "name": "Metadata.json", "path": "com.apple.CoreML/Metadata.json"},
        },
        "rootModelIdentifier": "aaaa",
        "future": {"kept": [1, 2]},
    }  # fmt: skip


def write(
    path: Path,
    spec: model_pb2.Model,
    weights: bytes | None = None,
    manifest_text: str | bytes | None = None,
) -> Path:
    """A package."""
    folder = path / "Data" / "com.apple.CoreML"
    folder.mkdir(parents=True)
    (folder / "model.mlmodel").write_bytes(spec.SerializeToString())
    (folder / "Metadata.json").write_text('{"a": 1}', encoding="utf-8")
    if weights is not None:
        (folder / "weights").mkdir()
        (folder / "weights" / "weight.bin").write_bytes(weights)
    text = json.dumps(manifest()) if manifest_text is None else manifest_text
    data = text if isinstance(text, bytes) else text.encode()
    (path / "Manifest.json").write_bytes(data)
    return path
