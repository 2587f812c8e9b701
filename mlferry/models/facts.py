"""The facts about a model, and how they print."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mlferry.spec import networks
from mlferry.text import indented, printable

_LABELS_SHOWN = 6
_LAYERS_SHOWN = 4


@dataclass(frozen=True)
class DescribedFeature:
    """An input or output: its name, its type as text, and its author's description."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Dependency:
    """A class that an app must bring.

    Attributes:
        kind: "custom layer" or "custom model".
        class_name: of the class, in Swift and in Python.
        name: of the layer; of a model: where it is.
        description: what the model says about it.
        parameters: what the class is made with.
        weights: count and encoding of each of its weights.
        data: the order of axes of its data; empty if the model does not say.
    """

    kind: str
    class_name: str
    name: str
    description: str
    parameters: dict[str, Any]
    weights: list[str]
    data: str

    def title(self) -> str:
        """The kind and the class, and where it is."""
        where = f" ({self.name})" if self.name else ""
        return f"{self.kind} {self.class_name}{where}"

    def details(self) -> Iterator[tuple[str, str]]:
        """Label and value of each fact."""
        if self.description:
            yield "description", self.description
        for name, value in self.parameters.items():
            yield f"parameter {name}", repr(value)
        if self.data:
            yield "data", self.data
        for index, weight in enumerate(self.weights):
            yield f"weight {index}", weight


@dataclass(frozen=True)
class WeightFacts:
    """A compressed weight.

    Attributes:
        weight: its parameter and what reads it.
        shape: of its values.
        scheme: as text.
        bits: of a code or index; None for half precision and for weights that are only pruned.
        block: the extents of a block with its own scale or table; empty if there are no blocks.
        bits_per_value: of everything stored for it, including tables, scales and masks.
        snr: of its values against the original's, in dB; infinite where they are the same, None
            where no original is given or it has no such weight.
        place: its function, or layer, and its name there.
    """

    weight: str
    shape: list[int]
    scheme: str
    bits: int | None
    block: list[int]
    bits_per_value: float
    snr: float | None = None
    place: tuple[str, str] = field(default=("", ""), repr=False)

    def cells(self) -> tuple[str, str, str, str, str]:
        """What a table shows: weight, shape, scheme, bits a value, and decibels."""
        snr = "" if self.snr is None else "exact" if math.isinf(self.snr) else f"{self.snr:.1f} dB"
        shape = " x ".join(map(str, self.shape))
        return self.weight, shape, self.scheme, f"{self.bits_per_value:.2f} bits a value", snr

    def text(self) -> str:
        """Its encoding, and how far it is from the original."""
        _, _, *rest = self.cells()
        return ", ".join(each for each in rest if each)


@dataclass(frozen=True)
class LayerWeights:
    """The weights of a layer, or of an operation of a program.

    Attributes:
        layer: its name.
        kind: of the layer.
        shape: of its largest weight; empty if nothing tells.
        count: how many values it has in all.
        size: their bytes.
        encoding: of the largest weight.
    """

    layer: str
    kind: str
    shape: list[int]
    count: int
    size: int
    encoding: str


@dataclass(frozen=True)
class NeededClass:
    """A class that an app must bring, over all layers that use it.

    Attributes:
        kind: "custom layer" or "custom model".
        class_name: of the class.
        uses: the names of the layers.
        details: label and value; values that not all layers share name their layers.
    """

    kind: str
    class_name: str
    uses: list[str]
    details: list[tuple[str, str]]

    def title(self) -> str:
        """The kind and the class, and where it is."""
        names = [name for name in self.uses if name]
        if not names:
            return f"{self.kind} {self.class_name}"
        if len(names) == 1:
            return f"{self.kind} {self.class_name} ({names[0]})"
        text = ", ".join(names[:_LAYERS_SHOWN]) + (", ..." if len(names) > _LAYERS_SHOWN else "")
        return f"{self.kind} {self.class_name} ({len(names)} layers: {text})"

    @classmethod
    def of(cls, dependencies: Sequence[Dependency]) -> NeededClass:
        """All uses of one class together."""
        users: dict[str, dict[str, list[str]]] = {}
        for each in dependencies:
            for label, value in each.details():
                users.setdefault(label, {}).setdefault(value, []).append(each.name)
        details = []
        for label, values in users.items():
            for value, names in values.items():
                of = ", ".join(names[:_LAYERS_SHOWN]) + ", ..." * (len(names) > _LAYERS_SHOWN)
                details.append(
                    (label, value if len(names) == len(dependencies) else f"{value} ({of})")
                )
        return cls(
            dependencies[0].kind,
            dependencies[0].class_name,
            [each.name for each in dependencies],
            details,
        )


@dataclass(frozen=True)
class Facts:
    """The facts about a model; prints as text.

    Attributes:
        kind: Core ML's name of the kind of model.
        size: in bytes.
        specification_version: of the format.
        systems: the first release of each system that reads the model.
        metadata: description, author, licence, version, and other entries of the author's.
        inputs, outputs: the interface; of a model with several functions, that of the default one.
        states: what an ML Program keeps from one prediction to the next.
        functions: those of an ML Program, with their opsets.
        labels: class labels of a classifier.
        updatable: whether a device can train the model.
        updatable_layers: the names of the layers that training changes.
        training_inputs: what training takes.
        layers: how many layers of each kind.
        weights: how many weights of each encoding.
        dependencies: custom layers and custom models, those inside of pipelines too.
        problems: what breaks the format's rules, as "severity: where: message".
        models: those inside of a pipeline.
        compressed: the compressed weights, and how far they are from an original; of a pipeline,
            those of all models.
        by_layer: the weights of every layer that has any; of a pipeline, those of all models.
    """

    kind: str
    size: int
    specification_version: int
    systems: dict[str, str]
    metadata: dict[str, str]
    inputs: list[DescribedFeature]
    outputs: list[DescribedFeature]
    states: list[DescribedFeature]
    functions: list[str]
    labels: list[str]
    updatable: bool
    updatable_layers: list[str]
    training_inputs: list[DescribedFeature]
    layers: dict[str, int]
    weights: dict[str, int]
    dependencies: list[Dependency]
    problems: list[str]
    models: Sequence[Facts]
    compressed: list[WeightFacts] = field(default_factory=list)
    by_layer: list[LayerWeights] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain dicts, lists, numbers and strings."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def facts(self) -> Iterator[tuple[str, str]]:
        """Label and value of each fact that fits on a line."""
        systems = ", ".join(f"{name} {first}" for name, first in self.systems.items())
        version = str(self.specification_version)
        yield "specification version", f"{version}, {systems}" if systems else version
        if self.functions:
            yield "functions", ", ".join(self.functions)
        if self.updatable:
            yield "updatable on a device", ", ".join(self.updatable_layers) or "yes"
        yield from self.metadata.items()

    def classes(self) -> list[NeededClass]:
        """The dependencies, each class once."""
        by_class: dict[tuple[str, str], list[Dependency]] = {}
        for each in self.dependencies:
            by_class.setdefault((each.kind, each.class_name), []).append(each)
        return [NeededClass.of(each) for each in by_class.values()]

    def interface(self) -> Iterator[tuple[str, list[DescribedFeature]]]:
        """Title and features of each group; the training inputs if there are any."""
        yield "inputs", self.inputs
        yield "outputs", self.outputs
        if self.states:
            yield "states", self.states
        if self.training_inputs:
            yield "training inputs", self.training_inputs

    def layer_text(self) -> str:
        """All layers in one line."""
        text = ", ".join(f"{kind} {count}" for kind, count in self.layers.items())
        return f"{sum(self.layers.values())} ({text})" if text else "none"

    def weight_text(self) -> str:
        """All weights in one line."""
        return ", ".join(f"{count:,} {kind}" for kind, count in self.weights.items()) or "none"

    def label_text(self) -> str:
        """How many labels there are, and the first ones."""
        first = ", ".join(self.labels[:_LABELS_SHOWN])
        more = ", ..." if len(self.labels) > _LABELS_SHOWN else ""
        return f"{len(self.labels)} ({first}{more})"

    @property
    def has_network(self) -> bool:
        """Whether the model, or one inside of it, is a neural network or an ML Program."""
        own = self.kind in (*networks.NETWORK_KINDS, "mlProgram")
        return own or any(one.has_network for one in self.models)

    @property
    def parts(self) -> str:
        """What the model consists of: "layers" or "operations"."""
        kinds = {self.kind, *(model.kind for model in self.models)}
        if "mlProgram" not in kinds:
            return "layers"
        return "layers and operations" if kinds & set(networks.NETWORK_KINDS) else "operations"

    def __str__(self) -> str:
        lines = [f"Core ML model: {self.kind}, {readable_size(self.size)}"]
        lines += [f"  {printable(label)}: {indented(value, 4)}" for label, value in self.facts()]
        for title, described in self.interface():
            lines.append(f"{title}:")
            for feature in described:
                text = f"  {printable(feature.name)}: {printable(feature.type)}"
                note = indented(feature.description, 4)
                lines.append(f"{text}  ({note})" if note else text)
        if self.labels:
            lines.append(f"labels: {printable(self.label_text())}")
        if self.models:
            lines.append(f"models: {', '.join(model.kind for model in self.models)}")
        if self.has_network:
            lines += [f"{self.parts}: {self.layer_text()}", f"weights: {self.weight_text()}"]
        if self.compressed:
            lines.append("compressed weights:")
            lines += [
                printable(f"  {each.weight} {each.shape}: {each.text()}")
                for each in self.compressed
            ]
        if self.dependencies:
            lines.append("dependencies:")
        for needed in self.classes():
            lines.append(printable(f"  {needed.title()}"))
            lines += [
                f"    {printable(label)}: {indented(value, 6)}" for label, value in needed.details
            ]
        if self.problems:
            lines += ["problems:", *(f"  {problem}" for problem in self.problems)]
        return "\n".join(lines)


def _plain(value: object) -> Any:
    """Bytes, a possible parameter of custom models, as hexadecimal digits.

    Numbers that JSON lacks become text.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def readable_size(size: int) -> str:
    """Bytes for people: ``1.3 MB`` (a megabyte is a million bytes, as Finder counts)."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
