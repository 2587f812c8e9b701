"""A network run by onnxruntime, through the exporter, in the place of the NumPy kernels.

Custom layers, random layers and what ONNX cannot express stay on NumPy: the network is split
there. What has been compiled is kept for the shapes that the inputs had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry.errors import MissingDependencyError, PredictionError
from mlferry.exporters.onnx import parts
from mlferry.exporters.onnx.graph import serialized
from mlferry.exporters.onnx.ops import OPS
from mlferry.runtime.custom import CustomClasses, shapes_of_classes
from mlferry.runtime.kernels import Array
from mlferry.runtime.session import Blobs, Session
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn

_PLANS_MOST = 16  # sets of shapes for which compiled parts are kept
_ERRORS_ONLY = 3
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def import_onnxruntime() -> Any:
    """The onnxruntime package.

    Raises:
        MissingDependencyError: it, or the onnx package, is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            'engine="onnxruntime" needs the onnx and onnxruntime packages: '
            "pip install 'mlferry[onnxruntime]'"
        ) from error
    return onnxruntime


@dataclass(frozen=True)
class Compiled:
    """Layers as an onnxruntime session.

    Attributes:
        session: the `InferenceSession`.
        inputs: the graph's name of every blob that it reads.
        outputs: the graph's name of every blob that it makes.
        kinds: what runs here, for messages.
    """

    session: Any
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    kinds: str

    def run(self, blobs: Blobs) -> None:
        """Evaluate the layers on blobs, in place."""
        given = {name: np.ascontiguousarray(blobs[blob]) for blob, name in self.inputs.items()}
        try:
            made = self.session.run(list(self.outputs.values()), given)
        except Exception as error:
            shapes = ", ".join(f"{blob} {x.shape}" for blob, x in zip(
                self.inputs, given.values(), strict=True))  # fmt: skip
            raise PredictionError(
                f"onnxruntime cannot evaluate {self.kinds} for {shapes}: {error}\n"
                'MLModel(..., engine="numpy") names the layer'
            ) from error
        blobs |= dict(zip(self.outputs, made, strict=True))


@dataclass(frozen=True)
class OnNumpy:
    """Layers, by their places, that the NumPy kernels evaluate."""

    owner: Session
    layers: Sequence[int]

    def run(self, blobs: Blobs) -> None:
        """Evaluate the layers on blobs, in place."""
        self.owner.run_layers(self.layers, blobs)


@dataclass(frozen=True)
class Planned:
    """A part, and the blobs that nothing reads after it."""

    part: Compiled | OnNumpy
    frees: tuple[str, ...]


class OnnxSession(Session):
    """Evaluates one network with onnxruntime.

    Args:
        network: a neural network message of any of the three kinds; nobody changes it.
        custom_layers: as for `Session`.
        threads: how many onnxruntime uses; None is as many as there are cores.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        MissingCustomLayerError: custom layers without a class; all are named.
    """

    def __init__(
        self, network: networks.Network, custom_layers: CustomClasses | None = None, *,
        threads: int | None = None,
    ) -> None:  # fmt: skip
        import_onnxruntime()
        super().__init__(network, custom_layers, planned=False)
        self._network, self._threads = network, threads
        self._custom = shapes_of_classes(custom_layers or {})
        self._compiled: dict[tuple[Shapes, tuple[str, ...]], list[Planned]] = {}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Evaluate the network; see `Session.run`."""
        self.check_names(inputs, outputs)
        blobs = Blobs(inputs)
        for planned in self.plan(inputs, outputs):
            planned.part.run(blobs)
            for name in planned.frees:
                blobs.pop(name, None)
        return self.chosen(blobs, outputs)

    def plan(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Planned]:
        """The parts that make some blobs, compiled for the shapes of the inputs."""
        key = tuple((name, x.shape) for name, x in inputs.items()), tuple(outputs)
        if key not in self._compiled:
            made = self._planned(dict(key[0]), set(outputs))
            if len(self._compiled) == _PLANS_MOST:
                del self._compiled[next(iter(self._compiled))]
            self._compiled[key] = made
        return self._compiled[key]

    def _planned(self, shapes: dict[str, tuple[int, ...]], wanted: set[str]) -> list[Planned]:
        layers = list(self._network.layers)
        split = parts.split(self._network, shapes, wanted, _stays_here, self._custom)
        found: list[tuple[Compiled | OnNumpy, set[str], set[str]]] = []
        for part in split:
            reads, writes = part.reads, part.writes
            if part.graph is None:
                found.append((OnNumpy(self, part.layers), reads, writes))
                continue
            kinds = ", ".join(_told(layers, part.layers))
            session = self._session(serialized(part.graph.message()))
            found.append((Compiled(session, part.inputs, part.outputs, kinds), reads, writes))
        plan: list[Planned] = []
        later = set(wanted)
        for item, reads, writes in reversed(found):
            plan.append(Planned(item, tuple(sorted((reads | writes) - later))))
            later |= reads | writes
        return plan[::-1]

    def _session(self, data: bytes) -> Any:
        ort = import_onnxruntime()
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = self._threads or 0
        # quantized weights become floats when a session is made, not at every run
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _told(layers: Sequence[nn.NeuralNetworkLayer], places: Sequence[int]) -> Iterator[str]:
    shown = [f"{layers[i].WhichOneof('layer')} {layers[i].name!r}" for i in places]
    yield from shown if len(shown) <= 3 else (shown[0], "...", shown[-1])


def _stays_here(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a layer, or one inside it, is evaluated by a class of the user or draws values."""
    every = [layer, *(i for body in networks.subnetworks(layer) for i in networks.layers_of(body))]
    for inner in every:
        kind = inner.WhichOneof("layer") or ""
        entry = OPS.find(kind)
        if kind == "custom" or (entry is not None and entry.options.get("random")):
            return True
    return False
