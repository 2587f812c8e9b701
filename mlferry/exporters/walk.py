"""The walk over the layers of a network that writes each of them in another format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Generic, TypeVar

from mlferry.errors import MlferryError, SpecError, context
from mlferry.exporters import liveness
from mlferry.exporters.refusals import Refusal
from mlferry.layers import versions
from mlferry.layers.params import Params
from mlferry.refusals import CannotExpressError, refuse
from mlferry.registry import Registry
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn

Layer = nn.NeuralNetworkLayer
Special = Callable[[Any, Layer, set[str]], None]

V = TypeVar("V", bound=Hashable)  # a value: a name in ONNX, an object in a program
B = TypeVar("B")  # what is written inside of a branch or a round


class LayerWalk(ABC, Generic[V, B]):
    """Walks over layers and writes them.

    A blob that a copy writes again is a new value from there on. In the classic mapping a blob
    whose sequence has one step loses that axis, so that a convolution is one node or operation.

    Args:
        network: the network, which says how arrays map to blobs.
        special: the functions that write layers of control flow, by kind: they take the walk, the
            layer, and the blobs that something later may read.

    Attributes:
        values: the value of every blob.
        refusals: the layers that cannot be expressed.
    """

    functions: ClassVar[Registry[Callable[..., Any]]]
    """What writes a layer kind; the option `five_axes` asks for the sequence axis."""
    passed_on: ClassVar[tuple[type[Exception], ...]] = (CannotExpressError, MlferryError)
    """Errors of functions that stay as they are."""
    no_function: ClassVar[str]
    """Why a kind without a function is refused."""
    doing: ClassVar[str]
    """What errors say was going on: "exporting {}"."""

    def __init__(self, network: networks.Network, special: Mapping[str, Special]) -> None:
        self.rank5 = versions.uses_rank5(network)
        self.values: dict[str, V] = {}
        self.refusals: list[Refusal] = []
        self._special = special
        self._cut: set[V] = set()  # values that lost their sequence axis

    # ---- what each format does in its own way ------------------------------------------------

    @abstractmethod
    def start(self, name: str) -> None:
        """Name what is written from here on after a layer."""

    @abstractmethod
    def flag(self, value: bool) -> V:
        """A constant scalar that is true or false."""

    @abstractmethod
    def truth(self, blob: str) -> V:
        """A scalar that says whether a blob of one value is true."""

    @abstractmethod
    def choose(
        self, layer: Layer, condition: V, bodies: Sequence[B], results: Sequence[list[V]]
    ) -> Sequence[V]:
        """Write a branch of two bodies; its values are the `results` of the one that runs."""

    @abstractmethod
    def become(self, blob: str, value: V) -> None:
        """Give a blob a value that has all of its axes."""

    def counters(self, layer: Layer) -> list[str]:
        """What a layer of control flow counts beside the blobs that it writes."""
        return []

    @abstractmethod
    def _body(self) -> AbstractContextManager[B]:
        """Collects what is written inside of a branch or a round."""

    @abstractmethod
    def _write(
        self, layer: Layer, function: Callable[..., Any], params: Params, x: list[V]
    ) -> None:
        """Write a layer from its inputs, and give its blobs their values."""

    @abstractmethod
    def _refuse(self, layer: Layer, error: Exception, live: set[str]) -> None:
        """Note that a layer cannot be expressed, and continue, to find the others."""

    @abstractmethod
    def _without_sequence(self, value: V) -> V:
        """A value without a sequence axis of one step."""

    @abstractmethod
    def _with_sequence(self, value: V) -> V:
        """A value with the sequence axis that it may have lost."""

    # ---- the walk ----------------------------------------------------------------------------

    def whole(self, blob: str) -> V:
        """The value of a blob with all of its axes.

        Raises:
            CannotExpressError: no earlier layer is certain to write it.
        """
        return self._with_sequence(self._value(blob))

    def _value(self, blob: str) -> V:
        if blob not in self.values:
            raise refuse(f"nothing before it surely makes {blob!r}")
        return self.values[blob]

    def run(self, layers: liveness.Layers, outputs: set[str]) -> None:
        """Write layers; the blobs `outputs` are read after them."""
        for layer, live in zip(layers, liveness.needs(layers, outputs), strict=True):
            self.layer(layer, live)

    def layer(self, layer: Layer, live: set[str]) -> None:
        """Write one layer; `live` are the blobs that something later may read."""
        self.start(layer.name)
        kind = layer.WhichOneof("layer") or ""
        write = self._special.get(kind)
        try:
            if write is not None:
                write(self, layer, live)
            else:
                with context(self.doing.format(f"{kind} {layer.name!r}")):
                    self._plain(layer)
        except CannotExpressError as error:
            self._refuse(layer, error, live)

    def _plain(self, layer: Layer) -> None:
        params = Params.of(layer, rank5=self.rank5)
        entry = self.functions.find(params.kind)
        if entry is None:
            raise refuse(self.no_function)
        five = entry.options.get("five_axes", False)
        inputs = self.inputs(layer, five(params) if callable(five) else five)
        self._write(layer, entry.value, params, inputs)

    def inputs(self, layer: Layer, five_axes: bool) -> list[V]:
        """The values of the inputs: all with the sequence axis, or all without."""
        values = [self._value(blob) for blob in layer.input]
        if five_axes or not self._are_cut(values):
            values = [self._with_sequence(value) for value in values]
        return values

    def _are_cut(self, values: Sequence[V]) -> bool:
        return bool(values) and all(value in self._cut for value in values)

    def _results(self, layer: Layer, write: Callable[[], Any]) -> Sequence[V]:
        """What a function writes, at least one value for each output."""
        try:
            output = write()
        except self.passed_on:
            raise
        except Exception as error:  # a layer whose parameters validate would refuse
            raise SpecError(f"its parameters do not fit: {error!r:.300}") from error
        results = output if isinstance(output, tuple) else (output,)
        if len(results) < len(layer.output):
            raise SpecError(f"it makes {len(results)} outputs; {len(layer.output)} are named")
        return results

    @contextmanager
    def inside(self) -> Iterator[B]:
        """Write what is inside of a branch or a round; blobs keep their values outside."""
        outer = dict(self.values)
        try:
            with self._body() as body:
                yield body
        finally:
            self.values = outer
