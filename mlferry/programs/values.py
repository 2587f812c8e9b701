"""Values in a program: constants, immediate or in `weight.bin`."""

from __future__ import annotations

import atexit
import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry import limits
from mlferry.errors import ModelFileError, SpecError
from mlferry.numerics.bits import unpacked
from mlferry.numerics.shapes import Array
from mlferry.programs.types import (
    DTYPES,
    DictionaryType,
    ListType,
    TensorType,
    TupleType,
    ValueType,
    type_of,
)
from mlferry.spec import networks
from mlferry.spec.blobs import BlobFile, BlobSource, BlobStore
from mlferry.spec.package import MODEL_PATH, WEIGHTS, safe_path
from mlferry.spec.proto import mil_pb2 as mil, model_pb2

# The field of an immediate tensor for each element type; all others are bytes.
IMMEDIATE_FIELDS = {
    "bool": "bools",
    "string": "strings",
    "int16": "ints",
    "uint16": "ints",
    "int32": "ints",
    "int64": "longInts",
    "fp32": "floats",
    "fp64": "doubles",
}


class Weights:
    """The files of constants of a model.

    Args:
        message: the file of the model's message, beside which they are; None for a model in memory,
            which has no such files.
        elsewhere: files in other folders until the model is saved, by their name in messages: those
            of a pipeline of several packages.
        memory: files that are not yet written, by their name in messages.
    """

    def __init__(
        self,
        message: Path | None = None,
        elsewhere: Mapping[str, Path] | None = None,
        memory: Mapping[str, BlobStore] | None = None,
    ) -> None:
        self.message = message
        self.elsewhere = dict(elsewhere or {})
        self.memory = dict(memory or {})
        self.folder = None if message is None else message.parent
        self._files: dict[str, BlobFile] = {}

    @classmethod
    def of_folder(cls, folder: Path) -> Weights:
        """The files of a folder, named ``@model_path/weights/NAME`` in messages.

        Raises:
            ModelFileError: there is no such folder.
        """
        if not folder.is_dir():
            raise ModelFileError(f"{folder} is no folder; the weights of an ML Program lie in one")
        return cls(None, {f"{MODEL_PATH}/{WEIGHTS}/{f.name}": f for f in sorted(folder.iterdir())})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the paths: the files are opened again."""
        return Weights, (self.message, self.elsewhere, self.memory)

    @cached_property
    def written(self) -> Path | None:
        """A folder with the files that are in memory; it is deleted when Python exits."""
        stores = {name: store for name, store in self.memory.items() if not store.is_empty}
        if not stores:
            return None
        folder = Path(tempfile.mkdtemp(prefix="mlferry-weights-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        for name, store in stores.items():
            with (folder / name.rpartition("/")[2]).open("wb") as stream:
                store.write(stream)
        return folder

    @property
    def has_files(self) -> bool:
        """Whether constants can be in files."""
        return bool(self.message is not None or self.elsewhere or self.memory)

    @property
    def size(self) -> int:
        """The bytes of all files."""
        folder = None if self.folder is None else self.folder / WEIGHTS
        there = [*folder.iterdir()] if folder is not None and folder.is_dir() else []
        files = [path for path in (*there, *self.elsewhere.values()) if path.is_file()]
        return sum(path.stat().st_size for path in files) + sum(map(len, self.memory.values()))

    def file(self, name: str) -> BlobSource:
        """A file by its name in messages.

        Raises:
            ModelFileError: there is no such file, or its name leads out of the model's folder.
        """
        if name in self.memory:
            return self.memory[name]
        if name not in self._files:
            self._files[name] = BlobFile(self.path(name))
        return self._files[name]

    def check(self) -> None:
        """Raise a `ModelFileError` if a file was changed since it was opened."""
        for file in self._files.values():
            file.check()

    def release(self) -> None:
        """Let the system reclaim the memory of data read from the files."""
        for file in self._files.values():
            file.release()

    def path(self, name: str) -> Path:
        """The path of a file by its name in messages.

        Raises:
            ModelFileError: its name leads out of the model's folder, or there is no folder.
        """
        if name in self.elsewhere:
            file = self.elsewhere[name]
            return safe_path(file.parent, file.name).resolve()
        inside = name.removeprefix(f"{MODEL_PATH}/")
        parts = inside.split("/")
        if inside == name or {"", ".", ".."} & {*parts} or "\\" in inside or "\0" in inside:
            raise ModelFileError(f"the weights lie in {name!r}, which is no file beside the model")
        if self.folder is None:
            raise ModelFileError(
                f"the weights lie in {name!r}, and the model comes from no folder: give its path, "
                "'model.mlpackage', or the folder of the weights, weights_dir=model.weights_dir"
            )
        return safe_path(self.folder, *parts).resolve()


def value_of(message: mil.Value, weights: Weights) -> Any:
    """A value in NumPy and Python: arrays, lists, tuples, dicts; strings as arrays of strings.

    Raises:
        SpecError: it contradicts its type.
        ModelFileError: its file, or its place in the file, does not exist.
    """
    kind = type_of(message.type)
    where = message.WhichOneof("value")
    if where == "blobFileValue":
        return _from_file(kind, message.blobFileValue, weights)
    if where != "immediateValue":
        raise SpecError(f"a constant of type {kind} has no value")
    return _immediate(kind, message.immediateValue, weights)


def check_value(message: mil.Value, weights: Weights) -> None:
    """Raise as `value_of` does, without unpacking the content of a file."""
    kind = type_of(message.type)
    if message.WhichOneof("value") != "blobFileValue":
        value_of(message, weights)
        return
    if not isinstance(kind, TensorType):
        raise SpecError(f"a constant of type {kind} lies in a file; only fixed tensors can")
    _checked_blob(kind, message.blobFileValue, weights)


def _immediate(kind: ValueType, message: mil.Value.ImmediateValue, weights: Weights) -> Any:
    form = message.WhichOneof("value")
    if isinstance(kind, TensorType) and form == "tensor":
        return _tensor(kind, message.tensor)
    if isinstance(kind, ListType) and form == "list":
        values = message.list.values
        if kind.length not in (len(values), None):
            raise SpecError(f"a constant of type {kind} has {len(values)} values")
        if any(type_of(each.type) != kind.element for each in values):
            raise SpecError(f"a constant of type {kind} has values of another type")
        return [value_of(each, weights) for each in values]
    if isinstance(kind, TupleType) and form == "tuple":
        return tuple(value_of(each, weights) for each in message.tuple.values)
    if isinstance(kind, DictionaryType) and form == "dictionary":
        pairs = message.dictionary.values
        return {_key(pair.key, weights): value_of(pair.value, weights) for pair in pairs}
    raise SpecError(f"a constant of type {kind} has a value of another kind: {form}")


def _key(message: mil.Value, weights: Weights) -> Any:
    key = value_of(message, weights)
    if not isinstance(key, np.ndarray) or key.ndim:
        raise SpecError("a key of a dictionary is a scalar")
    return key.item()


def _tensor(kind: TensorType, message: mil.TensorValue) -> Array:
    if kind.shape is None or None in kind.shape:
        raise SpecError(f"a constant has the open type {kind}")
    field = IMMEDIATE_FIELDS.get(kind.dtype, "bytes")
    stored = message.WhichOneof("value")
    if stored != field:
        raise SpecError(f"a constant of type {kind} has its values in {stored}; {field} is needed")
    values = getattr(message, field).values
    dtype = DTYPES[kind.dtype]
    if field == "bytes":
        return _from_bytes(kind, np.frombuffer(values, np.uint8))
    array = np.array(values, dtype=object if kind.dtype == "string" else None)
    return _shaped(kind, array.astype(dtype.array))


def _from_bytes(kind: TensorType, data: NDArray[np.uint8]) -> Array:
    dtype, count = DTYPES[kind.dtype], _count(kind)
    expected = -(-count * dtype.bits // 8)
    if len(data) != expected:
        raise SpecError(f"a constant of type {kind} has {len(data)} bytes; {expected} are needed")
    if dtype.bits < 8:
        signed = kind.dtype.startswith("int")
        return _shaped(kind, unpacked(data, dtype.bits, count, signed=signed))
    return _shaped(kind, data.view(dtype.array.newbyteorder("<")))


def _count(kind: TensorType) -> int:
    shape = kind.shape or ()
    count = math.prod(extent or 0 for extent in shape)
    if 4 * count > limits.current().weights:
        limits.check("weights", 4 * count, f"a constant of type {kind} takes bytes:")
    return count


def _shaped(kind: TensorType, array: Array) -> Array:
    count = _count(kind)
    if array.size != count:
        raise SpecError(f"a constant of type {kind} has {array.size} values; {count} are needed")
    return array.reshape([extent or 0 for extent in kind.shape or ()])


def _from_file(kind: ValueType, place: mil.Value.BlobFileValue, weights: Weights) -> Array:
    if not isinstance(kind, TensorType):
        raise SpecError(f"a constant of type {kind} lies in a file; only fixed tensors can")
    return _from_bytes(kind, _checked_blob(kind, place, weights))


def _checked_blob(
    kind: TensorType, place: mil.Value.BlobFileValue, weights: Weights
) -> NDArray[np.uint8]:
    if kind.shape is None or None in kind.shape:
        raise SpecError(f"a constant of type {kind} lies in a file; only fixed tensors can")
    blob = weights.file(place.fileName).read(place.offset)
    if blob.dtype != kind.dtype:
        raise SpecError(
            f"a constant of type {kind} lies at {place.offset} of {place.fileName}, where there "
            f"are values of {blob.dtype}"
        )
    expected = -(-_count(kind) * DTYPES[kind.dtype].bits // 8)
    if len(blob.data) != expected:
        raise SpecError(
            f"a constant of type {kind} needs {expected} bytes; at {place.offset} of "
            f"{place.fileName} there are {len(blob.data)}"
        )
    return blob.data


def has_blobs(spec: model_pb2.Model) -> bool:
    """Whether a constant of a model, or of one inside it, is in a file."""
    return any(True for _ in _blobs_in(spec))


def joined_weights(
    models: Sequence[tuple[model_pb2.Model, Weights]],
) -> tuple[list[model_pb2.Model], Weights]:
    """Prepare models to be joined, with different names for their files of weights.

    Returns:
        copies of the messages, and the files of all of them.

    Raises:
        ModelFileError: a model has weights in a file, and comes from no folder.
    """
    copies: list[model_pb2.Model] = []
    elsewhere: dict[str, Path] = {}
    memory: dict[str, BlobStore] = {}
    for index, (spec, weights) in enumerate(models):
        copy = model_pb2.Model()
        copy.CopyFrom(spec)
        names: dict[str, str] = {}
        for blob in _blobs_in(copy):
            old = blob.fileName
            if old not in names:
                content = weights.memory.get(old)
                file = old.rpartition("/")[2] if content is not None else weights.path(old).name
                names[old] = f"{MODEL_PATH}/{WEIGHTS}/{index}-{len(names)}-{file}"
                if content is not None:
                    memory[names[old]] = content
                else:
                    elsewhere[names[old]] = weights.path(old)
            blob.fileName = names[old]
        copies.append(copy)
    return copies, Weights(None, elsewhere, memory)


def _blobs_in(spec: model_pb2.Model) -> Iterator[mil.Value.BlobFileValue]:
    """Every place in a file that a model, or one inside it, names."""
    for model in networks.models_in(spec):
        if model.WhichOneof("Type") == "mlProgram":
            for function in model.mlProgram.functions.values():
                for block in function.block_specializations.values():
                    for value in _values_in(block):
                        if value.WhichOneof("value") == "blobFileValue":
                            yield value.blobFileValue


def _values_in(block: mil.Block) -> Iterator[mil.Value]:
    for operation in block.operations:
        yield from operation.attributes.values()
        for argument in operation.inputs.values():
            yield from (each.value for each in argument.arguments if each.HasField("value"))
        for inner in operation.blocks:
            yield from _values_in(inner)
