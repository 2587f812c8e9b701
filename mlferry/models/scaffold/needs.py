"""The parameters of the classes of a model, over all layers that use them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mlferry.custom import LAYOUT_KEY, class_parameters_of, model_parameters_of, weight_shapes_of
from mlferry.errors import SpecError
from mlferry.spec import features, networks, weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.text import identifier

_WORDS = re.compile(
    r"\d+[A-Z]+(?![a-z])"  # 2D
    r"|\d+[a-z]*"
    r"|[A-Z]?[a-z]+(?:\d+[a-z]+)*(?:\d+(?![A-Za-z\d]))?"  # Grid, conv2d, Sampler3
    r"|[A-Z]+(?![a-z])(?:\d+(?![A-Za-z\d]))?|[A-Z]"  # HTTP, LU6
)

KINDS = ("bool", "int", "float", "str", "bytes")
_DEVICES = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)),
}


@dataclass(frozen=True)
class NeededParameter:
    """A parameter: its key in the model, its kind, whether all layers have it, an example."""

    key: str
    kind: str
    optional: bool
    example: Any


@dataclass
class Need:
    """A class that a model needs.

    Attributes:
        class_name: as in the model.
        is_model: a custom model, not a custom layer.
        descriptions: what the model says, once each.
        parameters: those that its instances get.
        uses: the layers that use it: name, inputs and outputs.
        weights: the encoding and count of each weight of the first layer that has any.
        weight_shapes: their names and shapes, where the model tells them.
        channels_first: whether its data come channels first; None if the model does not say.
        inputs, outputs: of a custom model, by name and type.
    """

    class_name: str
    is_model: bool
    descriptions: list[str] = field(default_factory=list)
    parameters: list[NeededParameter] = field(default_factory=list)
    uses: list[tuple[str, int, int]] = field(default_factory=list)
    weights: list[tuple[str, int]] = field(default_factory=list)
    weight_shapes: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)
    channels_first: bool | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def identifier(self) -> str:
        """The class's name as an identifier of both languages."""
        return identifier(self.class_name)

    def described(self, index: int) -> str:
        """A weight by its name and shape, or by its count if the model does not name it."""
        kind, count = self.weights[index]
        if not self.weight_shapes:
            return f"{count:,} values, {kind}"
        name, shape = self.weight_shapes[index]
        return f"{name}: {' x '.join(map(str, shape)) or 'one value'}, {kind}"

    @property
    def module(self) -> str:
        """The name of the Python file, in snake case.

        ``GridSampler`` is in ``grid_sampler.py``, ``HTTPLayer`` in ``http_layer.py``, and
        ``Attention2D`` in ``attention_2d.py``. Windows keeps some names for devices: ``Con`` is in
        ``con_.py``.
        """
        name = "_".join(_WORDS.findall(self.identifier)).lower()
        if name in _DEVICES:
            return f"{name}_"
        return name if name.isidentifier() else f"_{name}"


def needs_of(spec: model_pb2.Model) -> list[Need]:
    """Every class that a model needs, in the order of their first use.

    Raises:
        SpecError: there is none, or two of them would have one name.
    """
    needs: dict[tuple[str, bool], Need] = {}
    values: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for key, parameters, description, fill in _users(spec):
        need = needs.setdefault(key, Need(*key))
        values.setdefault(key, []).append(parameters)
        if description and description not in need.descriptions:
            need.descriptions.append(description)
        fill(need)
    for key, need in needs.items():
        need.parameters = list(_parameters(values[key]))
    if not needs:
        raise SpecError("the model has no custom layers and no custom models: it needs no class")
    files = [need.module for need in needs.values()]
    twice = sorted({name for name in files if files.count(name) > 1})
    if twice:
        raise SpecError(f"several classes would go to one file: {', '.join(twice)}")
    return list(needs.values())


def _users(spec: model_pb2.Model) -> Iterator[tuple[tuple[str, bool], Any, str, Any]]:
    for model in networks.models_in(spec):
        if model.WhichOneof("Type") == "customModel":
            params = model.customModel
            yield (
                (params.className, True),
                model_parameters_of(params),
                params.description,
                lambda need, model=model: _fill_model(need, model),
            )
        network = networks.network_of(model)
        metadata = model.description.metadata.userDefined
        for layer in networks.layers_of(network) if network is not None else ():
            if layer.HasField("custom"):
                yield (
                    (layer.custom.className, False),
                    class_parameters_of(layer.custom),
                    layer.custom.description,
                    lambda need, layer=layer, entries=metadata: _fill_layer(need, layer, entries),
                )


def _fill_layer(need: Need, layer: nn.NeuralNetworkLayer, metadata: Mapping[str, str]) -> None:
    need.uses.append((layer.name, len(layer.input), len(layer.output)))
    order = metadata.get(LAYOUT_KEY + layer.name)
    if order is not None:
        need.channels_first = order != "source"
    if not need.weights:
        need.weight_shapes = weight_shapes_of(layer.custom)
        for weight in layer.custom.weights:
            kind = weights.encoding(weight)
            need.weights.append((kind.kind if kind else weights.RAW, weights.count(weight)))


def _fill_model(need: Need, spec: model_pb2.Model) -> None:
    for target, described in (
        (need.inputs, spec.description.input),
        (need.outputs, spec.description.output),
    ):
        target.update({feature.name: features.show(feature.type) for feature in described})


def _parameters(users: list[Mapping[str, Any]]) -> Iterator[NeededParameter]:
    for key in sorted({key for user in users for key in user}):
        values = [user[key] for user in users if key in user]
        kinds = {type(value).__name__ for value in values}
        kind = kinds.pop() if len(kinds) == 1 else "float" if kinds <= {"int", "float"} else "str"
        yield NeededParameter(key, kind, len(values) < len(users), values[0])


def needed_name(key: str) -> str:
    """The key of a parameter as the name of a Swift property: ``output_height``, `outputHeight`."""
    first, *rest = [part for part in identifier(key).split("_") if part] or ["value"]
    name = first[0].lower() + first[1:] + "".join(part[0].upper() + part[1:] for part in rest)
    if name[0].isdigit():
        name = f"value{name}"
    return f"{name}Value" if name in _SWIFT else name


_SWIFT = frozenset(
    [
        *("Any", "Self", "Type", "actor", "as", "associatedtype"),
        *("associativity", "await", "break", "case"),
        *("catch", "class", "continue", "convenience", "default"),
        *("defer", "deinit", "do", "dynamic", "else"),
        *("enum", "extension", "fallthrough", "false"),
        *("fileprivate", "final", "for", "func", "get", "guard"),
        *("if", "import", "in", "indirect", "infix", "init"),
        *("inout", "internal", "is", "isolated", "lazy", "left"),
        *("let", "mutating", "nil", "nonisolated", "none"),
        *("nonmutating", "open", "operator", "optional"),
        *("override", "postfix", "precedence", "precedencegroup", "prefix", "private", "protocol"),
        *("public", "repeat", "required", "rethrows", "return"),
        *("right", "self", "set", "some", "static"),
        *("struct", "subscript", "super", "switch", "throw"),
        *("throws", "true", "try", "typealias", "unowned"),
        *("var", "weak", "where", "while", "willSet", "yield", "parameters", "weights"),
    ]
)
