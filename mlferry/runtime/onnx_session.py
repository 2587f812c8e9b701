"""A network run by onnxruntime, through the exporter, instead of the NumPy kernels.

Custom layers, random layers and layers that ONNX cannot express stay on NumPy: the network is split
there. Compiled parts are kept per set of input shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlferry import limits
from mlferry.errors import MissingDependencyError, MlferryError, PredictionError
from mlferry.exporters.onnx import parts
from mlferry.layers.exports import OPS
from mlferry.layers.kernels import Array
from mlferry.layers.trace import trace
from mlferry.numerics.shapes import Shape
from mlferry.onnx_graph import rounds
from mlferry.onnx_graph.graph import serialized
from mlferry.runtime.custom import CustomClasses, shapes_of_classes
from mlferry.runtime.session import Blobs, Session
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn

_PLANS_MOST = 16  # sets of shapes for which compiled parts are kept
_FITTING_MOST = 1 << 12  # sets of shapes that are remembered as checked
_SEEN_LEAST = 3  # sets of shapes after which extents are left open
_FATAL_ONLY = 4  # what fails is raised, and not written to stderr as well
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def import_onnxruntime() -> Any:
    """The onnxruntime package.

    Raises:
        MissingDependencyError: it, or the onnx package, is not installed.
    """
    try:
        import onnx  # noqa: F401 - is it there?
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            'engine="onnxruntime" needs the onnx and onnxruntime packages: '
            "pip install 'mlferry[onnxruntime]'"
        ) from error
    return onnxruntime


def rounds_now() -> int:
    """The current limit of loop rounds, which compiled graphs count to."""
    return int(min(limits.current().rounds, rounds.MOST))


def check_rounds(error: Exception) -> None:
    """Raise a `LimitError` where a graph failed because its loops ran too many rounds."""
    if rounds.MARK in str(error):
        most = rounds_now()
        with limits.changed(rounds=most):
            limits.check("rounds", most + 1, "the rounds of its loops are")


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
        feeds = {name: np.ascontiguousarray(blobs[blob]) for blob, name in self.inputs.items()}
        try:
            results = self.session.run(list(self.outputs.values()), feeds)
        except Exception as error:
            check_rounds(error)
            shapes = ", ".join(
                f"{blob} {x.shape}" for blob, x in zip(self.inputs, feeds.values(), strict=True)
            )
            raise PredictionError(
                f"onnxruntime cannot evaluate {self.kinds} for {shapes}: {error}\n"
                'MLModel(..., engine="numpy") names the layer'
            ) from error
        blobs |= dict(zip(self.outputs, results, strict=True))


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
        network: a neural network message of any of the three kinds; it is not changed.
        custom_layers: as for `Session`.
        threads: how many onnxruntime uses; None is as many as there are cores.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        MissingCustomLayerError: custom layers without a class; all are named.
    """

    def __init__(
        self,
        network: networks.Network,
        custom_layers: CustomClasses | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        import_onnxruntime()
        super().__init__(network, custom_layers, planned=False, threads=threads)
        self._network = network
        self._custom = shapes_of_classes(custom_layers or {}, collected=False)
        self._compiled: dict[tuple[Shapes, tuple[str, ...]], list[Planned]] = {}
        self._fitting: dict[Shapes, bool] = {}
        self._opened: dict[tuple[str, ...], tuple[dict[str, Shape], list[Planned]]] = {}
        self._most_rounds = rounds_now()

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
        """The parts that make some blobs, compiled for the shapes of the inputs.

        After several sets of shapes they are compiled once more, with the extents that changed left
        open, and kept for all shapes that fit, unless this leaves more layers to NumPy.
        """
        if self._most_rounds != rounds_now():
            self._most_rounds = rounds_now()
            self._compiled, self._opened = {}, {}
        shapes, names = tuple((name, x.shape) for name, x in inputs.items()), tuple(outputs)
        if (shapes, names) in self._compiled:
            return self._compiled[shapes, names]
        opened = self._opened.get(names)
        if opened is not None and _fits(shapes, opened[0]) and self._are_valid(shapes):
            return opened[1]
        parts = self._planned(dict(shapes), set(outputs))
        if len(self._compiled) == _PLANS_MOST:
            del self._compiled[next(iter(self._compiled))]
        self._compiled[shapes, names] = parts
        compiled = [known for known, others in self._compiled if others == names]
        if len(compiled) >= _SEEN_LEAST:
            self._open(compiled, names, parts)
        return parts

    def _are_valid(self, shapes: Shapes) -> bool:
        """Whether all layers accept these input shapes; checked once per set of shapes."""
        if shapes not in self._fitting:
            if len(self._fitting) == _FITTING_MOST:
                self._fitting.clear()
            traced = trace(self._network, dict(shapes), self._custom)
            self._fitting[shapes] = not traced.refusals
        return self._fitting[shapes]

    def _open(
        self, compiled: Sequence[Shapes], names: tuple[str, ...], last: list[Planned]
    ) -> None:
        """Keep one plan for all shapes like those seen so far, if it is as good as the last one."""
        agreed = _agreed(compiled)
        if agreed is None:
            return
        try:
            general = self._planned(agreed, set(names))
        except MlferryError:  # a size has to be known somewhere: those of its own serve
            return
        if [type(item.part) for item in general] == [type(item.part) for item in last]:
            self._opened[names] = (agreed, general)

    def _planned(self, shapes: Mapping[str, Shape], outputs: set[str]) -> list[Planned]:
        layers = list(self._network.layers)
        split = parts.split(
            self._network, shapes, outputs, _stays_here, self._custom, self._most_rounds
        )
        entries: list[tuple[Compiled | OnNumpy, set[str], set[str]]] = []
        for part in split:
            reads, writes = part.reads, part.writes
            if part.graph is None:
                entries.append((OnNumpy(self, part.layers), reads, writes))
                continue
            kinds = ", ".join(_descriptions(layers, part.layers))
            session = inference_session(serialized(part.graph.message()), kinds, self.threads)
            entries.append((Compiled(session, part.inputs, part.outputs, kinds), reads, writes))
        plan: list[Planned] = []
        later = set(outputs)
        for item, reads, writes in reversed(entries):
            plan.append(Planned(item, tuple(sorted((reads | writes) - later))))
            later |= reads | writes
        return plan[::-1]


def inference_session(data: bytes, kinds: str, threads: int | None) -> Any:
    """A session of onnxruntime.

    Args:
        data: the model.
        kinds: what runs in it, for messages.
        threads: how many it uses; None is as many as there are cores.

    Raises:
        PredictionError: onnxruntime cannot load it.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.intra_op_num_threads = threads or 0
    # quantized weights become floats when a session is made, not at every run
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise PredictionError(
            f"onnxruntime {ort.__version__} cannot load the graph of {kinds}: {error}\n"
            'MLModel(..., engine="numpy") runs it'
        ) from error


def _agreed(compiled: Sequence[Shapes]) -> dict[str, Shape] | None:
    """What shapes of inputs have in common, with None where they differ; None if ranks differ."""
    if len({len(shapes) for shapes in compiled}) > 1:
        return None
    common: dict[str, Shape] = {}
    for rows in zip(*compiled, strict=True):
        extents = [shape for _, shape in rows]
        if len({len(shape) for shape in extents}) > 1 or len({name for name, _ in rows}) > 1:
            return None
        common[rows[0][0]] = tuple(
            axis[0] if len(set(axis)) == 1 else None for axis in zip(*extents, strict=True)
        )
    return common


def _fits(shapes: Shapes, opened: Mapping[str, Shape]) -> bool:
    """Whether shapes match shapes with open extents."""
    return len(shapes) == len(opened) and all(
        len(shape) == len(opened.get(name, ()))
        and all(a in (b, None) for a, b in zip(opened[name], shape, strict=True))
        for name, shape in shapes
    )


def _descriptions(layers: Sequence[nn.NeuralNetworkLayer], places: Sequence[int]) -> Iterator[str]:
    texts = [f"{layers[i].WhichOneof('layer')} {layers[i].name!r}" for i in places]
    yield from texts if len(texts) <= 3 else (texts[0], "...", texts[-1])


def _stays_here(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a layer, or one inside it, is evaluated by your own class or draws random values."""
    every = [layer, *(i for body in networks.subnetworks(layer) for i in networks.layers_of(body))]
    for inner in every:
        kind = inner.WhichOneof("layer") or ""
        entry = OPS.find(kind)
        if kind == "custom" or (entry is not None and entry.options.get("random")):
            return True
    return False
