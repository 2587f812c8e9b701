"""Limits on what a file may ask for, which keep hostile files from taking a machine down.

Every limit is checked before memory is taken. Each has room for the largest models in use. If you
trust a file that needs more, raise the limit for a block of code:

    with mlferry.limits.changed(weights=32 << 30, seconds=600):
        model = mlferry.convert("huge.h5")

Each thread has its own limits, which start as the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from pathlib import Path

from mlferry.errors import LimitError, ModelFileError

_MIB, _GIB = 1 << 20, 1 << 30
MODEL_BYTES = 2**31 - 1
"""What protobuf, and with it a `.mlmodel`, an `.onnx` file or a GraphDef, can hold; fixed."""


@dataclass(frozen=True)
class Limits:
    """Limits for reading, converting and running.

    Attributes:
        weights: bytes of all arrays of a source in memory.
        expansion: how many times its own size a compressed file may grow to.
        always: bytes that a compressed file may grow to, however small it is.
        config: bytes of the JSON, or of the texts, of a source.
        objects: groups, arrays and attributes of an HDF5 file.
        depth: levels of models, networks, groups or functions inside each other.
        seconds: processor time for finding one's way in an HDF5 file, with a second more for
            every 10 MB of it; for preparing an ONNX graph, with one for every 100 kB of it; ten
            times as much for a model of TensorFlow, with one for every 100 kB of its graph and
            every 20 MB of its files. The process may last ten times as long.
        reader_memory: bytes that the processes that do so may hold in memory beyond what their
            libraries take, and eight times the size of an ONNX or TensorFlow model more (on
            Linux; address space that is only reserved does not count).
        isolated: whether HDF5, ONNX and TensorFlow files are read by processes of their own,
            which a damaged file may crash without harm.
        nodes: nodes of a source with its functions inlined.
        unrolled: nodes that come from branches and from rounds of loops; columns of categories,
            each of which becomes models of its own.
        constants: bytes of all arrays that a conversion computes from constants, beyond four
            times those of the source.
        blob: bytes of one blob of a prediction.
        rounds: rounds of all loops in one prediction, and epochs that an updatable model asks for.
    """

    weights: int = 8 * _GIB
    expansion: float = 32.0
    always: int = 256 * _MIB
    config: int = 32 * _MIB
    objects: int = 200_000
    depth: int = 50
    seconds: float = 3.0
    reader_memory: int = 1 * _GIB
    isolated: bool = True
    nodes: int = 200_000
    unrolled: int = 20_000
    constants: int = 2 * _GIB
    blob: int = 4 * _GIB
    rounds: int = 100_000


_CURRENT: ContextVar[Limits] = ContextVar("limits", default=Limits())  # noqa: B039 (frozen)


def current() -> Limits:
    """The limits of this thread, now."""
    return _CURRENT.get()


@contextmanager
def changed(**limits: float) -> Iterator[Limits]:
    """Change limits for a block of code.

    Args:
        limits: new values by the names of the attributes of `Limits`.

    Raises:
        TypeError: there is no such limit.
    """
    names = [field.name for field in fields(Limits)]
    unknown = set(limits) - set(names)
    if unknown:
        raise TypeError(f"no limit {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    # `replace` refuses unknown names; the types are the caller's responsibility
    token = _CURRENT.set(replace(_CURRENT.get(), **limits))  # type: ignore[arg-type]
    try:
        yield _CURRENT.get()
    finally:
        _CURRENT.reset(token)


def check(name: str, value: float, what: str) -> None:
    """Raise an error if a value is over a limit.

    Args:
        name: an attribute of `Limits`.
        value: the value that would be needed.
        what: the beginning of the message, e.g. ``"m.h5: its arrays take"``.

    Raises:
        LimitError: the value is over the limit; the message says what to type to raise it.
    """
    limit = getattr(current(), name)
    if value > limit:
        raise over(name, f"{what} {value:,}; the limit is {limit:,}", _more(value))


def check_blob(shape: Iterable[int | None]) -> None:
    """Refuse a blob of float32 that takes too much memory; unknown extents count as 1.

    Raises:
        LimitError: it is larger than `blob`.
    """
    extents = [1 if extent is None else extent for extent in shape]
    size = 4 * math.prod(extents)
    if size > current().blob:
        check("blob", size, f"a blob of shape {tuple(extents)} takes bytes:")


def check_model(size: int) -> None:
    """Raise an error for a model whose message, with the weights in it, no file can hold.

    Raises:
        LimitError: the model has, or its weights alone will have, too many bytes.
    """
    if size > MODEL_BYTES:
        raise LimitError(
            f"the model has at least {size:,} bytes; the format allows {MODEL_BYTES:,} for a "
            "neural network, whose weights lie in one message. The weights of an ML Program lie "
            'in a file beside it: mlferry.convert(model, convert_to="mlprogram"), saved as an '
            ".mlpackage (in a shell: mlferry convert MODEL model.mlpackage). For a network, "
            "quantize its weights before converting (quantized weights stay so)",
            "MODEL_BYTES",
        )


def check_plain(path: Path) -> None:
    """Raise an error for a pipe or a device, which may have no end.

    Raises:
        ModelFileError: the path is neither a file nor a folder.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ModelFileError(f"cannot read {path}: it is not a plain file")


def check_message(path: Path) -> int:
    """The number of bytes of a file that is one message of protobuf.

    Raises:
        ModelFileError: it cannot be read, or is not a plain file.
        LimitError: it is larger than such a message can be.
    """
    try:
        check_plain(path)
        size = path.stat().st_size
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error
    if size > MODEL_BYTES:
        raise LimitError(
            f"{path} has {size:,} bytes; a message of protobuf has at most {MODEL_BYTES:,}",
            "MODEL_BYTES",
        )
    return size


def read_message(path: Path) -> bytes:
    """The content of a file that is one message of protobuf.

    Raises:
        ModelFileError: it cannot be read, or is not a plain file.
        LimitError: it is larger than such a message can be.
    """
    check_message(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}") from error


def check_growth(size: int, grown: int, what: str) -> None:
    """Raise an error for a compressed file that grows out of all proportion.

    Raises:
        LimitError: it would take more than `always` bytes and `expansion` times its size.
    """
    now = current()
    if grown > max(now.always, size * now.expansion):
        times = grown // max(size, 1)
        raise over(
            "always",
            f"{what} {grown:,} bytes, {times:,} times the size of the file; the limit is "
            f"{now.expansion:g} times, or {now.always:,} bytes",
            _more(grown),
        )


def over(name: str, message: str, enough: int) -> LimitError:
    """The error for exceeding a limit that can be raised.

    Args:
        name: an attribute of `Limits`.
        message: what asks for how much.
        enough: a value of the limit that would do.
    """
    unit = next((bits for bits in (30, 20) if enough >= 2 << bits and not enough % (1 << bits)), 0)
    text = f"{enough >> unit} << {unit}" if unit else f"{enough}"
    return LimitError(
        f"{message}. If you trust the file: with mlferry.limits.changed({name}={text}): ...",
        name,
        enough,
    )


def _more(number: float) -> int:
    """The next power of two, as a count that went over a limit may go on."""
    return 1 << int(number).bit_length()
