"""Unit tests in Swift: inputs, and the outputs of the Python class."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.custom import Instance, Shape, parameters_of
from mlferry.errors import CustomLayerError, SpecError
from mlferry.models.model import MLModel
from mlferry.models.scaffold.swift import string_literal
from mlferry.runtime.custom import resolve
from mlferry.spec import networks, weights
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.text import identifier

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Example:
    """Inputs of a layer, and the outputs of its Python class.

    Attributes:
        name: describes the inputs, as part of the name of a test.
        inputs: arrays for the layer.
        outputs: what came back.
    """

    name: str
    inputs: Sequence[Array]
    outputs: Sequence[Array]


def swift_test(model: MLModel, layer: nn.NeuralNetworkLayer, shapes: Sequence[Shape]) -> str:
    """The file that tests the class of one layer.

    Args:
        model: with the Python class.
        layer: a custom layer of it.
        shapes: of the layer's inputs for a sample.

    Raises:
        CustomLayerError: the Python class raised, or its outputs do not have the shapes that it
            declared.
        MissingCustomLayerError: there is no Python class.
    """
    (cls,) = resolve([layer], model._classes.layers).values()
    instance = Instance(layer.name, cls, layer.custom, len(layer.output))
    examples = list(_examples(instance, shapes))
    name = identifier(layer.custom.className)
    return "\n".join(_file(name, layer, examples)) + "\n"


def _examples(instance: Instance, shapes: Sequence[Shape]) -> Iterator[Example]:
    """Random and edge values in the sample's shapes; random ones in other accepted shapes.

    Values for which the Python class gives no finite number are left out.
    """
    random = np.random.default_rng(0)

    def normal(shape: Shape) -> Array:
        return random.standard_normal(shape).astype(np.float32)

    values: dict[str, Callable[[Shape], Array]] = {
        "Random": normal,
        "Zeros": lambda shape: np.zeros(shape, np.float32),
        "Small": lambda shape: normal(shape) * np.float32(1e-6),
        "Large": lambda shape: normal(shape) * np.float32(100),
    }
    for name, make in values.items():
        inputs = [make(shape) for shape in shapes]
        outputs = instance.evaluate(inputs)
        if all(np.isfinite(array).all() for array in outputs):
            yield Example(name, inputs, outputs)
    for name, other in _other_shapes(shapes):
        inputs = [normal(shape) for shape in other]
        try:
            outputs = instance.evaluate(inputs)
        except CustomLayerError:  # the layer does not accept this shape
            continue
        if all(np.isfinite(array).all() for array in outputs):
            yield Example(name, inputs, outputs)


def _other_shapes(shapes: Sequence[Shape]) -> Iterator[tuple[str, list[Shape]]]:
    yield "BatchOfTwo", [(2, *shape[1:]) for shape in shapes]
    for axis in (1, 2):
        if any(len(shape) > 2 for shape in shapes):
            yield (
                f"LongerAxis{axis}",
                [
                    (*shape[:axis], shape[axis] + 1, *shape[axis + 1 :])
                    if len(shape) > max(axis, 2)
                    else shape
                    for shape in shapes
                ],
            )


# ---- the file --------------------------------------------------------------------------


def _file(name: str, layer: nn.NeuralNetworkLayer, examples: Sequence[Example]) -> Iterator[str]:
    yield f"// {name}Tests.swift: add it to a test target of the app, beside {name}.swift."
    literal = string_literal(layer.name)
    yield f"// The values are those that the Python class gave for layer {literal}."
    yield ""
    yield "import CoreML"
    yield "import XCTest"
    yield ""
    yield f"final class {name}Tests: XCTestCase {{"
    yield f"    private func layer() throws -> {name} {{"
    yield f"        let made = try {name}(parameters: ["
    parameters = parameters_of(layer.custom)
    for key, value in parameters.items():
        yield f"            {string_literal(key)}: {_literal(value)},"
    yield "        ])" if parameters else "            :])"
    if layer.custom.weights:
        yield "        try made.setWeightData(["
        for weight in layer.custom.weights:
            yield f"            {_data(_bytes(weight))},"
        yield "        ])"
    yield "        return made"
    yield "    }"
    for example in examples:
        yield ""
        yield from _test(example)
    yield ""
    yield from _HELPERS.strip("\n").splitlines()
    yield "}"


def _test(example: Example) -> Iterator[str]:
    yield f"    func test{example.name}() throws {{"
    yield "        try check("
    yield "            inputs: ["
    yield from (f"                {_array(array)}," for array in example.inputs)
    yield "            ],"
    yield "            outputs: ["
    yield from (f"                {_array(array)}," for array in example.outputs)
    yield "            ])"
    yield "    }"


def _array(array: Array) -> str:
    extents = ", ".join(map(str, array.shape))
    return f"try array([{extents}], {_data(np.ascontiguousarray(array, '<f4').tobytes())})"


def _data(content: bytes) -> str:
    return f'Data(base64Encoded: "{base64.b64encode(content).decode()}")!'


def _bytes(weight: nn.WeightParams) -> bytes:
    array: NDArray[Any] = weights.stored(weight)
    return np.ascontiguousarray(array).tobytes()


def _literal(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string_literal(value)
    return repr(value)


_HELPERS = """
    private func array(_ shape: [Int], _ data: Data) throws -> MLMultiArray {
        let made = try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: .float32)
        let values = data.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
        for (index, value) in values.enumerated() {
            made[index] = NSNumber(value: value)
        }
        return made
    }

    private func check(inputs: [MLMultiArray], outputs: [MLMultiArray]) throws {
        let layer = try self.layer()
        let shapes = try layer.outputShapes(forInputShapes: inputs.map { $0.shape })
        XCTAssertEqual(shapes, outputs.map { $0.shape })
        let made = try shapes.map { try MLMultiArray(shape: $0, dataType: .float32) }
        try layer.evaluate(inputs: inputs, outputs: made)
        for (one, wanted) in zip(made, outputs) {
            let largest = (0..<wanted.count).map { abs(wanted[$0].floatValue) }.max() ?? 0
            for index in 0..<wanted.count {
                XCTAssertEqual(
                    one[index].floatValue, wanted[index].floatValue,
                    accuracy: 1e-4 * max(largest, 1e-3), "value \\\\(index)")
            }
        }
    }
"""


def swift_tests(model: MLModel, sample: Mapping[str, Any]) -> dict[str, str]:
    """A Swift test for each class of custom layers that runs here; text by file name.

    Args:
        model: with custom layers whose Python classes are registered, or given to it.
        sample: inputs as for `MLModel.predict`, which give the shapes that the layers get.

    Raises:
        SpecError: the model has no custom layers outside of branches and loops.
        CustomLayerError: a class raised.
        PredictionError: the sample does not fit.
    """
    network = networks.network_of(model.get_spec())
    layers = [] if network is None else [la for la in network.layers if la.HasField("custom")]
    if not layers:
        raise SpecError("the model has no custom layers outside of pipelines, branches and loops")
    names = list(dict.fromkeys(name for layer in layers for name in layer.input))
    blobs = model.blobs(sample, names)
    files: dict[str, str] = {}
    for layer in layers:
        file = f"{identifier(layer.custom.className)}Tests.swift"
        if file not in files:
            shapes = [blobs[name].shape for name in layer.input]
            files[file] = swift_test(model, layer, shapes)
    return files
