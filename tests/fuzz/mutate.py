"""Ways to break a file: by its bytes, and by its structure."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

Mutator = Callable[[bytes, random.Random], bytes]

INTEGERS = (0, 1, 2, 3, 5, 255, 256, 65535, -1, -2, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**53,
            2**63 - 1, -(2**63), 2**64 - 1)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 1e-45, float("nan"), float("inf"),
          float("-inf"))  # fmt: skip
TEXTS = ("", "x", "y", "/", "..", "a" * 300, "\x00", "\u4e2d", "1e999", "None", "serving_default",
         "float32", "int8", "relu", "valid", "same", "NaN", "%s", "layer/0")  # fmt: skip


# ---- bytes -------------------------------------------------------------------------------------


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if result:
            result[rng.randrange(len(result))] = rng.choice(
                (0, 1, 127, 128, 255, rng.randrange(256))
            )
    return bytes(result)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """A number in the place of another one."""
    result = bytearray(data)
    form = rng.choice(("<H", "<I", "<Q"))
    size = struct.calcsize(form)
    if len(result) > size:
        place = rng.randrange(len(result) - size)
        value = rng.choice((*INTEGERS, len(data), rng.randrange(2 * len(data))))
        struct.pack_into(form, result, place, value % (1 << 8 * size))
    return bytes(result)


def moved(data: bytes, rng: random.Random) -> bytes:
    """A part cut out, doubled, or put elsewhere."""
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice((1, 4, 8, 64, 1024)))
    part = data[start:end]
    rest = data[:start] + data[end:]
    place = rng.randrange(len(rest) + 1)
    return rng.choice((rest, data[:end] + part + data[end:], rest[:place] + part + rest[place:]))


def truncated(data: bytes, rng: random.Random) -> bytes:
    """The end is missing."""
    return data[: rng.randrange(len(data) + 1)]


BYTES: tuple[Mutator, ...] = (flipped, flipped, overwritten, overwritten, moved, truncated)


# ---- protobuf ----------------------------------------------------------------------------------


def messages(message: Any, limit: int = 3000) -> list[Any]:
    """A message and all inside it."""
    actual = [message]
    for each in actual:
        for field, value in each.ListFields():
            if field.message_type is None or len(actual) > limit:
                continue
            if field.message_type.GetOptions().map_entry:
                inner = field.message_type.fields_by_name["value"].message_type
                keys = sorted(value) if inner is not None else []  # maps have no order
                actual += [value[key] for key in keys]
            else:
                actual += [value] if hasattr(value, "ListFields") else list(value)
    return actual


def value_for(field: Any, rng: random.Random) -> Any:
    """A value of the type of a field, more often an odd one than not."""
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice((*(v.number for v in field.enum_type.values), 99))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = rng.choice(TEXTS)
        if field.type != FieldDescriptor.TYPE_BYTES:
            return text
        return rng.choice((text.encode(), bytes(rng.randrange(64)), rng.randbytes(8)))
    bits = 32 if kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32) else 64
    value = rng.choice((*INTEGERS, rng.randrange(10))) % (1 << bits)
    signed = kind in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def protobuf(cls: Callable[[], Any], times: tuple[int, ...] = (1, 1, 1, 2, 4)) -> Mutator:
    """Fields set, cleared, repeated, exchanged and put inside each other."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        top = cls()
        top.ParseFromString(data)
        for _ in range(rng.choice(times)):
            every = messages(top)
            edit(rng.choice(every), every, rng)
        return bytes(top.SerializeToString(deterministic=True))

    return mutate


def edit(message: Any, every: list[Any], rng: random.Random) -> None:
    """Set, clear or repeat a field of a message; other messages may take its place."""
    filled = [field for field, _ in message.ListFields()]
    # what is there already matters more than what is not
    fields = filled if filled and rng.random() < 0.7 else list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = rng.choice(fields)
    if (
        field.message_type is not None and field.message_type.GetOptions().map_entry
    ) or rng.random() < 0.1:
        message.ClearField(field.name)
    elif hasattr(getattr(message, field.name), "extend"):
        _edit_repeated(getattr(message, field.name), field, every, rng)
    elif field.message_type is not None:
        alike = [m for m in every if m.DESCRIPTOR is field.message_type]
        if alike and rng.random() < 0.6:
            getattr(message, field.name).CopyFrom(copy.deepcopy(rng.choice(alike)))
        else:
            getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, value_for(field, rng))


def _edit_repeated(items: Any, field: Any, every: list[Any], rng: random.Random) -> None:
    way = rng.randrange(4)
    if items and way == 0:
        del items[rng.randrange(len(items))]
    elif items and way == 1:
        items.extend([copy.deepcopy(rng.choice(items))] * rng.choice((1, 2, 9)))
    elif field.message_type is not None:
        alike = [m for m in every if m.DESCRIPTOR is field.message_type]
        if alike:
            items.extend([copy.deepcopy(rng.choice(alike))])
    elif items and way == 2:
        items[rng.randrange(len(items))] = value_for(field, rng)
    else:
        items.append(value_for(field, rng))


# ---- JSON --------------------------------------------------------------------------------------


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder with a key of it."""
    stack = [value]
    while stack:
        holder = stack.pop()
        keys = holder.keys() if isinstance(holder, dict) else range(len(holder))
        for key in list(keys):
            yield holder, key
            if isinstance(holder[key], dict | list):
                stack.append(holder[key])


def json_text(data: bytes, rng: random.Random) -> bytes:
    """Values of a JSON text exchanged, deleted, repeated, and put inside each other."""
    top = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(top))
        if not places:
            break
        holder, key = rng.choice(places)
        other, name = rng.choice(places)
        try:
            way = rng.randrange(5)
            if way == 0:
                del holder[key]
            elif way == 1:
                holder[key] = copy.deepcopy(other[name])
            elif way == 2 and isinstance(holder[key], list):
                holder[key] = holder[key] * rng.choice((0, 2, 3))
            else:
                holder[key] = rng.choice(
                    (None, True, False, [], {}, [[]], rng.choice(INTEGERS), rng.choice(FLOATS),
                     rng.choice(TEXTS), [rng.choice(INTEGERS)] * 2, {"class_name": "Dense"})
                )  # fmt: skip
        except (KeyError, IndexError):
            continue
    return json.dumps(top).encode()


# ---- zip ---------------------------------------------------------------------------------------


def archive(**mutators: tuple[Mutator, ...]) -> Mutator:
    """Members changed by the mutators of their names (`.` is written `__`), renamed, dropped."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as source:
            members = [(name, source.read(name)) for name in source.namelist()]
        index = rng.randrange(len(members))
        name, content = members[index]
        known = mutators.get(name.replace(".", "__"))
        if known and rng.random() < 0.85:
            members[index] = (name, rng.choice(known)(content, rng))
        elif rng.random() < 0.5:
            members[index] = (rng.choice((*TEXTS, "../x", name.upper())) or "x", content)
        else:
            del members[index]
        buffer = io.BytesIO()
        kind = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
        with zipfile.ZipFile(buffer, "w", kind) as target:
            for member, written in members:
                target.writestr(zipfile.ZipInfo(member), written, kind)
        return buffer.getvalue()

    return mutate


# ---- weights of ML Programs ----------------------------------------------------------------------


def weight_file(data: bytes, rng: random.Random) -> bytes:
    """A number in the header or in the metadata of a constant becomes another one."""
    result = bytearray(data)
    if len(result) < 128:
        return flipped(data, rng)
    block = rng.randrange(len(result) // 64) * 64
    place, form = rng.choice(((0, "<I"), (4, "<I"), (8, "<Q"), (16, "<Q"), (24, "<Q")))
    value = rng.choice((*INTEGERS, len(data), rng.randrange(2 * len(data)), 64, 128, block,
                        rng.randrange(20)))  # fmt: skip
    struct.pack_into(form, result, block + place, value % (1 << 8 * struct.calcsize(form)))
    return bytes(result)


# ---- HDF5 --------------------------------------------------------------------------------------


def hdf5(data: bytes, rng: random.Random) -> bytes:
    """Groups, arrays and attributes deleted, exchanged, linked and rewritten."""
    import h5py
    import numpy as np

    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        for _ in range(rng.choice((1, 1, 2, 3))):
            name, other = rng.choice(names), rng.choice(names)
            if name not in file or other not in file:
                continue
            way, item = rng.randrange(7), file[name]
            if way == 0:
                del file[name]
            elif way == 1:
                del file[name]
                file[name] = rng.choice(
                    (h5py.SoftLink(f"/{other}"), h5py.ExternalLink("/etc/hostname", "/x"))
                )
            elif way == 2 and other in file and not other.startswith(name):
                del file[name]
                file[name] = file[other]
            elif way == 3 and item.attrs:
                key = rng.choice(list(item.attrs))
                item.attrs[key] = rng.choice((rng.choice(TEXTS).replace("\x00", ""), [b"a", b"b"],
                                              rng.randrange(9), np.zeros(3)))  # fmt: skip
            elif way == 4:
                del file[name]
                file.create_group(name)
            elif isinstance(item, h5py.Dataset):
                shape = tuple(rng.choice((0, 1, 2, 3, 7, 1 << 20)) for _ in item.shape)
                kind = rng.choice(("f4", "f8", "f2", "i1", ">f4", "u8", "S3"))
                del file[name]
                chunks = tuple(min(n or 1, 64) for n in shape) or None
                file.create_dataset(name, shape, kind, chunks=chunks,
                                    compression=rng.choice((None, "gzip")) if shape else None,
                                    maxshape=(None,) * len(shape) if shape else None)  # fmt: skip
    return buffer.getvalue()


def config_of(*, attribute: str) -> Mutator:
    """The JSON text in an attribute of an HDF5 file."""

    def mutate(data: bytes, rng: random.Random) -> bytes:
        import h5py

        buffer = io.BytesIO(data)
        with h5py.File(buffer, "r+") as file:
            text = file.attrs[attribute]
            result = json_text(text.encode() if isinstance(text, str) else text, rng)
            file.attrs[attribute] = result.decode()
        return buffer.getvalue()

    return mutate
