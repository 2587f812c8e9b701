"""Reads TensorFlow files in a process of its own.

TensorFlow crashes on some hostile models, and loading a SavedModel runs functions of the file. Only
nodes and arrays come back to this process, which does not load TensorFlow, as that takes seconds.
The other process also computes the results of known operands.
"""

from __future__ import annotations

import base64
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlferry import limits
from mlferry.converters import isolated
from mlferry.converters.graph import Graph
from mlferry.converters.tensorflow import handover
from mlferry.converters.tensorflow.evaluation import Arrays, Computable, OperationDescription
from mlferry.converters.tensorflow.subgraphs import FeatureNames
from mlferry.errors import ConversionError, LimitError, ModelFileError
from mlferry.numerics.shapes import Array

_SCRIPT = Path(__file__).with_name("reader_worker.py")
_BYTES_A_SECOND = 100_000  # bytes of a message that add to the processor time
_WEIGHTS_A_SECOND = 20_000_000  # bytes of the other files: likewise
_TIMES = 10  # a multiple of other readers' seconds: TensorFlow is slow to start
_COPIES = 8  # of a model, that TensorFlow makes
_WORKER = isolated.Worker(str(_SCRIPT), "TensorFlow")


def read(
    path: Path, message: Path, name: str, arguments: Mapping[str, Any]
) -> tuple[Graph, FeatureNames]:
    """Read a file in another process.

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
        answer, *parts = _WORKER.ask(name, "read", options, [], seconds, whole * _COPIES)
    except isolated.Refused as error:
        raise ModelFileError(f"{name} cannot be frozen by TensorFlow: {error}") from error
    fields = json.loads(answer)
    if "error" in fields:
        raise _error(**fields["error"])

    def computing(operation: OperationDescription) -> _RemoteOperation:
        return _RemoteOperation(name, operation)

    graph = handover.graph_from_json(fields["graph"], parts, name, computing)
    return graph, FeatureNames(**fields["names"])


def _error(kind: str, message: str, limit: str, enough: int | None) -> Exception:
    """The error of the other process."""
    if kind == "LimitError":
        return LimitError(message, limit, enough)
    return (ModelFileError if kind == "ModelFileError" else ConversionError)(message)


@dataclass(frozen=True)
class _RemoteOperation(Computable):
    """An operation computed by the other process.

    Attributes:
        source: the path of the model, for messages.
        operation: what is computed.
    """

    source: str
    operation: OperationDescription

    @property
    def is_stateful(self) -> bool:
        """See `Computable`."""
        return self.operation.is_stateful

    def size(self, arrays: Arrays) -> int | None:
        """See `Computable`."""
        if self.operation.size is not None:
            return self.operation.size
        fields, _ = self._asked("size", arrays)
        size: int | None = fields["size"]
        return size

    def result(self, arrays: Arrays) -> Sequence[Array] | None:
        """See `Computable`."""
        fields, parts = self._asked("compute", arrays)
        if fields["arrays"] is None:
            return None
        return [handover.array_from_json(array, parts) for array in fields["arrays"]]

    def _asked(self, call: str, arrays: Arrays) -> tuple[dict[str, Any], list[bytes]]:
        parts: handover.Parts = []
        described = [handover.array_to_json(array, parts) for array in arrays]
        request = {"operation": self.operation.as_json(), "arrays": described}
        seconds = _TIMES * limits.current().seconds
        taken = _COPIES * sum(len(part) for part in parts)
        answer, *results = _WORKER.ask(self.source, call, request, parts, seconds, taken)
        return json.loads(answer), results
