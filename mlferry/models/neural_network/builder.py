"""coremltools' `NeuralNetworkBuilder`: builds a network layer by layer, with a method per kind.

The table `mlferry.spec.layer_methods` defines the methods; this class adds everything around the
layers. In new code, prefer `mlferry.spec.builder.Builder`, which knows the shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlferry import limits
from mlferry.errors import SpecError, context
from mlferry.layers import versions
from mlferry.layers.builder import stored_bytes
from mlferry.layers.methods import LayerMethods, NewLayer
from mlferry.models import datatypes
from mlferry.models.datatypes import add_features, pairs, training_inputs
from mlferry.models.neural_network.builder_images import PixelArguments, set_images
from mlferry.models.neural_network.builder_inspection import Inspection
from mlferry.models.neural_network.builder_training import Training
from mlferry.models.neural_network.update_optimizer_utils import AdamParams, SgdParams
from mlferry.registry import did_you_mean
from mlferry.spec import fields, networks
from mlferry.spec.proto import features_pb2 as ft, model_pb2, neural_network_pb2 as nn

__all__ = ["AdamParams", "NeuralNetworkBuilder", "SgdParams", "datatypes"]

_MODES = {
    None: "neuralNetwork",
    "classifier": "neuralNetworkClassifier",
    "regressor": "neuralNetworkRegressor",
}


class NeuralNetworkBuilder(LayerMethods, Training, Inspection):
    """A neural network that is built layer by layer.

    The methods ``add_*`` add a layer and return its message, with coremltools' names, arguments and
    defaults. `MLModel(builder.spec)` checks the result.

    Args:
        input_features: pairs of a name and a `datatypes.Array`.
        output_features: likewise; a type of None leaves the shape open.
        mode: "classifier", "regressor" or None.
        spec: a model to extend, in place.
        nn_spec: the network of a branch or a loop to extend, without a model around it.
        disable_rank5_shape_mapping: whether arrays keep their own axes (exact array mapping,
            iOS 13) instead of [Seq, Batch, C, H, W].
        training_features: what the model is trained with, as pairs.
        use_float_arraytype: whether arrays are of float32 instead of doubles.

    Attributes:
        spec: the model; None if you build a network alone.
        nn_spec: the network.
        layers: the names of the layers and losses in their order.
        layer_specs: their messages by name.

    Raises:
        SpecError: arguments that do not fit each other.
    """

    def __init__(
        self,
        input_features: Sequence[tuple[str, Any]] | None = None,
        output_features: Sequence[tuple[str, Any]] | None = None,
        mode: str | None = None,
        spec: model_pb2.Model | None = None,
        nn_spec: networks.Network | None = None,
        disable_rank5_shape_mapping: bool = False,
        training_features: Sequence[tuple[str, Any]] | None = None,
        use_float_arraytype: bool = False,
    ) -> None:
        if spec is not None and nn_spec is not None:
            raise SpecError("give spec, a model, or nn_spec, a network without a model; not both")
        self.spec = spec
        self.layers: list[str] = []
        self.layer_specs: dict[str, Any] = {}
        self._exact = disable_rank5_shape_mapping
        self._bytes = 0
        if spec is not None:
            self.nn_spec = _network_in(spec)
        elif nn_spec is not None:
            self.nn_spec = nn_spec
        else:
            self.spec = model_pb2.Model()
            self.nn_spec = _network_for(self.spec, mode)
        for layer in self.nn_spec.layers:
            self.layers.append(layer.name)
            self.layer_specs[layer.name] = layer
        describes = nn_spec is None and not (
            spec is not None and input_features is None and output_features is None
        )
        if describes:
            array_type = (
                ft.ArrayFeatureType.FLOAT32 if use_float_arraytype else ft.ArrayFeatureType.DOUBLE
            )
            self._describe(input_features, output_features, array_type)
            training_inputs(self.model, training_features or ())

    def _describe(
        self,
        inputs: Sequence[tuple[str, Any]] | None,
        outputs: Sequence[tuple[str, Any]] | None,
        array_type: int,
    ) -> None:
        """Inputs and outputs, and the mapping of arrays to blobs."""
        if inputs is None or outputs is None:
            raise SpecError(
                "a new network needs input_features and output_features: "
                "[('image', datatypes.Array(3, 224, 224))], [('probabilities', None)]"
            )
        spec = self.model
        del spec.description.input[:], spec.description.output[:]
        add_features(spec.description.input, inputs, array_type=array_type)
        opened = [(name, kind or datatypes.Array(1)) for name, kind in pairs(outputs)]
        add_features(spec.description.output, opened, array_type=array_type)
        for feature, (_, kind) in zip(spec.description.output, pairs(outputs), strict=True):
            if kind is None:
                del feature.type.multiArrayType.shape[:]
        spec.specificationVersion = 4 if self._exact else 1
        if self._exact:
            self.nn_spec.arrayInputShapeMapping = nn.EXACT_ARRAY_MAPPING
            self.nn_spec.imageInputShapeMapping = nn.RANK4_IMAGE_MAPPING

    @property
    def model(self) -> model_pb2.Model:
        """The model that is built.

        Raises:
            SpecError: a network is built alone.
        """
        if self.spec is None:
            raise SpecError("the network of a branch or a loop has no inputs, outputs or training")
        return self.spec

    # ---- layers ------------------------------------------------------------------------

    def add(
        self, name: str, inputs: Sequence[str], outputs: Sequence[str], layer: NewLayer
    ) -> nn.NeuralNetworkLayer:
        """Add a layer of any kind; the methods ``add_*`` call this.

        Raises:
            SpecError: a name is used twice, or a field does not exist or takes other values.
        """
        with context(f"adding {layer.kind} {name!r}"):
            if name in self.layer_specs:
                raise SpecError(f"there is a layer {name!r} already")
            self._bytes += stored_bytes(layer.params)
            limits.check_model(self._bytes)
            # filled in its place: appending a message would copy its weights
            message = self.nn_spec.layers.add(name=name, input=inputs, output=outputs)
            try:
                fields.fill(message, {**layer.layer_fields, layer.kind: layer.params})
            except Exception:
                del self.nn_spec.layers[-1]
                raise
        self.layers.append(name)
        self.layer_specs[name] = message
        self.needs_version(versions.required_by_layer(message))
        return message

    def forget(self, name: str) -> None:
        """Drop a layer."""
        index = [layer.name for layer in self.nn_spec.layers].index(name)
        del self.nn_spec.layers[index]
        self.layers.remove(name)
        del self.layer_specs[name]

    def move_to_front(self, name: str) -> None:
        """Move a layer to the front."""
        index = [layer.name for layer in self.nn_spec.layers].index(name)
        self.nn_spec.layers.insert(0, self.nn_spec.layers.pop(index))
        self.layer_specs[name] = self.nn_spec.layers[0]

    def needs_version(self, version: int) -> None:
        """Raise the specification version of the model to this one if it is lower."""
        if self.spec is not None:
            self.spec.specificationVersion = max(self.spec.specificationVersion, version)

    # ---- inputs and outputs ------------------------------------------------------------

    def set_input(self, input_names: Sequence[str], input_dims: Sequence[Sequence[int]]) -> None:
        """Set the names and shapes of the inputs, in order.

        In the classic mapping a shape is [C], [Seq, C] or [C, H, W].

        Raises:
            SpecError: other numbers of names and shapes, or a shape of another rank.
        """
        inputs = self.model.description.input
        _check_count(input_names, input_dims, inputs, "input")
        for feature, name, shape in zip(inputs, input_names, input_dims, strict=False):
            if not self._exact and len(shape) not in (1, 2, 3):
                raise SpecError(
                    f"input {name!r} has {len(shape)} axes; [C], [Seq, C] and [C, H, W] are "
                    "possible, others with disable_rank5_shape_mapping=True"
                )
            classic = shape[1:] if len(shape) == 2 and not self._exact else shape
            _set_array(feature, name, classic)

    def set_output(self, output_names: Sequence[str], output_dims: Sequence[Sequence[int]]) -> None:
        """Set the names and shapes of the outputs, in order.

        Raises:
            SpecError: other numbers of names and shapes.
        """
        outputs = self.model.description.output
        _check_count(output_names, output_dims, outputs, "output")
        for feature, name, shape in zip(outputs, output_names, output_dims, strict=False):
            _set_array(feature, name, shape)

    def set_optional_input(
        self, input_idx: int, value: float | None = None, format: str = "float"
    ) -> None:
        """Make an input optional.

        Args:
            input_idx: which.
            value: its value when left out (iOS 14); by default 0.
            format: "float", "double" or "int": the type of the value.

        Raises:
            SpecError: there is no such input or format.
        """
        inputs = self.model.description.input
        if not -len(inputs) <= input_idx < len(inputs):
            raise SpecError(f"there is no input {input_idx}; the model has {len(inputs)}")
        kind = format.lower()
        if kind not in ("float", "double", "int"):
            raise SpecError(f"format={format!r}: 'float', 'double' and 'int' are possible")
        feature = inputs[input_idx].type
        feature.isOptional = True
        if value is not None:
            fields.fill(feature.multiArrayType, {f"{kind}DefaultValue": value})
            self.needs_version(5)

    def add_optionals(
        self, optionals_in: Sequence[tuple[str, Any]], optionals_out: Sequence[tuple[str, Any]]
    ) -> None:
        """Add optional inputs and outputs: the states of recurrent layers.

        Args:
            optionals_in: pairs of a name and an extent, or a shape.
            optionals_out: likewise.
        """
        for described, entries in (
            (self.model.description.input, optionals_in),
            (self.model.description.output, optionals_out),
        ):
            states = [
                (str(name), datatypes.Array(shape) if shape else None)
                for name, shape in entries or ()
            ]
            add_features(described, states, optional=described is self.model.description.input)

    def set_class_labels(
        self,
        class_labels: Sequence[str] | Sequence[int],
        predicted_feature_name: str = "classLabel",
        prediction_blob: str = "",
    ) -> None:
        """Give a classifier its labels; its first output becomes their probabilities.

        Args:
            class_labels: in the order of the probabilities.
            predicted_feature_name: of the output with the likeliest label, which this adds.
            prediction_blob: the probabilities; by default what the last layer makes.

        Raises:
            SpecError: the model is not a classifier, has no output or no layer, or the labels are
                neither all text nor all integers.
        """
        description, network = self.model.description, self.nn_spec
        if not isinstance(network, nn.NeuralNetworkClassifier):
            raise SpecError("class labels belong to a classifier: build it with mode='classifier'")
        if not description.output:
            raise SpecError("a classifier has an output for the probabilities; there is none")
        if not prediction_blob and not network.layers:
            raise SpecError("add the layers first, or name the probabilities: prediction_blob=")
        labels: list[Any] = list(class_labels)
        kind = type(labels[0]) if labels else str
        if kind not in (str, int) or not all(type(label) is kind for label in labels):
            raise SpecError("class labels are all text, or all integers")
        texts = kind is str
        chances = description.output[0]
        key = datatypes.String() if texts else datatypes.Int64()
        chances.type.ClearField("multiArrayType")
        datatypes.Dictionary(key).write(chances.type, 0)
        if not labels:
            return
        description.predictedProbabilitiesName = chances.name
        description.predictedFeatureName = predicted_feature_name
        add_features(description.output, [(predicted_feature_name, key)])
        field = network.stringClassLabels if texts else network.int64ClassLabels
        field.vector[:] = labels
        network.labelProbabilityLayerName = prediction_blob or network.layers[-1].output[0]

    def set_pre_processing_parameters(
        self,
        image_input_names: Sequence[str] | str | None = None,
        is_bgr: bool | Mapping[str, bool] = False,
        red_bias: float | Mapping[str, float] = 0.0,
        green_bias: float | Mapping[str, float] = 0.0,
        blue_bias: float | Mapping[str, float] = 0.0,
        gray_bias: float | Mapping[str, float] = 0.0,
        image_scale: float | Mapping[str, float] = 1.0,
        image_format: str = "NCHW",
    ) -> None:
        """Turn array inputs into images; the network gets ``image_scale * pixel + bias``.

        Args:
            image_input_names: the inputs; without them, nothing happens.
            is_bgr: whether pixels come as B, G, R; one value, or one per input, like the others.
            red_bias: added to the red channel after scaling; likewise green, blue and gray.
            green_bias: see `red_bias`.
            blue_bias: see `red_bias`.
            gray_bias: see `red_bias`.
            image_scale: what pixels of 0 to 255 are multiplied by.
            image_format: "NCHW", or "NHWC" where the input has the channels last.

        Raises:
            SpecError: there is no such input, or its shape is not that of an image.
        """
        if not image_input_names:
            return
        names = (
            [image_input_names] if isinstance(image_input_names, str) else list(image_input_names)
        )
        known = [feature.name for feature in self.model.description.input]
        for name in names:
            if name not in known:
                raise SpecError(
                    f"image_input_names: there is no input {name!r}.{did_you_mean(name, known)}"
                )
        arguments = PixelArguments(
            names, is_bgr, red_bias, green_bias, blue_bias, gray_bias, image_scale
        )
        set_images(self, arguments, image_format)


def _network_in(spec: model_pb2.Model) -> networks.Network:
    network = networks.network_of(spec) if isinstance(spec, model_pb2.Model) else None
    if network is None:
        raise SpecError(
            f"spec is the message of a neural network, not a {type(spec).__name__}"
            + (f" of kind {spec.WhichOneof('Type')!r}" if isinstance(spec, model_pb2.Model) else "")
        )
    return network


def _network_for(spec: model_pb2.Model, mode: str | None) -> networks.Network:
    if mode not in _MODES:
        raise SpecError(f"mode={mode!r}: 'classifier', 'regressor' and None are possible")
    network: networks.Network = getattr(spec, _MODES[mode])
    network.SetInParent()
    return network


def _check_count(
    names: Sequence[str], shapes: Sequence[Any], features: Sequence[Any], role: str
) -> None:
    if len(names) != len(shapes) or len(names) > len(features):
        raise SpecError(
            f"{len(names)} {role} names and {len(shapes)} shapes; the model has "
            f"{len(features)} {role}s"
        )


def _set_array(feature: model_pb2.FeatureDescription, name: str, shape: Sequence[int]) -> None:
    feature.name = name
    array = feature.type.multiArrayType
    array.dataType = ft.ArrayFeatureType.DOUBLE
    array.shape[:] = shape
