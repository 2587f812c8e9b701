"""The types of features, as coremltools names them.

`write` writes a type into a model; text and Python's own types stand for some of them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mlferry.errors import SpecError
from mlferry.spec.proto import features_pb2 as ft, model_pb2

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

__all__ = ["Array", "Dictionary", "Double", "Int64", "String"]


class _Datatype:
    """A type of features; two of the same kind and shape are equal."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Datatype) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return type(self).__name__

    num_elements: int | None = 1

    def write(self, target: ft.FeatureType, array_type: int) -> None:
        """Make `target` a feature of this type; arrays have values of `array_type`."""
        raise NotImplementedError


class Int64(_Datatype):
    """A 64-bit integer."""

    def write(self, target: ft.FeatureType, array_type: int) -> None:
        """See the base class."""
        target.int64Type.SetInParent()


class Double(_Datatype):
    """A number."""

    def write(self, target: ft.FeatureType, array_type: int) -> None:
        """See the base class."""
        target.doubleType.SetInParent()


class String(_Datatype):
    """A text."""

    def write(self, target: ft.FeatureType, array_type: int) -> None:
        """See the base class."""
        target.stringType.SetInParent()


class Array(_Datatype):
    """A multi-array of these extents.

    Attributes:
        dimensions: the extents.
        num_elements: their product.

    Raises:
        SpecError: there are no extents, or they are not integers.
    """

    def __init__(self, *dimensions: int) -> None:
        listed = dimensions[0] if len(dimensions) == 1 else dimensions
        try:
            extents = listed if isinstance(listed, tuple | list) else (listed,)
            self.dimensions = tuple(operator.index(extent) for extent in extents)
        except TypeError:
            raise SpecError(f"the extents of an Array are integers, not {dimensions}") from None
        if not self.dimensions:
            raise SpecError("an Array has one extent or more: write Array(3, 224, 224)")
        self.num_elements = 1
        for extent in self.dimensions:
            self.num_elements *= extent

    def __repr__(self) -> str:
        return f"Array({{{','.join(map(str, self.dimensions))}}})"

    def write(self, target: ft.FeatureType, array_type: int) -> None:
        """See the base class."""
        target.multiArrayType.dataType = array_type  # type: ignore[assignment] # an enum is an int
        target.multiArrayType.shape[:] = self.dimensions


class Dictionary(_Datatype):
    """A dictionary to numbers.

    Attributes:
        key_type: `Int64` or `String`.

    Raises:
        SpecError: keys of another type.
    """

    num_elements = None

    def __init__(self, key_type: object = None) -> None:
        self.key_type = normalized(key_type)
        if not isinstance(self.key_type, Int64 | String):
            raise SpecError(f"the keys of a Dictionary are Int64 or String, not {key_type!r}")

    def __repr__(self) -> str:
        return f"Dictionary({self.key_type!r})"

    def write(self, target: ft.FeatureType, array_type: int) -> None:
        """See the base class."""
        key = target.dictionaryType
        (key.int64KeyType if isinstance(self.key_type, Int64) else key.stringKeyType).SetInParent()


_SHORT: dict[Any, type[_Datatype]] = {
    int: Int64,
    float: Double,
    str: String,
    Int64: Int64,
    Double: Double,
    String: String,
    "Int64": Int64,
    "Double": Double,
    "String": String,
}


def normalized(value: object) -> _Datatype:
    """The type that a value stands for: ``int``, ``"Double"``, ``Array(3)``.

    Raises:
        SpecError: it stands for none.
    """
    if isinstance(value, _Datatype):
        return value
    kind = _SHORT.get(value) if isinstance(value, str | type) else None
    if kind is None:
        raise SpecError(
            f"{value!r} is not a type of features; write mlferry.models.datatypes.Array(3, 224, "
            "224), Double(), Int64(), String() or Dictionary(String())"
        )
    return kind()


def add_features(
    described: RepeatedCompositeFieldContainer[model_pb2.FeatureDescription],
    features: Iterable[tuple[str, Any]],
    *,
    array_type: int = ft.ArrayFeatureType.DOUBLE,
    optional: bool = False,
) -> None:
    """Add features to the inputs, outputs or training inputs of a description.

    Args:
        described: the repeated field.
        features: pairs of a name and a type; a type of None leaves it open.
        array_type: of the values of arrays.
        optional: whether they may be left out.

    Raises:
        SpecError: something is not such a pair.
    """
    for name, kind in pairs(features):
        feature = described.add(name=name)
        if kind is not None:
            normalized(kind).write(feature.type, array_type)
        if optional:
            feature.type.isOptional = True


def pairs(features: Iterable[Sequence[Any]]) -> list[tuple[str, Any]]:
    """Features as pairs of a name and a type.

    Raises:
        SpecError: something is not such a pair, or a name is given twice.
    """
    listed = [tuple(feature) for feature in features]
    for pair in listed:
        if len(pair) != 2 or not isinstance(pair[0], str):
            raise SpecError(f"a feature is a pair of a name and a type, not {pair!r}")
    names = [name for name, _ in listed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecError(f"two features have the name {', '.join(map(repr, twice))}")
    return [(name, kind) for name, kind in listed]


def training_inputs(spec: model_pb2.Model, features: Iterable[tuple[str, Any]]) -> None:
    """Add what the model is trained with, as `add_features` does."""
    add_features(spec.description.trainingInput, features)
