"""A layer's parameters as Python values, with the format's defaults filled in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from mlferry import rooms
from mlferry.errors import SpecError
from mlferry.numerics.shapes import Array
from mlferry.spec import weights
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.spec.reflection import is_repeated

T = TypeVar("T")

# By message and field, filled by the definitions of layer kinds. proto3 cannot tell unset from
# zero; Core ML reads both as these values.
_DEFAULTS: dict[tuple[str, str], Any] = {}


def set_default(message: str, field: str, value: float | Sequence[int]) -> None:
    """Let an unset or zero field of a parameter message read as `value`."""
    _DEFAULTS[message, field] = value


def defaults_of(message: str) -> dict[str, Any]:
    """The defaults of a parameter message by field, except for zeros."""
    rooms.load(rooms.LAYERS, "definition")
    return {field: value for (owner, field), value in _DEFAULTS.items() if owner == message}


def _default(message: str, field: str, unset: float | str | Sequence[Any]) -> Any:
    rooms.load(rooms.LAYERS, "definition")
    return _DEFAULTS.get((message, field), unset)


class Params:
    """Attribute access to a params message.

    Scalars come as they are, repeated fields as tuples, enum values as their names, nested messages
    as `Params`; a field that is unset or zero gives the format's default. Weights are read with
    `weight`, in the shape that the caller knows. `rank5` says whether the network uses the classic
    mapping, where every blob is [Seq, Batch, C, H, W].
    """

    def __init__(
        self, message: Message, name: str = "", kind: str = "", *, rank5: bool = False
    ) -> None:
        self.message = message
        self.name = name
        self.kind = kind
        self.rank5 = rank5
        self._derived: dict[Any, Any] = {}
        self._given: dict[str, Array] = {}

    @classmethod
    def of(cls, layer: nn.NeuralNetworkLayer, *, rank5: bool = False) -> Params:
        """The parameters of a layer.

        Raises:
            SpecError: the layer has no kind, or one that this version does not know.
        """
        kind = layer.WhichOneof("layer")
        if kind is None:
            raise SpecError(
                f"layer {layer.name!r} has no kind, or one of a newer format than this "
                "version of mlferry knows"
            )
        return cls(getattr(layer, kind), layer.name, kind, rank5=rank5)

    def __getattr__(self, field: str) -> Any:
        if field.startswith("_"):
            raise AttributeError(field)
        descriptor = self.message.DESCRIPTOR.fields_by_name.get(field)
        if descriptor is None:
            raise AttributeError(f"{self.message.DESCRIPTOR.name} has no field {field!r}")
        value = getattr(self.message, field)
        if descriptor.enum_type is not None:
            enum_values = descriptor.enum_type.values_by_number
            if value not in enum_values:
                raise SpecError(f"{field} of {self.kind} {self.name!r} is unknown: {value}")
            result: Any = enum_values[value].name
        elif is_repeated(descriptor):
            result = tuple(self._wrap(item) for item in value)
        else:
            result = self._wrap(value)
        if not result:
            result = _default(self.message.DESCRIPTOR.name, field, result)
        self.__dict__[field] = result
        return result

    def _wrap(self, value: Message | bool | float | str | bytes) -> Any:
        if isinstance(value, Message):
            return Params(value, self.name, self.kind, rank5=self.rank5)
        return value

    def __bool__(self) -> bool:
        return True

    def has(self, field: str) -> bool:
        """Whether a message field is set."""
        return self.message.HasField(field)

    def which(self, oneof: str) -> str | None:
        """The field of a oneof that is set."""
        which_oneof: str | None = self.message.WhichOneof(oneof)
        return which_oneof

    def weight(
        self, field: str, shape: Sequence[int], *, channel_axis: int = 0
    ) -> NDArray[np.float32]:
        """A weight as float32 in `shape`, decoded once.

        Raises:
            SpecError: the number of stored values does not fit.
        """
        key = (field, tuple(shape), channel_axis)
        if key not in self._derived:
            self._derived[key] = self.decoded(field, shape, channel_axis=channel_axis)
        return self._derived[key]  # type: ignore[no-any-return]

    def decoded(
        self, field: str, shape: Sequence[int], *, channel_axis: int = 0
    ) -> NDArray[np.float32]:
        """As `weight`, without keeping it, for callers that keep another form."""
        if field in self._given:
            return self._given[field].reshape(tuple(shape))
        try:
            return weights.read(getattr(self.message, field), shape, channel_axis=channel_axis)
        except SpecError as error:
            error.add_context(f"reading {field} of {self.kind} {self.name!r}")
            raise

    def give(self, path: str, values: Array) -> None:
        """Replace a stored weight by these values from now on.

        `weight` returns a view of them if they are contiguous: changing them in place changes the
        weight, but nothing derived from it with `once`, until you call this again.

        Args:
            path: of the field, as in `mlferry.spec.weights.iter_weights`.
            values: in the order in which they are stored; of any type.
        """
        first, _, rest = path.partition(".")
        self._derived.clear()
        if not rest:
            self._given[first] = values
            return
        name, _, index = first.partition("[")
        inner = getattr(self, name)
        (inner[int(index[:-1])] if index else inner).give(rest, values)

    def is_given(self, field: str) -> bool:
        """Whether `give` has replaced a weight, which may change in place."""
        return field in self._given

    @property
    def has_given(self) -> bool:
        """Whether `give` has replaced any of its own weights."""
        return bool(self._given)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """The result of `make`, made at the first call and kept."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]  # type: ignore[no-any-return]
