"""Why a name or an argument of coremltools is left out of mlferry, or different in it.

A key is a name, ``name(argument)``, ``place.*`` for everything of a place that is missing, or
``(argument)`` for this argument of any function.
"""

from __future__ import annotations

_FLEXIBLE = "models.neural_network.flexible_shape_utils"
_QUANTIZATION = "models.neural_network.quantization_utils"
_METRICS = "`mlferry.compare_models` returns a report with every number"
_LINES = "the lines of `print_network_spec`, and `model.describe()` as data"
_INSIDE = "a step inside of coremltools; not for users"
_TAKEN = "nothing depends on the computer that mlferry runs on"
_PROGRAMS = "`save` says where"

LEFT_OUT: dict[str, str] = {
    "models.utils.macos_version": _TAKEN,
    "models.utils.is_macos": _TAKEN,
    f"{_FLEXIBLE}.*": "the classes only hold what functions are given; the spec has the result",
    f"{_FLEXIBLE}.get_allowed_shape_ranges": "`mlferry.models.flexible_shapes.accepted_sizes`",
    f"{_FLEXIBLE}.can_allow_multiple_input_shapes": (
        "`mlferry.models.flexible_shapes.accepted_sizes`"
    ),
    "models.neural_network.printer.*": _LINES,
    "models.neural_network.spec_inspection_utils.*": _LINES,
    f"{_QUANTIZATION}.*": _METRICS,
    f"{_QUANTIZATION}.unpack_to_bytes": _INSIDE,
    f"{_QUANTIZATION}.quantize_spec_weights": "`quantize_weights(spec, ...).get_spec()`",
    f"{_QUANTIZATION}.MatrixMultiplyLayerSelector.*": (
        "of int8 products on a device, which cannot be checked here"
    ),
    f"{_QUANTIZATION}.activate_int8_int8_matrix_multiplications": (
        "of int8 products on a device, which cannot be checked here"
    ),
    "Shape.*": "`Shape` is a tuple of its extents",
    "models.neural_network.utils.*": (
        "`mlferry.models.utils.change_input_output_types` and `attach_class_labels`"
    ),
}

DIFFERENT: dict[str, str] = {
    "(use_float_arraytype)": "True by default: arrays are of float32",
    "converters.onnx.convert(minimum_ios_deployment_target)": (
        "'13' by default; '12' is taken, and a warning tells that iOS 13 is needed"
    ),
    "models.MLModel(is_temp_package)": _PROGRAMS,
    "models.MLModel(mil_program)": _PROGRAMS,
    "models.MLModel.predict(**kwargs)": "no further arguments had an effect",
    "models.MLModel.save(filename)": "is called `path`",
    "models.MLModel.visualize_spec(title)": "'Core ML model' by default",
    "models.utils.load_spec(filename)": "is called `path`",
    "models.neural_network.builder.NeuralNetworkBuilder.add_inner_product(**kwargs)": (
        "the options of quantized weights have names, as in coremltools 4"
    ),
    f"{_QUANTIZATION}.quantize_weights(**kwargs)": "`lut_function` and `selector` have names",
    f"{_QUANTIZATION}.AdvancedQuantizedLayerSelector.do_quantize(weight_param)": (
        "'weights' by default"
    ),
    "models.neural_network.NeuralNetworkBuilder.add_scale(shape_scale)": "None stands for [1]",
    "models.neural_network.NeuralNetworkBuilder.add_scale(shape_bias)": "None stands for [1]",
    "models.neural_network.NeuralNetworkBuilder.add_bias(shape_bias)": "None stands for [1]",
    "models.neural_network.NeuralNetworkBuilder.add_unary(epsilon)": (
        "None stands for the function's own number, as in coremltools 4"
    ),
    "convert(**kwargs)": "an unknown argument is an error",
    "convert(useCPUOnly)": "compute_units is taken in its place",
    "convert(package_dir)": _PROGRAMS,
    "convert(debug)": "every error tells where it happened",
    "ImageType(color_layout)": "by default by the number of channels: RGB or GRAYSCALE",
    "TensorType(default_value)": (
        "`NeuralNetworkBuilder(spec=...).set_optional_input(0, value)` after converting"
    ),
}
