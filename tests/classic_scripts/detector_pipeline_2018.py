"""A detector: a network of boxes and confidences, then suppression, put into a pipeline."""

import numpy as np

import mlferry as coremltools
from mlferry.models import datatypes
from mlferry.models.neural_network import NeuralNetworkBuilder
from mlferry.models.pipeline import Pipeline
from mlferry.proto import Model_pb2

BOXES, CLASSES = 6, 2
rng = np.random.default_rng(0)

builder = NeuralNetworkBuilder(
    [("image", datatypes.Array(3, 4, 4))],
    [("raw_boxes", None), ("raw_confidence", None)],
    disable_rank5_shape_mapping=True,
)
boxes = rng.uniform(0.2, 0.4, (BOXES, 4)).astype(np.float32)
builder.add_load_constant_nd("boxes", "raw_boxes", boxes, (BOXES, 4))
builder.add_reduce_mean("mean", "image", "level", axes=[0, 1, 2], keepdims=False)
scores = rng.uniform(0.5, 1.0, (BOXES, CLASSES)).astype(np.float32)
builder.add_load_constant_nd("scores", "known", scores, (BOXES, CLASSES))
builder.add_multiply_broadcastable("scale", ["known", "level"], "raw_confidence")
detector = builder.spec
for output, width in zip(detector.description.output, (4, CLASSES)):
    output.type.multiArrayType.shape.extend([BOXES, width])

nms_spec = Model_pb2.Model()
nms_spec.specificationVersion = 3
for name in ("raw_confidence", "raw_boxes"):
    feature = nms_spec.description.input.add()
    feature.CopyFrom(next(out for out in detector.description.output if out.name == name))
for name, width in (("confidence", CLASSES), ("coordinates", 4)):
    feature = nms_spec.description.output.add()
    feature.name = name
    ranges = feature.type.multiArrayType.shapeRange.sizeRanges
    feature.type.multiArrayType.dataType = detector.description.output[
        0
    ].type.multiArrayType.dataType
    ranges.add(lowerBound=0, upperBound=-1)
    ranges.add(lowerBound=width, upperBound=width)
nms = nms_spec.nonMaximumSuppression
nms.confidenceInputFeatureName = "raw_confidence"
nms.coordinatesInputFeatureName = "raw_boxes"
nms.confidenceOutputFeatureName = "confidence"
nms.coordinatesOutputFeatureName = "coordinates"
nms.iouThreshold = 0.99
nms.confidenceThreshold = 0.3
nms.pickTop.perClass = True
nms.stringClassLabels.vector.extend(["cat", "dog"])

pipeline = Pipeline(
    input_features=[("image", datatypes.Array(3, 4, 4))],
    output_features=[("confidence", datatypes.Double()), ("coordinates", datatypes.Double())],
)
pipeline.add_model(detector)
pipeline.add_model(nms_spec)
pipeline.spec.description.output[0].CopyFrom(nms_spec.description.output[0])
pipeline.spec.description.output[1].CopyFrom(nms_spec.description.output[1])
pipeline.spec.specificationVersion = 4

found = coremltools.models.MLModel(pipeline.spec).predict({"image": np.full((3, 4, 4), 0.9)})
strong = (scores * 0.9).max(axis=1) > 0.3
assert found["confidence"].shape == (strong.sum(), CLASSES)
np.testing.assert_allclose(
    np.sort(found["confidence"].max(axis=1)), np.sort((scores * 0.9).max(axis=1)[strong]), rtol=1e-5
)
