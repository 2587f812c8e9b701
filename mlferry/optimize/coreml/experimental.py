"""The names of `coremltools.optimize.coreml.experimental`."""

from mlferry.optimize.coreml.activations import linear_quantize_activations
from mlferry.optimize.coreml.configs import OpActivationLinearQuantizerConfig

__all__ = ["OpActivationLinearQuantizerConfig", "linear_quantize_activations"]
