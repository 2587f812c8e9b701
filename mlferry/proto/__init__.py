"""The messages of the format at the places where coremltools has them."""

from mlferry.proto import FeatureTypes_pb2, Model_pb2, NeuralNetwork_pb2

__all__ = ["FeatureTypes_pb2", "Model_pb2", "NeuralNetwork_pb2"]
