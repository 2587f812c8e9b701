"""The walk over the layers of a network, each of which becomes operations of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from mlferry.errors import MlferryError, SpecError, context
from mlferry.exporters import liveness
from mlferry.exporters.refusals import Refusal, check_refusals
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

Special = Callable[["Translation", nn.NeuralNetworkLayer, set[str]], None]


class Translation:
    """Walks over layers and writes their operations.

    A blob that a copy writes again is a new value from there on. In the classic mapping a blob
    whose sequence has one step loses that axis, so that a convolution is one operation.

    Args:
        network: the network, which says how arrays map to blobs.
        builder: writes the operations.
        special: the functions that write layers of control flow, by kind.

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
        self._cut: set[Value] = set()  # values that lost their sequence axis
        self._lost: set[str] = set()  # blobs of layers that were refused

    # ---- blobs -------------------------------------------------------------------------------

    def add_input(self, blob: str, value: Value) -> None:
        """Add a blob that comes from outside, in the shape that it has in the network."""
        self.values[blob] = self._without_sequence(value)

    def whole(self, blob: str) -> Value:
        """The value of a blob with all of its axes.

        Raises:
            CannotBecomeProgramError: no earlier layer is certain to write it.
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
        """Write layers; the blobs `outputs` are read after them."""
        for layer, live in zip(layers, liveness.needs(layers, outputs), strict=True):
            self.layer(layer, live)

    def layer(self, layer: nn.NeuralNetworkLayer, live: set[str]) -> None:
        """Write one layer; `live` are the blobs that something later may read."""
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
        """Note that a layer cannot be expressed, and continue, to find the others."""
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
        shapes = infer(params, [x.tensor.shape for x in inputs])
        for index, blob in enumerate(layer.output):
            value = results[index]
            if shapes is not None and value not in inputs:
                refine(value, shapes[index])
            if is_cut:
                self._cut.add(value)
            self.values[blob] = value if is_cut else self._without_sequence(value)

    def _inputs(self, layer: nn.NeuralNetworkLayer, five: bool) -> list[Value]:
        """The values of the inputs: all with the sequence axis, or all without."""
        missing = [blob for blob in layer.input if blob not in self.values]
        if missing:
            raise CannotBecomeProgramError(f"nothing before it surely makes {missing[0]!r}")
        values = [self.values[blob] for blob in layer.input]
        if five or not all(value in self._cut for value in values):
            values = [self._with_sequence(value) for value in values]
        return values

    @contextmanager
    def inside(self) -> Iterator[Block]:
        """Write the operations of a block; blobs that change inside keep their values outside."""
        outer = dict(self.values)
        try:
            with self.builder.inside() as block:
                yield block
        finally:
            self.values = outer

    def check(self) -> None:
        """Raise an `UnsupportedLayersError` that names every layer that cannot be expressed."""
        advice = "the neural network itself runs wherever the program would"
        check_refusals(self.refusals, "an ML Program", [advice])


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
    """Add extents to the type of a value which its operation alone does not know."""
    own_shape = value.tensor.shape
    if shape is None or own_shape is None or len(own_shape) != len(shape) or value.is_constant:
        return
    value.type = TensorType(
        value.dtype, tuple(b if a is None else a for a, b in zip(own_shape, shape, strict=True))
    )
