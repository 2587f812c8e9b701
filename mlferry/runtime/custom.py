"""Find the classes of a network's custom layers, or say which are missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mlferry.custom import CUSTOM_LAYERS, CustomLayer, Instance, class_parameters_of
from mlferry.errors import MissingCustomLayerError, MlferryError, SpecError
from mlferry.layers.trace import CustomShapes
from mlferry.numerics.shapes import Shape
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.text import identifier, paragraph

CustomClasses = Mapping[str, type[CustomLayer]]


def resolve(
    layers: Iterable[nn.NeuralNetworkLayer], own: CustomClasses | None = None
) -> dict[str, type[CustomLayer]]:
    """The class of every custom layer: classes given with the model come before registered ones.

    Raises:
        MissingCustomLayerError: classes are missing; the message names all of them.
    """
    classes: dict[str, type[CustomLayer]] = {}
    missing: dict[str, nn.NeuralNetworkLayer] = {}
    for layer in layers:
        name = layer.custom.className
        entry = CUSTOM_LAYERS.find(name)
        if own is not None and name in own:
            classes[name] = own[name]
        elif entry is not None:
            classes[name] = entry.value
        else:
            missing.setdefault(name, layer)
    if missing:
        raise MissingCustomLayerError(_explain(missing), list(missing))
    return classes


def _explain(missing: Mapping[str, nn.NeuralNetworkLayer]) -> str:
    lines = [
        f"the model needs {len(missing)} custom layer "
        f"{'class that is' if len(missing) == 1 else 'classes that are'} not registered:"
    ]
    for name, layer in missing.items():
        lines.append(f"  - {name}, e.g. layer {layer.name!r}")
        if layer.custom.description:
            lines.append(f"      description: {layer.custom.description}")
        text = ", ".join(f"{k}={v!r}" for k, v in class_parameters_of(layer.custom).items())
        lines.append(f"      parameters: {text or 'none'}; weights: {len(layer.custom.weights)}")
    lines.append("write and register each before the model predicts:")
    for name in missing:
        lines += [
            "",
            f"@mlferry.register_custom_layer({name!r})",
            f"class {identifier(name)}(mlferry.CustomLayer):",
            "    def output_shapes(self, input_shapes):",
            "        return list(input_shapes)",
            "",
            "    def evaluate(self, inputs):",
            "        ...  # self.parameters and self.weights hold what the model carries",
            "        return outputs",
        ]
    return paragraph(lines)


def shapes_of_classes(classes: CustomClasses, *, collected: bool = True) -> CustomShapes:
    """Ask the classes of custom layers, given and registered ones, for their output shapes.

    Args:
        classes: those given, by class name.
        collected: whether an error of a class becomes a `SpecError`, which `trace` collects.
    """

    def custom(layer: nn.NeuralNetworkLayer, shapes: Sequence[Shape]) -> Sequence[Shape] | None:
        name = layer.custom.className
        entry = CUSTOM_LAYERS.find(name)
        custom_class = classes.get(name) or (entry.value if entry is not None else None)
        known = [tuple(e for e in shape if e is not None) for shape in shapes]
        if custom_class is None or any(len(a) < len(b) for a, b in zip(known, shapes, strict=True)):
            return None
        try:
            instance = Instance(layer.name, custom_class, layer.custom, len(layer.output))
            return instance.output_shapes(known)
        except MlferryError as error:
            if not collected:
                raise
            raise SpecError(str(error)) from error

    return custom
