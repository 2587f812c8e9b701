"""The walk over the layers of a network, each of which becomes operations of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from mlferry.errors import MlferryError, SpecError, UnsupportedLayersError, context
from mlferry.exporters import liveness
from mlferry.layers import versions
from mlferry.layers.definitions import infer
from mlferry.layers.params import Params
from mlferry.layers.programs import PROGRAM_OPS, CannotBecomeProgramError
from mlferry.numerics.shapes import Shape
from mlferry.programs.builder import NewerOpsetError, ProgramBuilder
from mlferry.programs.graph import Block, Value
from mlferry.programs.types import TensorType
from mlferry.spec import networks
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.text import paragraph


@dataclass(frozen=True)
class Refusal:
    """A layer that no ops can express; `follows` where only another one stands in its way."""

    layer: nn.NeuralNetworkLayer
    reason: str
    follows: bool = False

    @property
    def kind(self) -> str:
        """The kind of the layer."""
        return self.layer.WhichOneof("layer") or ""

    def __str__(self) -> str:
        return f"{self.kind} {self.layer.name!r}: {self.reason}"


Special = Callable[["Translation", nn.NeuralNetworkLayer, set[str]], None]


class Translation:
    """Walks over layers and writes their operations.

    A blob that is made again, by a copy, is another value from there on. In the classic mapping
    the values of blobs whose sequence has one step go without that axis, so that a convolution is
    one operation.

    Args:
        network: tells the mapping.
        builder: what writes.
        special: what writes layers that are no operations of their own: those of control flow.

    Attributes:
        values: the value of every blob.
        refusals: the layers that cannot be expressed.
    """

    def __init__(
        self, network: networks.Network, builder: ProgramBuilder, special: Mapping[str, Special]
    ) -> None:
        self.rank5 = versions.uses_rank5(network)
        self.builder = builder
        self.values: dict[str, Value] = {}
        self.refusals: list[Refusal] = []
        self._special = special
        self._cut: set[Value] = set()  # values without their sequence axis
        self._lost: set[str] = set()  # blobs of layers that were refused

    # ---- blobs -------------------------------------------------------------------------------

    def add_input(self, blob: str, value: Value) -> None:
        """A blob that comes from outside, in the shape that the network has it in."""
        self.values[blob] = self._without_sequence(value)

    def whole(self, blob: str) -> Value:
        """The value of a blob with all of its axes.

        Raises:
            CannotBecomeProgramError: nothing before surely makes it.
        """
        if blob not in self.values:
            raise CannotBecomeProgramError(f"nothing before it surely makes {blob!r}")
        return self._with_sequence(self.values[blob])

    def _without_sequence(self, value: Value) -> Value:
        if not self.rank5 or value.tensor.shape is None:
            return value
        if value.rank != 5 or value.shape[0] != 1:
            return value
        squeezed = self.builder.squeeze(value, [0])
        self._cut.add(squeezed)
        return squeezed

    def _with_sequence(self, value: Value) -> Value:
        return self.builder.expand(value, [0]) if value in self._cut else value

    # ---- layers ------------------------------------------------------------------------------

    def run(self, layers: liveness.Layers, outputs: set[str]) -> None:
        """Write layers, after which `outputs` blobs are read."""
        for layer, live in zip(layers, liveness.needs(layers, outputs), strict=True):
            self.layer(layer, live)

    def layer(self, layer: nn.NeuralNetworkLayer, live: set[str]) -> None:
        """Write one layer; `live` are the blobs that something behind it may read."""
        self.builder.layer = layer.name
        kind = layer.WhichOneof("layer") or ""
        write = self._special.get(kind)
        try:
            if write is not None:
                write(self, layer, live)
            else:
                with context(f"writing {kind} {layer.name!r} as a program"):
                    self._plain(layer)
        except CannotBecomeProgramError as error:
            self._refuse(layer, error, live)

    def _refuse(
        self, layer: nn.NeuralNetworkLayer, error: CannotBecomeProgramError, live: set[str]
    ) -> None:
        """Note that a layer cannot be expressed, and go on to find the others."""
        reads, writes = networks.touched(layer)
        self.refusals.append(Refusal(layer, str(error), bool(self._lost & reads)))
        for blob in writes & (live | set(layer.output)):
            self._lost.add(blob)
            self.values.pop(blob, None)

    def _plain(self, layer: nn.NeuralNetworkLayer) -> None:
        params = Params.of(layer, rank5=self.rank5)
        entry = PROGRAM_OPS.find(params.kind)
        if entry is None:
            raise CannotBecomeProgramError("there are no ops of ML Programs for this kind")
        five = entry.options.get("five_axes", False)
        inputs = self._inputs(layer, five(params) if callable(five) else five)
        is_cut = bool(inputs) and all(x in self._cut for x in inputs)
        output = _written(self.builder, entry.value, params, inputs)
        results = output if isinstance(output, tuple) else (output,)
        if len(results) < len(layer.output):
            raise SpecError(f"it makes {len(results)} outputs; {len(layer.output)} are named")
        known = infer(params, [x.tensor.shape for x in inputs])
        for index, blob in enumerate(layer.output):
            value = results[index]
            if known is not None and value not in inputs:
                refine(value, known[index])
            if is_cut:
                self._cut.add(value)
            self.values[blob] = value if is_cut else self._without_sequence(value)

    def _inputs(self, layer: nn.NeuralNetworkLayer, five: bool) -> list[Value]:
        """Values of the inputs: all of them with the axis of the sequence, or none."""
        missing = [blob for blob in layer.input if blob not in self.values]
        if missing:
            raise CannotBecomeProgramError(f"nothing before it surely makes {missing[0]!r}")
        values = [self.values[blob] for blob in layer.input]
        if five or not all(value in self._cut for value in values):
            values = [self._with_sequence(value) for value in values]
        return values

    @contextmanager
    def inside(self) -> Iterator[Block]:
        """Operations of a block; what blobs become inside is not seen outside."""
        outer = dict(self.values)
        try:
            with self.builder.inside() as block:
                yield block
        finally:
            self.values = outer

    def check(self) -> None:
        """Raise an `UnsupportedLayersError` that names every layer that cannot be expressed."""
        shown = [refusal for refusal in self.refusals if not refusal.follows]
        if not shown:
            return
        texts = dict.fromkeys(map(str, shown))
        raise UnsupportedLayersError(
            paragraph(
                [
                    f"an ML Program cannot express {len(texts)} "
                    f"layer{'s' if len(texts) > 1 else ''}:",
                    *(f"  - {text}" for text in texts),
                    "the neural network itself runs wherever the program would",
                ]
            ),
            [(refusal.layer.name, refusal.kind, refusal.reason) for refusal in shown],
        )


def _written(
    builder: ProgramBuilder, write: Callable[..., object], params: Params, inputs: list[Value]
) -> object:
    try:
        return write(builder, params, *inputs)
    except (CannotBecomeProgramError, MlferryError, NewerOpsetError):
        raise
    except Exception as error:  # a layer whose parameters validate would refuse
        raise SpecError(f"its parameters do not fit: {error!r:.300}") from error


def refine(value: Value, shape: Shape | None) -> None:
    """Tell extents of a value that its operation alone does not tell."""
    known = value.tensor.shape
    if shape is None or known is None or len(known) != len(shape) or value.is_constant:
        return
    value.type = TensorType(
        value.dtype, tuple(b if a is None else a for a, b in zip(known, shape, strict=True))
    )
