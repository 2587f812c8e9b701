"""Swift: `MLCustomLayer` and `MLCustomModel`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from mlferry.models.scaffold.elementwise import Elementwise
from mlferry.models.scaffold.needs import Need, needed_name
from mlferry.spec import weights
from mlferry.text import printable

_TYPES = {"bool": "Bool", "int": "Int", "float": "Double", "str": "String", "bytes": "Data"}
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
# Float16 needs iOS 14, and Macs with Intel processors lack it: halves come as their bits.
_ELEMENTS = {weights.FLOAT32: "Float", weights.FLOAT16: "UInt16"}
_NOTES = {weights.FLOAT16: ", as bits"}


def swift_class(
    need: Need,
    *,
    gpu: bool = False,
    arithmetic: Elementwise | None = None,
    accelerate: bool = False,
) -> str:
    """The file of one class.

    Args:
        need: the class.
        gpu: whether to add encoding for Metal.
        arithmetic: the function that it computes, if known; the class is then complete.
        accelerate: whether the CPU computes with Accelerate.
    """
    if arithmetic is not None and not need.is_model:
        lines = _whole(need, arithmetic, gpu=gpu, accelerate=accelerate)
    else:
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
    yield from _setup(need)
    yield from _evaluate(need)
    if gpu:
        yield from _encode(need)
    yield from _tail(need)


def _setup(need: Need) -> Iterator[str]:
    """The initializer, and the methods that take weights and give shapes."""
    yield "    required init(parameters: [String: Any]) throws {"
    yield from _reading(need)
    yield "        super.init()"
    yield "    }"
    yield ""
    yield from _weights(need)
    yield from _shapes(need)


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


# ---- layers that compute each value by itself ---------------------------------------------------


def _whole(need: Need, arithmetic: Elementwise, *, gpu: bool, accelerate: bool) -> Iterator[str]:
    imports = ["CoreML", "Foundation", *(["Metal"] if gpu else [])]
    yield from _head(need, "MLCustomLayer", tuple(sorted(["Accelerate"] * accelerate + imports)))
    yield from _properties(need)
    if gpu:
        yield "    private var pipeline: MTLComputePipelineState?"
        yield ""
    yield from _setup(need)
    yield f"    /// {arithmetic.formula.text}"
    yield "    /// It is what the Python class gave for more than a thousand values."
    yield "    func evaluate(inputs: [MLMultiArray], outputs: [MLMultiArray]) throws {"
    yield "        let count = inputs[0].count"
    yield "        let source = inputs[0].dataPointer.assumingMemoryBound(to: Float.self)"
    yield "        let target = outputs[0].dataPointer.assumingMemoryBound(to: Float.self)"
    if arithmetic.parameter:
        yield f"        let p = Float({arithmetic.parameter})"
    if accelerate:
        yield "        let x = Array(UnsafeBufferPointer(start: source, count: count))"
        yield f"        let made: [Float] = {vectors(arithmetic.formula.text)}"
        yield "        target.update(from: made, count: count)"
    else:
        yield "        for index in 0..<count {"
        yield "            let x = source[index]"
        yield f"            target[index] = {arithmetic.formula.text}"
        yield "        }"
    yield "    }"
    if gpu:
        yield from _kernel(need, arithmetic)
    yield from _tail(need)


def vectors(text: str) -> str:
    """A C expression as calls of Accelerate on an array ``x``."""
    tree = ast.parse(text, mode="eval").body
    return _call(tree)


_OPERATIONS = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide"}


def _call(node: ast.expr) -> str:
    if isinstance(node, ast.Name | ast.Constant):
        return ast.unparse(node)
    if isinstance(node, ast.UnaryOp):
        return f"vDSP.multiply(-1, {_call(node.operand)})"
    if isinstance(node, ast.Call):
        assert isinstance(node.func, ast.Name)
        arguments = [_call(each) for each in node.args]
        if node.func.id in ("min", "max"):
            value, bound = arguments
            least, most = ("-Float.infinity", bound)
            if node.func.id == "max":
                least, most = bound, "Float.infinity"
            return f"vDSP.clip({value}, to: {least}...{most})"
        if node.func.id == "abs":
            return f"vDSP.absolute({arguments[0]})"
        return f"vForce.{node.func.id}({arguments[0]})"
    assert isinstance(node, ast.BinOp)
    left, right = node.left, node.right
    if _is_scalar(left) and _is_scalar(right):
        return ast.unparse(node)
    operation = _OPERATIONS[type(node.op)]
    if operation in ("add", "multiply") and _is_scalar(right):
        left, right = right, left  # a number comes first
    return f"vDSP.{operation}({_call(left)}, {_call(right)})"


def _is_scalar(node: ast.expr) -> bool:
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return "x" not in names


def _kernel(need: Need, arithmetic: Elementwise) -> Iterator[str]:
    name = need.identifier
    yield ""
    yield "    /// On the GPU: a thread for each four channels of a pixel."
    yield "    func encode("
    yield "        commandBuffer: MTLCommandBuffer, inputs: [MTLTexture], outputs: [MTLTexture]"
    yield "    ) throws {"
    yield "        let state = try pipeline ?? makePipeline(commandBuffer.device)"
    yield "        pipeline = state"
    yield "        guard let encoder = commandBuffer.makeComputeCommandEncoder() else {"
    yield f'            throw {name}.failure("no compute command encoder")'
    yield "        }"
    yield f"        var p = Float({arithmetic.parameter or 0})"
    yield "        let width = state.threadExecutionWidth"
    yield "        let height = state.maxTotalThreadsPerThreadgroup / width"
    yield "        let groups = MTLSize("
    yield "            width: (outputs[0].width + width - 1) / width,"
    yield "            height: (outputs[0].height + height - 1) / height,"
    yield "            depth: outputs[0].arrayLength)"
    yield "        encoder.setComputePipelineState(state)"
    yield "        encoder.setTexture(inputs[0], index: 0)"
    yield "        encoder.setTexture(outputs[0], index: 1)"
    yield "        encoder.setBytes(&p, length: MemoryLayout<Float>.size, index: 0)"
    yield "        encoder.dispatchThreadgroups("
    yield "            groups,"
    yield "            threadsPerThreadgroup: MTLSize(width: width, height: height, depth: 1))"
    yield "        encoder.endEncoding()"
    yield "    }"
    yield ""
    yield "    private func makePipeline(_ device: MTLDevice) throws -> MTLComputePipelineState {"
    yield f"        let library = try device.makeLibrary(source: {name}.kernel, options: nil)"
    yield '        guard let function = library.makeFunction(name: "each") else {'
    yield f'            throw {name}.failure("no function in the kernel")'
    yield "        }"
    yield "        return try device.makeComputePipelineState(function: function)"
    yield "    }"
    yield ""
    yield '    private static let kernel = """'
    for line in _METAL.format(text=arithmetic.formula.text).strip("\n").splitlines():
        yield f"        {line}".rstrip()
    yield '        """'


_METAL = """
#include <metal_stdlib>
using namespace metal;

kernel void each(
    texture2d_array<float, access::read> source [[texture(0)]],
    texture2d_array<float, access::write> target [[texture(1)]],
    constant float &p [[buffer(0)]], uint3 at [[thread_position_in_grid]]) {{
    if (at.x >= target.get_width() || at.y >= target.get_height()) {{
        return;
    }}
    float4 x = source.read(at.xy, at.z);
    target.write(float4({text}), at.xy, at.z);
}}
"""


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
        literal = string_literal(name)
        yield f'            throw {need.identifier}.failure("no value for " + {literal})'
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
        yield f"    let {needed_name(parameter.key)}: {_TYPES[parameter.kind]}{optional}"
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
        name = needed_name(parameter.key)
        if parameter.optional:
            yield f"        {name} = parameters[{key}] as? {type_}"
            continue
        yield f"        guard let {name} = parameters[{key}] as? {type_} else {{"
        yield f'            throw {need.identifier}.failure("no {type_} parameter " + {key})'
        yield "        }"
        yield f"        self.{name} = {name}"


def _tail(need: Need) -> Iterator[str]:
    yield ""
    yield "    private static func failure(_ what: String) -> NSError {"
    yield "        NSError("
    yield f'            domain: "{need.identifier}", code: 1,'
    yield "            userInfo: [NSLocalizedDescriptionKey: what])"
    yield "    }"
    yield "}"


def string_literal(text: str) -> str:
    """A text as Swift has it."""
    return f'"{"".join(map(_in_swift, text))}"'


def _in_swift(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    return character if printable(character) == character else f"\\u{{{ord(character):x}}}"
