"""The summary of a model: what Xcode shows when one opens it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mlferry.custom import LAYOUT_KEY, parameters_of
from mlferry.spec import features, networks, versions, weights
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn

_ORDERS = {"source": "in the source's order of axes", "channels first": "channels first"}
_METADATA = (
    ("description", "shortDescription"),
    ("author", "author"),
    ("licence", "license"),
    ("version", "versionString"),
)


def summary(spec: model_pb2.Model) -> str:
    """Kind, size, required systems, metadata, inputs, outputs, weights and dependencies."""
    size = spec.ByteSize()
    lines = [f"Core ML model: {spec.WhichOneof('Type')}, {readable_size(size)}"]
    lines.append(f"  specification version {spec.specificationVersion}{_systems(spec)}")
    metadata = spec.description.metadata
    for label, field in _METADATA:
        if getattr(metadata, field):
            lines.append(f"  {label}: {getattr(metadata, field)}")
    for title, described in (
        ("inputs", spec.description.input),
        ("outputs", spec.description.output),
    ):
        lines.append(f"{title}:")
        for feature in described:
            text = f"  {feature.name}: {features.show(feature.type)}"
            note = feature.shortDescription
            lines.append(f"{text}  ({note})" if note else text)
    network = networks.network_of(spec)
    if network is not None:
        lines += _network_lines(network, dict(spec.description.metadata.userDefined))
    return "\n".join(lines)


def _systems(spec: model_pb2.Model) -> str:
    if not 1 <= spec.specificationVersion <= versions.NEWEST:
        return ""
    needs = versions.release(spec.specificationVersion)
    return f": iOS {needs.ios}, macOS {needs.macos}, tvOS {needs.tvos}, watchOS {needs.watchos}"


def _network_lines(network: networks.Network, metadata: Mapping[str, str]) -> list[str]:
    layers = list(networks.layers_of(network))
    kinds = Counter(layer.WhichOneof("layer") or "unknown" for layer in layers)
    shown = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    lines = [f"layers: {len(layers)} ({shown})"]
    stored: Counter[str] = Counter()
    for weight in weights.iter_weights(network):
        kind = weights.encoding(weight.message)
        if kind is not None:
            stored[str(kind)] += weights.count(weight.message)
    numbers = ", ".join(f"{count:,} {kind}" for kind, count in stored.most_common())
    lines.append(f"weights: {numbers or 'none'}")
    custom = [layer for layer in layers if layer.HasField("custom")]
    lines += _dependency_lines(custom, metadata)
    return lines


def _dependency_lines(
    custom: list[nn.NeuralNetworkLayer], metadata: Mapping[str, str]
) -> list[str]:
    if not custom:
        return []
    lines = ["dependencies:"]
    for layer in custom:
        lines.append(f"  custom layer {layer.custom.className} ({layer.name})")
        if layer.custom.description:
            lines.append(f"    description: {layer.custom.description}")
        for name, value in parameters_of(layer.custom).items():
            lines.append(f"    parameter {name}: {value!r}")
        order = metadata.get(LAYOUT_KEY + layer.name)
        if order is not None:
            lines.append(f"    data: {_ORDERS.get(order, order)}")
        for index, weight in enumerate(layer.custom.weights):
            kind = weights.encoding(weight)
            lines.append(f"    weight {index}: {weights.count(weight):,} {kind or 'values'}")
    return lines


def readable_size(size: int) -> str:
    """Bytes for people: ``1.3 MB`` (a megabyte is a million bytes, as Finder counts)."""
    amount = float(size)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"
