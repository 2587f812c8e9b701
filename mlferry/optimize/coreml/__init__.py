"""The names of `coremltools.optimize.coreml`: configurations, and what works by them.

What a configuration says is stored as there; the opset is raised where a scheme needs it.
"""

from mlferry.optimize.coreml.activations import linear_quantize_activations
from mlferry.optimize.coreml.configs import (
    OpLinearQuantizerConfig,
    OpMagnitudePrunerConfig,
    OpPalettizerConfig,
    OpThresholdPrunerConfig,
    OptimizationConfig,
)
from mlferry.optimize.coreml.metadata import (
    CoreMLOpMetaData,
    CoreMLWeightMetaData,
    get_weights_metadata,
)
from mlferry.optimize.coreml.weights import (
    decompress_weights,
    linear_quantize_weights,
    palettize_weights,
    prune_weights,
)

__all__ = [
    "CoreMLOpMetaData",
    "CoreMLWeightMetaData",
    "OpLinearQuantizerConfig",
    "OpMagnitudePrunerConfig",
    "OpPalettizerConfig",
    "OpThresholdPrunerConfig",
    "OptimizationConfig",
    "decompress_weights",
    "get_weights_metadata",
    "linear_quantize_activations",
    "linear_quantize_weights",
    "palettize_weights",
    "prune_weights",
]
