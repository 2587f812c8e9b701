"""Neural networks, classifiers and regressors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mlferry.errors import PredictionError
from mlferry.layers.kernels import Array
from mlferry.runtime import inputs
from mlferry.runtime.evaluators.parallel import Parallel
from mlferry.runtime.evaluators.registry import (
    CustomClasses,
    Evaluator,
    Features,
    evaluator,
)
from mlferry.runtime.session import Session
from mlferry.spec import features, networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn


class NetworkEvaluator(Parallel):
    """A network with its inputs and outputs.

    Attributes:
        session: the plan; `run` takes the names of any blobs as outputs.
        joins: whether samples can run side by side along the batch axis of the classic mapping: no
            layer mixes samples, and none takes them one at a time anyway. The exact mapping has no
            such axis.
    """

    has_one_call = True

    def __init__(self, model: model_pb2.Model, classes: CustomClasses) -> None:
        network = networks.network_of(model)
        assert network is not None
        self.network = network
        self.description = model.description
        self.session: Session = classes.engine(network, classes.layers)
        # read once: reading the fields of a message takes longer than running a small network
        self._inputs = [(feature.name, feature.type) for feature in model.description.input]
        self._outputs = [(feature.name, feature.type) for feature in model.description.output]
        self._types = dict(self._outputs)
        self._fixed = inputs.fixed_shapes(model.description, network)
        self._chances = ""
        special: tuple[str, ...] = ()
        if isinstance(network, nn.NeuralNetworkClassifier):
            self._chances = probability_blob(network)
            special = (
                model.description.predictedFeatureName,
                model.description.predictedProbabilitiesName,
            )
        layers = list(networks.layers_of(network))
        large = any(layer.WhichOneof("layer") in _ONE_BY_ONE for layer in layers)
        custom = any(layer.WhichOneof("layer") == "custom" for layer in layers)
        self._lends = type(self.session) is Session and not custom
        self.joins = self.session.rank5 and not large and all(map(_is_apart, layers))
        in_order = any(map(_is_in_order, layers))
        shares = type(self.session) is Session and not in_order
        super().__init__(self.session.threads, shares=shares)
        plain = [name for name, _ in self._outputs if name not in special]
        self._wanted = list(dict.fromkeys([*plain, *([self._chances] if special else [])]))
        kinds = {kind.WhichOneof("Type") for _, kind in self._outputs}
        as_they_are = kinds == {"multiArrayType"} and not self.session.rank5
        self._dtypes = (
            {name: inputs.dtype_of(kind) for name, kind in self._outputs} if as_they_are else None
        )

    def blobs(self, data: Features) -> dict[str, Array]:
        """The blobs that the network gets for the features of a sample."""
        fixed = self._fixed
        if fixed is not None and inputs.fit(data, fixed):
            return {name: data[name].astype(np.float32) for name in fixed}
        inputs.check_names(data, self.description)
        rank5 = self.session.rank5
        return {
            name: inputs.to_blob(name, data[name], kind, self.network, rank5)
            if data.get(name) is not None
            else inputs.default_blob(kind, rank5)
            for name, kind in self._inputs
        }

    def makers(self) -> dict[str, tuple[str, str]]:
        """The name and kind of the layer that makes each blob; not inside branches and loops."""
        return {
            blob: (layer.name, layer.WhichOneof("layer") or "")
            for layer in self.network.layers
            for blob in layer.output
        }

    def inside(self, data: Features, names: Sequence[str]) -> dict[str, Any]:
        """See `Transparent`."""
        return dict(self.session.run(self.blobs(data), list(names)))

    def __call__(self, data: Features) -> dict[str, Any]:
        """The outputs for the features of a sample."""
        fixed = self._fixed
        if not self._lends or fixed is None or not inputs.fit(data, fixed):
            return self._features(self.session.run(self.blobs(data), self._wanted))
        lent = {name: _lent(data[name]) for name in fixed}
        outputs = self.session.run(lent, self._wanted)
        return self._features({name: _own(x, lent) for name, x in outputs.items()})

    def in_one_call(self, samples: Sequence[Features]) -> list[dict[str, Any]] | None:
        """See `Parallel`."""
        if not self._lends:
            return None
        fixed = self._fixed
        blobs: Sequence[Features] = samples
        if fixed is None or not all(inputs.fit(sample, fixed) for sample in samples):
            blobs = [self.blobs(sample) for sample in samples]
        names = [name for name, _ in self._inputs]
        if any(len({each[name].shape for each in blobs}) != 1 for name in names):
            return None
        size = sum(blobs[0][name].size for name in names)
        if size * len(blobs) > _JOINED_MOST:  # copies of large inputs save nothing
            return None
        joined = {name: _joined([each[name] for each in blobs]) for name in names}
        each = self.session.run_each(joined, self._wanted)
        if each is None:
            return None
        results = self._features_of_each(each.blobs)
        return [
            self(sample) if fails else result
            for sample, fails, result in zip(samples, each.fails, results, strict=True)
        ]

    def many(self, samples: Sequence[Features]) -> list[dict[str, Any]] | None:
        """The outputs for several samples at once; None where they have to go one by one.

        Raises:
            PredictionError: one of the samples does not fit.
        """
        inputs = [self.blobs(sample) for sample in samples]
        shapes = {tuple((name, x.shape) for name, x in blobs.items()) for blobs in inputs}
        if not self.joins or len(shapes) != 1 or any(x.shape[1] != 1 for x in inputs[0].values()):
            return None
        joined = {name: np.concatenate([blobs[name] for blobs in inputs], 1) for name in inputs[0]}
        outputs = self.session.run(joined, self._wanted)
        if any(x.ndim != 5 or x.shape[1] != len(inputs) for x in outputs.values()):
            return None
        apart = ({name: x[:, i : i + 1] for name, x in outputs.items()} for i in range(len(inputs)))
        return [self._features(blobs) for blobs in apart]

    def _features_of_each(self, outputs: dict[str, Array]) -> list[dict[str, Any]]:
        """The outputs [n, ...] of n samples as the features of each have them."""
        if self._dtypes is not None:
            outputs = _converted(outputs, self._dtypes)
        each = [
            dict(zip(outputs, values, strict=True))
            for values in zip(*outputs.values(), strict=True)
        ]
        return each if self._dtypes is not None else list(map(self._features, each))

    def _features(self, outputs: dict[str, Array]) -> dict[str, Any]:
        """The outputs as their features have them."""
        if self._dtypes is not None:
            return _converted(outputs, self._dtypes)
        named: dict[str, Any] = {}
        if isinstance(self.network, nn.NeuralNetworkClassifier):
            labels = networks.class_labels(self.network)
            named = classify(outputs[self._chances], labels, self.description)
        return {
            name: named[name]
            if name in named
            else inputs.to_user(name, self.as_described(name, outputs[name]), kind)
            for name, kind in self._outputs
        }

    def as_described(self, name: str, value: NDArray[Any]) -> NDArray[Any]:
        """A blob in the shape that it has as an output; see `features.output_shape`."""
        if not self.session.rank5 or name not in self._types:
            return value
        return value.reshape(features.output_shape(self._types[name], value.shape))


def _lent(x: NDArray[Any]) -> Array:
    """An array as float32: if it is such already, the same memory, to which nothing may write."""
    result: Array = x.astype(np.float32, order="C", copy=False).view()
    result.flags.writeable = False
    return result


def _joined(values: Sequence[NDArray[Any]]) -> Array:
    """Arrays of one shape as float32, [n, ...], in one piece."""
    result = np.empty((len(values), *values[0].shape), np.float32)
    np.stack(
        values, out=result, casting="unsafe"
    )  # by itself it keeps the order of transposed ones
    return result


def _own(x: Array, lent: dict[str, Array]) -> Array:
    """A result that shares no memory with an input, as the caller may change either."""
    if x.base is None:  # its memory is its own
        return x
    return x.copy() if any(np.may_share_memory(x, other) for other in lent.values()) else x


def _converted(outputs: Mapping[str, Array], dtypes: Mapping[str, DTypeLike]) -> dict[str, Any]:
    """Multi-arrays in their described types, in the order of the description."""
    return {name: outputs[name].astype(dtype, copy=False) for name, dtype in dtypes.items()}


_JOINED_MOST = 1 << 24  # values of all samples that go in one call
_ONE_BY_ONE = ("convolution", "pooling")  # the planned runtime takes sample after sample


def _is_in_order(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether the result of a layer may change when samples run at the same time."""
    kind = layer.WhichOneof("layer") or ""
    return kind.startswith("random") or kind in ("custom", "categoricalDistribution")


def _is_apart(layer: nn.NeuralNetworkLayer) -> bool:
    """Whether a layer of the classic mapping works on every entry of the batch axis alone."""
    kind = layer.WhichOneof("layer")
    if kind == "batchnorm":
        return bool(layer.batchnorm.instanceNormalization or not layer.batchnorm.computeMeanVar)
    return kind not in ("custom", "cropResize")  # boxes name the image that they crop


@evaluator(*networks.NETWORK_KINDS)
def network(model: model_pb2.Model, classes: CustomClasses) -> Evaluator:
    """A neural network of any of the three kinds."""
    return NetworkEvaluator(model, classes)


def probability_blob(network: nn.NeuralNetworkClassifier) -> str:
    """The blob of the probabilities; unset, it is the last layer's first output."""
    return network.labelProbabilityLayerName or network.layers[-1].output[0]


def classify(
    chances: NDArray[Any],
    labels: Sequence[str] | Sequence[int],
    description: model_pb2.ModelDescription,
) -> dict[str, Any]:
    """The likeliest label and the probabilities, under the names of the description.

    Raises:
        PredictionError: there are more or fewer labels than probabilities.
    """
    flat = np.asarray(chances).reshape(-1)
    if len(labels) != flat.size:
        raise PredictionError(f"the classifier has {len(labels)} labels and {flat.size} values")
    outputs: dict[str, Any] = {description.predictedFeatureName: labels[int(np.argmax(flat))]}
    if description.predictedProbabilitiesName:
        pairs = zip(labels, flat.tolist(), strict=True)
        outputs[description.predictedProbabilitiesName] = dict(pairs)
    return outputs
