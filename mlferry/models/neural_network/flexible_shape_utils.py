"""`mlferry.models.flexible_shapes` at the place where coremltools has it."""

from mlferry.models.flexible_shapes import (
    NeuralNetworkImageSize,
    NeuralNetworkImageSizeRange,
    NeuralNetworkMultiArrayShape,
    NeuralNetworkMultiArrayShapeRange,
    add_enumerated_image_sizes,
    add_enumerated_multiarray_shapes,
    add_multiarray_ndshape_enumeration,
    set_multiarray_ndshape_range,
    update_image_size_range,
    update_multiarray_shape_range,
)

__all__ = [
    "NeuralNetworkImageSize",
    "NeuralNetworkImageSizeRange",
    "NeuralNetworkMultiArrayShape",
    "NeuralNetworkMultiArrayShapeRange",
    "add_enumerated_image_sizes",
    "add_enumerated_multiarray_shapes",
    "add_multiarray_ndshape_enumeration",
    "set_multiarray_ndshape_range",
    "update_image_size_range",
    "update_multiarray_shape_range",
]
