"""Swift: `MLCustomLayer` and `MLCustomModel`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mlferry.models.scaffold.needs import Need, NeededParameter
from mlferry.spec import weights
from mlferry.text import identifier, printable

_TYPES = {"bool": "Bool", "int": "Int", "float": "Double", "str": "String", "bytes": "Data"}
_RESERVED = """
Any Self Type actor as associatedtype associativity await break case catch class
continue convenience default defer deinit do dynamic else enum extension fallthrough
false fileprivate final for func get guard if import in indirect infix init inout
internal is isolated lazy left let mutating nil nonisolated none nonmutating open
operator optional override postfix precedence precedencegroup prefix private protocol
public repeat required rethrows return right self set some static struct subscript
super switch throw throws true try typealias unowned var weak where while willSet yield
parameters weights
"""
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_WORDS = frozenset(_RESERVED.split())
# Float16 needs iOS 14, and no Mac with an Intel processor has it: halves come as their bits.
_ELEMENTS = {weights.FLOAT32: "Float", weights.FLOAT16: "UInt16"}
_NOTES = {weights.FLOAT16: ", as bits"}


def swift_class(need: Need, *, gpu: bool = False) -> str:
    """The file of one class."""
    lines = _model(need) if need.is_model else _layer(need, gpu=gpu)
    return "\n".join(map(printable, lines)) + "\n"


def _head(need: Need, protocol: str, imports: tuple[str, ...]) -> Iterator[str]:
    yield f"// {need.identifier}.swift: add it to the app's target, beside the model."
    yield ""
    yield from (f"import {name}" for name in imports)
    yield ""
    for description in need.descriptions:
        yield from (f"/// {line}".rstrip() for line in description.splitlines())
    if need.uses:
        layers = ", ".join(_one_line(name) for name, _, _ in need.uses)
        yield f"/// Used by {layers}."
    if need.identifier != need.class_name:
        yield f'/// The model asks for "{_one_line(need.class_name)}", which Swift does not allow:'
        yield "/// rename it in the model, with mlferry's replace_custom_layer_name."
    yield f"@objc({need.identifier})"
    yield f"final class {need.identifier}: NSObject, {protocol} {{"


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


# ---- layers -----------------------------------------------------------------------------------


def _layer(need: Need, *, gpu: bool) -> Iterator[str]:
    imports = ("CoreML", "Foundation", *(("Metal",) if gpu else ()))
    yield from _head(need, "MLCustomLayer", imports)
    yield from _properties(need)
    yield "    required init(parameters: [String: Any]) throws {"
    yield from _reading(need)
    yield "        super.init()"
    yield "    }"
    yield ""
    yield from _weights(need)
    yield from _shapes(need)
    yield from _evaluate(need)
    if gpu:
        yield from _encode(need)
    yield from _tail(need)


def _weights(need: Need) -> Iterator[str]:
    count = len(need.weights)
    yield "    /// Called once, when the model is loaded."
    yield "    func setWeightData(_ weights: [Data]) throws {"
    yield f"        guard weights.count == {count} else {{"
    yield f'            throw {need.identifier}.failure("\\(weights.count) weights, not {count}")'
    yield "        }"
    for index, (kind, _) in enumerate(need.weights):
        name = f"weight{index}"
        if kind in _ELEMENTS:
            element = _ELEMENTS[kind]
            yield f"        {name} = weights[{index}].withUnsafeBytes {{"
            yield f"            Array($0.bindMemory(to: {element}.self))"
            yield "        }"
        else:
            yield f"        {name} = weights[{index}]"
    yield "    }"
    yield ""


def _shapes(need: Need) -> Iterator[str]:
    _, inputs, outputs = need.uses[0]
    yield "    /// Asked before memory is reserved for the outputs; the shapes that evaluate fills."
    yield "    func outputShapes(forInputShapes inputShapes: [[NSNumber]]) throws -> [[NSNumber]] {"
    yield f"        guard inputShapes.count == {inputs} else {{"
    yield f"            throw {need.identifier}.failure("
    yield f'                "\\(inputShapes.count) inputs, not {inputs}")'
    yield "        }"
    if inputs == outputs:
        yield "        return inputShapes // change it where the layer changes shapes"
    else:
        shapes = ", ".join(["inputShapes[0]"] * outputs) if inputs else ""
        yield f"        return [{shapes}] // the shape of each of the outputs ({outputs})"
    yield "    }"
    yield ""


_ORDER = {
    True: "Core ML's order of axes: batch, channels, height, width.",
    False: "the order of axes of the converted model; Keras: batch, height, width, channels.",
}


def _evaluate(need: Need) -> Iterator[str]:
    _, inputs, outputs = need.uses[0]
    yield "    /// On the CPU: fill the outputs from the inputs."
    if need.channels_first is not None:
        yield "    /// The data come in"
        yield f"    /// {_ORDER[need.channels_first]}"
    yield "    func evaluate(inputs: [MLMultiArray], outputs: [MLMultiArray]) throws {"
    yield f"        // inputs: {inputs}, outputs: {outputs}, of float32; an elementwise layer:"
    yield "        //     for index in 0..<outputs[0].count {"
    yield "        //         outputs[0][index] = NSNumber(value: inputs[0][index].floatValue * 2)"
    yield "        //     }"
    yield f'        throw {need.identifier}.failure("evaluate is not written yet")'
    yield "    }"


def _encode(need: Need) -> Iterator[str]:
    yield ""
    yield "    /// On the GPU: encode a compute kernel that reads and writes the textures."
    yield "    /// Without this method, Core ML evaluates the layer on the CPU."
    yield "    func encode("
    yield "        commandBuffer: MTLCommandBuffer, inputs: [MTLTexture], outputs: [MTLTexture]"
    yield "    ) throws {"
    yield "        guard let encoder = commandBuffer.makeComputeCommandEncoder() else {"
    yield f'            throw {need.identifier}.failure("no compute command encoder")'
    yield "        }"
    yield "        // encoder.setTexture(inputs[0], index: 0)"
    yield "        // encoder.setTexture(outputs[0], index: 1)"
    yield "        // encoder.setComputePipelineState(...)"
    yield "        // encoder.dispatchThreadgroups(..., threadsPerThreadgroup: ...)"
    yield "        encoder.endEncoding()"
    yield f'        throw {need.identifier}.failure("encode is not written yet")'
    yield "    }"


# ---- models -----------------------------------------------------------------------------------


def _model(need: Need) -> Iterator[str]:
    yield from _head(need, "MLCustomModel", ("CoreML", "Foundation"))
    yield from _properties(need)
    yield "    required init("
    yield "        modelDescription: MLModelDescription, parameters: [String: Any]"
    yield "    ) throws {"
    yield from _reading(need)
    yield "        super.init()"
    yield "    }"
    yield ""
    yield "    func prediction("
    yield "        from input: MLFeatureProvider, options: MLPredictionOptions"
    yield "    ) throws -> MLFeatureProvider {"
    for name, type_ in need.inputs.items():
        yield f"        // {_one_line(name)}: {type_}"
        yield f"        guard input.featureValue(for: {string_literal(name)}) != nil else {{"
        shown = string_literal(name)
        yield f'            throw {need.identifier}.failure("no value for " + {shown})'
        yield "        }"
    for name, type_ in need.outputs.items():
        yield f"        // gives {_one_line(name)}: {type_}"
    yield f'        throw {need.identifier}.failure("prediction is not written yet")'
    yield "    }"
    yield from _tail(need)


# ---- both -------------------------------------------------------------------------------------


def _properties(need: Need) -> Iterator[str]:
    for parameter in need.parameters:
        optional = "?" if parameter.optional else ""
        yield f"    let {_name(parameter)}: {_TYPES[parameter.kind]}{optional}"
    for index, (kind, _) in enumerate(need.weights):
        element = _ELEMENTS.get(kind)
        type_ = f"[{element}] = []" if element else "Data()"
        declared = f": {type_}" if element else f" = {type_}"
        note = _NOTES.get(kind, "")
        yield f"    private var weight{index}{declared} // {need.described(index)}{note}"
    for index, (_, shape) in enumerate(need.weight_shapes):
        extents = ", ".join(map(str, shape))
        yield f"    private let weight{index}Shape: [Int] = [{extents}] // row-major"
    if need.parameters or need.weights:
        yield ""


def _reading(need: Need) -> Iterator[str]:
    for parameter in need.parameters:
        type_, key = _TYPES[parameter.kind], string_literal(parameter.key)
        if parameter.optional:
            yield f"        {_name(parameter)} = parameters[{key}] as? {type_}"
            continue
        yield f"        guard let {_name(parameter)} = parameters[{key}] as? {type_} else {{"
        yield f'            throw {need.identifier}.failure("no {type_} parameter " + {key})'
        yield "        }"
        yield f"        self.{_name(parameter)} = {_name(parameter)}"


def _tail(need: Need) -> Iterator[str]:
    yield ""
    yield "    private static func failure(_ what: String) -> NSError {"
    yield "        NSError("
    yield f'            domain: "{need.identifier}", code: 1,'
    yield "            userInfo: [NSLocalizedDescriptionKey: what])"
    yield "    }"
    yield "}"


def _name(parameter: NeededParameter) -> str:
    """``output_height`` as ``outputHeight``."""
    first, *rest = [part for part in identifier(parameter.key).split("_") if part] or ["value"]
    name = first[0].lower() + first[1:] + "".join(part[0].upper() + part[1:] for part in rest)
    if name[0].isdigit():
        name = f"value{name}"
    return f"{name}Value" if name in _WORDS else name


def string_literal(text: str) -> str:
    """A text as Swift has it."""
    return f'"{"".join(map(_in_swift, text))}"'


def _in_swift(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if printable(character) == character else f"\\u{{{ord(character):x}}}"
