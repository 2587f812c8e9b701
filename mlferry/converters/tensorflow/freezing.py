"""Files of TensorFlow, loaded and frozen in a process of its own.

TensorFlow dies on some hostile models, and loading a SavedModel runs functions of the file. What
comes back to this process is a graph of constants without functions to inline, which TensorFlow
only imports here.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlferry.converters.tensorflow.loading import Frozen

_BYTES_A_SECOND = 100_000  # of a message: what adds to the processor time
_WEIGHTS_A_SECOND = 20_000_000  # bytes of the other files: likewise
_TIMES = 10  # the seconds of other readers: TensorFlow is slow to start
_COPIES = 8  # of a model, that TensorFlow makes


def frozen(path: Path, message: Path, name: str, arguments: dict[str, Any]) -> Frozen:
    """Load a file in another process.

    Args:
        path: the file, or the folder of a SavedModel.
        message: the file of its graph.
        name: what messages call it.
        arguments: of `mlferry.converters.tensorflow.loading.frozen`.

    Raises:
        ModelFileError: TensorFlow cannot read it, or crashed.
        ConversionError: as `mlferry.converters.tensorflow.read.read`.
        LimitError: it took too much time or memory.
    """
    from mlferry import limits
    from mlferry.converters.isolated import Refused
    from mlferry.converters.tensorflow.loading import Frozen
    from mlferry.errors import ModelFileError

    size = message.stat().st_size
    whole = sum(p.stat().st_size for p in path.rglob("*")) if path.is_dir() else size
    options = {
        "path": str(path.resolve()),
        "name": name,
        "limits": asdict(limits.current()),
        "arguments": base64.b64encode(pickle.dumps(arguments)).decode(),
    }
    seconds = _TIMES * limits.current().seconds + size / _BYTES_A_SECOND + whole / _WEIGHTS_A_SECOND
    try:
        answer, graph = _worker().ask(name, "freeze", options, [], seconds, whole * _COPIES)
    except Refused as error:
        raise ModelFileError(f"{name} cannot be frozen by TensorFlow: {error}") from error
    found = json.loads(answer)
    if "error" in found:
        raise _error(**found["error"])
    inputs = [(tensor, shape) for tensor, shape in found["inputs"]]
    given, result = found["names"]
    return Frozen(graph, inputs, found["outputs"], (given, result))


def _error(kind: str, message: str, limit: str, enough: int | None) -> Exception:
    """The error of the other process."""
    from mlferry.errors import ConversionError, LimitError, ModelFileError

    if kind == "LimitError":
        return LimitError(message, limit, enough)
    return (ModelFileError if kind == "ModelFileError" else ConversionError)(message)


def _worker() -> Any:
    from mlferry.converters.isolated import Worker

    if not _STARTED:
        _STARTED.append(Worker(__file__, "TensorFlow"))
    return _STARTED[0]


_STARTED: list[Any] = []


# ---- in the other process ----------------------------------------------------------------------


def load() -> None:
    """Load what takes time and memory of its own."""
    import tensorflow  # noqa: F401 - loaded before memory is limited

    import mlferry.converters.tensorflow.loading  # noqa: F401 - loaded before memory is limited


def _freeze(told: dict[str, Any]) -> list[bytes]:
    from mlferry import limits
    from mlferry.converters.tensorflow import loading
    from mlferry.errors import MlferryError

    arguments = pickle.loads(base64.b64decode(told["arguments"]))  # written by our own process
    try:
        with limits.changed(**told["limits"]):
            result = loading.frozen_message(told["path"], told["name"], **arguments)
    except MlferryError as error:
        limit, enough = getattr(error, "limit", ""), getattr(error, "enough", None)
        what = {
            "kind": type(error).__name__,
            "message": str(error),
            "limit": limit,
            "enough": enough,
        }
        return [json.dumps({"error": what}).encode(), b""]
    answer = {"inputs": result.inputs, "outputs": result.outputs, "names": result.names}
    return [json.dumps(answer).encode(), result.graph]


CALLS: dict[str, Callable[..., list[bytes]]] = {"freeze": _freeze}
