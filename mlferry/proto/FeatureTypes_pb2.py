"""`mlferry.spec.proto.features_pb2` under coremltools' name."""

from mlferry.spec.proto.features_pb2 import *  # noqa: F403 - all of its messages
