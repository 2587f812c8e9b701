"""A Swift package around a model, with tests that it predicts what it predicts here."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlferry.errors import SpecError
from mlferry.models.model import MLModel
from mlferry.models.scaffold.needs import needs_of
from mlferry.models.scaffold.swift import string_literal, swift_class
from mlferry.models.scaffold.swift_test import swift_tests
from mlferry.spec import features, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from mlferry.text import identifier

_FORMATS = {
    ft.ImageFeatureType.GRAYSCALE: ("kCVPixelFormatType_OneComponent8", 1),
    ft.ImageFeatureType.RGB: ("kCVPixelFormatType_32BGRA", 4),
    ft.ImageFeatureType.BGR: ("kCVPixelFormatType_32BGRA", 4),
}
_TOLERANCE = 0.02  # of the largest value: devices compute in half precision


def app_files(model: MLModel, name: str, sample: Mapping[str, Any]) -> dict[str, str | bytes]:
    """The files of a Swift package, by their path in it.

    It holds the model, which it compiles when it starts, the classes of custom layers, a command
    that reads a picture where the model takes one, and tests with the values that mlferry computes.

    Args:
        model: a neural network, with the Python classes of its custom layers.
        name: of the package and of its Swift type.
        sample: inputs as for `MLModel.predict`.

    Raises:
        SpecError: the model is an `.mlpackage`, has no network, or an input or output other than
            images, multi-arrays, labels and their chances.
        MissingCustomLayerError: a custom layer has no Python class.
        PredictionError: the sample does not fit.
    """
    spec = model.get_spec()
    if networks.network_of(spec) is None:
        raise SpecError("an app needs a neural network, an .mlmodel")
    missing = [f.name for f in spec.description.input if f.name not in sample]
    if missing:
        raise SpecError(f"the sample has no {missing[0]!r}: the test of the app needs every input")
    swift = identifier(name)
    outputs = model.predict(sample)
    assert isinstance(outputs, dict)
    sources, tests = f"Sources/{swift}", f"Tests/{swift}Tests"
    with tempfile.TemporaryDirectory() as folder:
        content = model.save(Path(folder) / f"{swift}.mlmodel").read_bytes()
    files: dict[str, str | bytes] = {
        "Package.swift": _package(swift),
        "README.md": _readme(swift, spec),
        f"{sources}/{swift}.swift": "\n".join(_type(swift, spec)) + "\n",
        f"{sources}/Resources/{swift}.mlmodel": content,
        f"{tests}/{swift}Tests.swift": "\n".join(_tests(swift, spec, sample, outputs)) + "\n",
    }
    if any(layer.HasField("custom") for layer in _layers(spec)):
        for need in needs_of(spec):
            files[f"{sources}/{need.identifier}.swift"] = swift_class(need)
        for file, text in swift_tests(model, sample).items():
            files[f"{tests}/{file}"] = text.replace(
                "import XCTest\n", f"import XCTest\n\n@testable import {swift}\n", 1
            )
    return files


def _layers(spec: model_pb2.Model) -> list[Any]:
    network = networks.network_of(spec)
    return [] if network is None else list(networks.layers_of(network))


def _package(name: str) -> str:
    return f"""// swift-tools-version:5.9

import PackageDescription

let package = Package(
    name: "{name}",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "{name}", targets: ["{name}"])],
    targets: [
        .target(name: "{name}", resources: [.copy("Resources/{name}.mlmodel")]),
        .testTarget(name: "{name}Tests", dependencies: ["{name}"]),
    ]
)
"""


def _readme(name: str, spec: model_pb2.Model) -> str:
    custom = sorted({la.custom.className for la in _layers(spec) if la.HasField("custom")})
    lines = [
        f"# {name}",
        "",
        f"A Swift package around `{name}.mlmodel`, written by `mlferry scaffold --app`.",
        "",
        "- `swift test` on a Mac predicts the sample and compares with what mlferry computed.",
        f"- In an app: add the package to the project, `import {name}`, and call",
        f"  `try {name}().predict(...)`.",
    ]
    if custom:
        lines.append(f"- To write: `evaluate` of {', '.join(f'`{each}`' for each in custom)}.")
    lines += [
        "",
        "Its Swift was parsed by a grammar of the language where it was written, not compiled:",
        "there is no Mac there. What a compiler says comes first.",
    ]
    return "\n".join(lines) + "\n"


def _type(name: str, spec: model_pb2.Model) -> Iterator[str]:
    described = spec.description
    arguments = ", ".join(f"{_argument(f)}: {_swift_type(f)}" for f in described.input)
    yield f"// {name}.swift: the model, compiled when it is first used."
    yield from ("", "import CoreML", "import CoreVideo", "import Foundation", "")
    if described.metadata.shortDescription:
        yield from (
            f"/// {line}".rstrip() for line in described.metadata.shortDescription.splitlines()
        )
    yield f"public final class {name} {{"
    yield "    public let model: MLModel"
    yield ""
    yield "    public init(configuration: MLModelConfiguration = MLModelConfiguration()) throws {"
    yield f'        guard let file = Bundle.module.url(forResource: "{name}",'
    yield '            withExtension: "mlmodel") else {'
    yield "            throw CocoaError(.fileNoSuchFile)"
    yield "        }"
    yield "        let compiled = try MLModel.compileModel(at: file)"
    yield "        model = try MLModel(contentsOf: compiled, configuration: configuration)"
    yield "    }"
    yield ""
    yield f"    public func predict({arguments}) throws -> MLFeatureProvider {{"
    yield "        let inputs = try MLDictionaryFeatureProvider(dictionary: ["
    for feature in described.input:
        kind = "pixelBuffer" if _is_image(feature) else "multiArray"
        value = f"MLFeatureValue({kind}: {_argument(feature)})"
        yield f"            {string_literal(feature.name)}: {value},"
    yield "        ])"
    yield "        return try model.prediction(from: inputs)"
    yield "    }"
    yield "}"


def _argument(feature: model_pb2.FeatureDescription) -> str:
    name = identifier(feature.name)
    return name if name not in ("in", "is", "as", "inout") else f"{name}_"


def _is_image(feature: model_pb2.FeatureDescription) -> bool:
    return bool(feature.type.HasField("imageType"))


def _swift_type(feature: model_pb2.FeatureDescription) -> str:
    if _is_image(feature):
        if feature.type.imageType.colorSpace in _FORMATS:
            return "CVPixelBuffer"
    elif feature.type.HasField("multiArrayType"):
        return "MLMultiArray"
    raise SpecError(
        f"input {feature.name!r} is {features.show(feature.type)}: an app takes "
        "multi-arrays and 8-bit images"
    )


# ---- tests --------------------------------------------------------------------------------------


def _tests(
    name: str, spec: model_pb2.Model, sample: Mapping[str, Any], outputs: Mapping[str, Any]
) -> Iterator[str]:
    described = spec.description
    yield f"// {name}Tests.swift: the values are those that mlferry computed for the sample."
    yield from ("", "import CoreML", "import CoreVideo", "import XCTest", "")
    yield f"@testable import {name}"
    yield ""
    yield f"final class {name}Tests: XCTestCase {{"
    yield "    func testTheSample() throws {"
    arguments = ", ".join(
        f"{_argument(feature)}: {_argument_value(feature, sample[feature.name])}"
        for feature in described.input
    )
    yield f"        let made = try {name}().predict({arguments})"
    for feature in described.output:
        yield from _compared(feature.name, outputs[feature.name])
    yield "    }"
    yield from _HELPERS.rstrip("\n").splitlines()
    yield "}"


def _argument_value(feature: model_pb2.FeatureDescription, value: ArrayLike) -> str:
    if not _is_image(feature):
        array = np.ascontiguousarray(value, "<f4")
        extents = ", ".join(map(str, array.shape))
        return f"try array([{extents}], {_data(array.tobytes())})"
    pixels = np.asarray(value)
    kind, count = _FORMATS[feature.type.imageType.colorSpace]
    height, width = pixels.shape[:2]
    if count == 4:  # what a model of RGB or BGR takes is BGRA for an app
        colours = pixels[..., :3][..., ::-1]
        pixels = np.concatenate([colours, np.full((height, width, 1), 255)], axis=2)
    content = np.ascontiguousarray(pixels, np.uint8).tobytes()
    return f"try picture({width}, {height}, {count}, {kind}, {_data(content)})"


def _data(content: bytes) -> str:
    return f'Data(base64Encoded: "{base64.b64encode(content).decode()}")!'


def _compared(name: str, value: object) -> Iterator[str]:
    actual = f"made.featureValue(for: {string_literal(name)})"
    if isinstance(value, str):
        yield f"        XCTAssertEqual({actual}?.stringValue, {string_literal(value)})"
    elif isinstance(value, Mapping):
        largest = max((abs(float(each)) for each in value.values()), default=0.0)
        yield f"        let chances{identifier(name)} = try XCTUnwrap({actual}?.dictionaryValue)"
        for label, number in value.items():
            key = string_literal(label) if isinstance(label, str) else str(int(label))
            yield "        XCTAssertEqual("
            yield f"            chances{identifier(name)}[{key}]?.doubleValue ?? .nan, "
            yield f"            {float(number)!r}, accuracy: {_TOLERANCE * max(largest, 1e-3)!r})"
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        array = np.ascontiguousarray(value, "<f4")
        extents = ", ".join(map(str, array.shape))
        yield "        try check("
        yield f"            try XCTUnwrap({actual}?.multiArrayValue),"
        yield f"            try array([{extents}], {_data(array.tobytes())}))"
    elif isinstance(value, int | np.integer):
        yield f"        XCTAssertEqual({actual}?.int64Value, {int(value)})"
    else:
        raise SpecError(
            f"output {name!r} is a {type(value).__name__}: the test of an app compares labels, "
            "chances and arrays of floats"
        )


_HELPERS = f"""
    private func array(_ shape: [Int], _ data: Data) throws -> MLMultiArray {{
        let made = try MLMultiArray(shape: shape.map {{ NSNumber(value: $0) }}, dataType: .float32)
        let values = data.withUnsafeBytes {{ Array($0.bindMemory(to: Float.self)) }}
        for (index, value) in values.enumerated() {{
            made[index] = NSNumber(value: value)
        }}
        return made
    }}

    private func picture(
        _ width: Int, _ height: Int, _ bytes: Int, _ format: OSType, _ data: Data
    ) throws -> CVPixelBuffer {{
        var made: CVPixelBuffer?
        CVPixelBufferCreate(nil, width, height, format, nil, &made)
        let buffer = try XCTUnwrap(made)
        CVPixelBufferLockBaseAddress(buffer, [])
        defer {{ CVPixelBufferUnlockBaseAddress(buffer, []) }}
        let start = try XCTUnwrap(CVPixelBufferGetBaseAddress(buffer))
        let row = CVPixelBufferGetBytesPerRow(buffer)
        for y in 0..<height {{
            let from = y * width * bytes
            data.subdata(in: from..<(from + width * bytes)).copyBytes(
                to: (start + y * row).assumingMemoryBound(to: UInt8.self), count: width * bytes)
        }}
        return buffer
    }}

    private func check(_ made: MLMultiArray, _ wanted: MLMultiArray) throws {{
        XCTAssertEqual(made.count, wanted.count)
        let largest = (0..<wanted.count).map {{ abs(wanted[$0].floatValue) }}.max() ?? 0
        for index in 0..<wanted.count {{
            XCTAssertEqual(
                made[index].floatValue, wanted[index].floatValue,
                accuracy: {_TOLERANCE} * max(largest, 1e-3), "value \\(index)")
        }}
    }}
"""
