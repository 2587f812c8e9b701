"""How the weights of a model are stored in fewer bits, and how far they are from the original."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mlferry.errors import MlferryError
from mlferry.layers.sites import Site, sites as network_sites
from mlferry.models.facts import LayerWeights, WeightFacts
from mlferry.programs.graph import Operation, Value
from mlferry.programs.parts import CompressedParts
from mlferry.programs.passes.opset import renewed
from mlferry.programs.reading import read_function
from mlferry.programs.sites import ProgramSite, sites as program_sites
from mlferry.programs.types import DTYPES
from mlferry.programs.values import Weights
from mlferry.spec import networks, weights as stored_weights
from mlferry.spec.proto import model_pb2
from mlferry.text import logger_of

logger = logger_of(__name__)

# Arguments of compressed constants that say what they are, not what is in them.
_FORMS = {"shape", "axis", "vector_axis", "output_dtype"}
Key = tuple[int, str, str]  # the model's place in a pipeline; where the weight is; its parameter


@dataclass(frozen=True)
class FoundWeight:
    """A weight of a model.

    Attributes:
        key: where it is: the model, the layer or function, the parameter.
        stored: how it is stored, where that is in fewer bits.
        site: the weight itself.
        function: of a program, that it is of.
    """

    key: Key
    stored: WeightFacts | None
    site: ProgramSite | Site
    function: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """Layer and parameter, or function and constant."""
        if isinstance(self.site, ProgramSite):
            return self.function, self.site.value.name
        return self.site.name, self.site.field

    @property
    def shape(self) -> tuple[int, ...]:
        """Of its values."""
        return tuple(self.site.shape)

    @property
    def count(self) -> int:
        """How many values it has."""
        return self.site.count

    @property
    def encoding(self) -> str:
        """How it is stored."""
        if self.stored is not None:
            return self.stored.scheme
        if isinstance(self.site, ProgramSite):
            return self.site.value.dtype
        return str(self.site.encoding)

    def values(self) -> Any:
        """The values, as numbers."""
        return self.site.array if isinstance(self.site, ProgramSite) else self.site.read()


def compressed_weights(
    spec: model_pb2.Model,
    weights: Weights | None,
    original: tuple[model_pb2.Model, Weights | None] | None = None,
) -> list[WeightFacts]:
    """The weights of a model that are in fewer bits, and, beside an original, those that differ.

    Args:
        spec: of the model.
        weights: the files of its programs' weights.
        original: the model that it was made of, whose layers and operations have the same names.
    """
    return _compressed(list(found_weights(spec, weights)), original)


def weight_facts(
    spec: model_pb2.Model,
    weights: Weights | None,
    original: tuple[model_pb2.Model, Weights | None] | None = None,
) -> tuple[list[WeightFacts], list[LayerWeights]]:
    """The weights that are in fewer bits, and those of every layer; see `compressed_weights`."""
    stored = list(found_weights(spec, weights))
    return _compressed(stored, original), _by_layer(spec, stored)


class _Stored(NamedTuple):
    shape: list[int]
    values: int
    size: float
    encoding: str


def _by_layer(spec: model_pb2.Model, weights: Sequence[FoundWeight]) -> list[LayerWeights]:
    """Of networks, all that is stored; of programs, what is no small number of an operation."""
    shapes = {
        id(each.site.message): list(each.site.shape)
        for each in weights
        if isinstance(each.site, Site)
    }
    rows: dict[tuple[int, str, str], list[_Stored]] = {}
    for place, inner in enumerate(networks.models_in(spec)):
        network = networks.network_of(inner)
        for weight in () if network is None else stored_weights.iter_weights(network):
            count, size = stored_weights.count(weight.message), weight.message.ByteSize()
            scheme = str(stored_weights.encoding(weight.message) or "values")
            key = place, weight.layer.name, weight.layer.WhichOneof("layer") or "unknown"
            shape = shapes.get(id(weight.message), [])
            if count:
                rows.setdefault(key, []).append(_Stored(shape, count, size, scheme))
    for each in weights:
        if isinstance(each.site, ProgramSite):
            bits = each.site.count * DTYPES[each.site.value.dtype].bits
            scheme = each.site.value.dtype
            if each.stored is not None:
                bits, scheme = (
                    round(each.stored.bits_per_value * each.site.count),
                    each.stored.scheme,
                )
            key = each.key[0], each.site.name, each.site.kind
            rows.setdefault(key, []).append(
                _Stored(list(each.site.shape), each.site.count, bits / 8, scheme)
            )
    results = []
    for (_, name, kind), stored in rows.items():
        most = max(stored, key=lambda each: each.values)
        values, taken = sum(each.values for each in stored), sum(each.size for each in stored)
        results.append(LayerWeights(name, kind, most.shape, values, round(taken), most.encoding))
    return results


def _compressed(
    weights: Sequence[FoundWeight], original: tuple[model_pb2.Model, Weights | None] | None
) -> list[WeightFacts]:
    known = {} if original is None else {each.key: each for each in found_weights(*original)}
    rows = []
    for each in weights:
        before = known.get(each.key)
        if each.stored is not None:
            rows.append(each.stored if before is None else _with_error(each, before))
    return rows


def _with_error(each: FoundWeight, before: FoundWeight) -> WeightFacts:
    stored = each.stored
    assert stored is not None
    one, other = (np.asarray(weight.values(), np.float64) for weight in (before, each))
    if one.shape != other.shape:
        return stored
    noise, signal = float(np.square(one - other).sum()), float(np.square(one).sum())
    snr = math.inf if noise == 0 else -math.inf
    if noise and signal:
        snr = 10 * math.log10(signal / noise)
    return replace(stored, snr=snr)


def found_weights(spec: model_pb2.Model, weights: Weights | None) -> Iterator[FoundWeight]:
    """All weights of a model, and of those inside of a pipeline; none of what cannot be read."""
    for place, inner in enumerate(networks.models_in(spec)):
        network = networks.network_of(inner)
        try:
            if network is not None:
                for layer in network_sites(network):
                    yield from (_of_network(place, site) for site in layer)
            elif inner.WhichOneof("Type") == "mlProgram":
                yield from _of_program(place, inner, weights or Weights())
        except MlferryError as error:
            logger.info("the weights of the model cannot be told: %s", error)


def _of_network(place: int, site: Site) -> FoundWeight:
    key = (place, site.name, site.field)
    encoding = site.encoding
    stored = None
    if encoding is not None and encoding.kind != stored_weights.FLOAT32:
        half = encoding.kind == stored_weights.FLOAT16
        stored = WeightFacts(
            str(site),
            list(site.shape),
            str(encoding),
            None if half else encoding.bits,
            [],
            8 * site.message.ByteSize() / max(1, site.count),
            place=(site.name, site.field),
        )
    return FoundWeight(key, stored, site)


def _of_program(place: int, spec: model_pb2.Model, weights: Weights) -> Iterator[FoundWeight]:
    for name in sorted(spec.mlProgram.functions):
        block, opset = read_function(spec.mlProgram.functions[name], weights)
        for site in program_sites(block, opset):
            key = (place, f"{name} {site.name}", site.field)
            yield FoundWeight(key, _stored(site, opset, name), site, name)


def _stored(site: ProgramSite, opset: int, function: str) -> WeightFacts | None:
    maker = site.value.maker
    if maker is None:
        return None
    bits = sum(DTYPES[v.dtype].bits * int(np.size(v.constant)) for v in _leaves(maker))
    shape = list(site.shape)
    place, each = (function, site.value.name), bits / max(1, site.count)
    if maker.op == "constexpr_cast":
        return WeightFacts(str(site), shape, "half precision", None, [], each, place=place)
    try:
        parts = CompressedParts.of(renewed(maker, opset))
    except MlferryError:
        return WeightFacts(str(site), shape, maker.op, None, [], each, place=place)
    words, code, block = _words(parts, shape)
    return WeightFacts(str(site), shape, words, code, block, each, place=place)


def _leaves(operation: Operation) -> set[Value]:
    """The constants that an operation makes a constant of, directly or through others."""
    leaves: set[Value] = set()
    for name, argument in operation.arguments.items():
        if isinstance(argument, Value) and name not in _FORMS:
            leaves |= {argument} if argument.maker is None else _leaves(argument.maker)
    return leaves


def _words(parts: CompressedParts, shape: Sequence[int]) -> tuple[str, int | None, list[int]]:
    """The scheme in words, the bits of a code, and what has a scale or table of its own."""
    words, bits, block = [], None, list[int]()
    if parts.mask is not None:
        words.append(f"{1 - np.count_nonzero(parts.mask) / max(1, parts.mask.size):.1%} zeros")
    if parts.codes is not None:
        bits = DTYPES[parts.kind].bits
    if parts.table is not None:
        *groups, _, length = (extent or 1 for extent in parts.table.shape)
        block = _block(shape, groups)
        scheme = f"{bits}-bit table" + (f" of vectors of {length}" if length > 1 else "")
        if parts.table.maker is not None:
            scheme += f" in {_code_of(parts.table)}"
        words.append(scheme + _each(shape, block))
        if parts.scale is not None:
            counts = [extent or 1 for extent in parts.scale.shape]
            words.append("scales" + _each(shape, _block(shape, counts)))
    elif parts.scale is not None:
        block = _block(shape, [extent or 1 for extent in parts.scale.shape])
        kind = f"{parts.kind} codes" + (" with zero points" if parts.offset is not None else "")
        words.append(kind + _each(shape, block))
    return ", ".join(words), bits, block


def _code_of(table: Value) -> str:
    """The type in which the entries of a quantized table are stored."""
    assert table.maker is not None
    data = table.maker.arguments.get("data")
    return data.dtype if isinstance(data, Value) else table.maker.op


def _block(shape: Sequence[int], counts: Sequence[int]) -> list[int]:
    return [extent // count for extent, count in zip(shape, counts, strict=True)]


def _each(shape: Sequence[int], block: Sequence[int]) -> str:
    if list(block) == list(shape):
        return ""
    return f", blocks of {' x '.join(map(str, block))}"
