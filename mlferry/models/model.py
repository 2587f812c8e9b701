"""`MLModel`: a Core ML model that loads, predicts, shows itself and saves."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from mlferry.custom import CUSTOM_LAYERS, CUSTOM_MODELS, CustomLayer, CustomModel
from mlferry.errors import (
    MlferryError,
    ModelFileError,
    PredictionError,
    UnsupportedModelError,
    ValidationError,
)
from mlferry.models import inspect
from mlferry.models.problems import read, validate
from mlferry.models.saliency import Output, gradients, tape_for
from mlferry.models.updating import update
from mlferry.models.workers import Executors, in_order
from mlferry.programs.values import Weights, has_blobs
from mlferry.registry import Registry
from mlferry.runtime import pictures
from mlferry.runtime.engines import engine_named
from mlferry.runtime.evaluators import Evaluator, prepare
from mlferry.runtime.evaluators.network import NetworkEvaluator
from mlferry.runtime.evaluators.parallel import Parallel
from mlferry.runtime.evaluators.program import ProgramEvaluator, check_options
from mlferry.runtime.evaluators.registry import CustomClasses, RunOptions, Transparent
from mlferry.runtime.program_session import State
from mlferry.runtime.session import Session
from mlferry.spec import io, networks, package
from mlferry.spec.problems import Problem
from mlferry.spec.proto import model_pb2
from mlferry.spec.streaming import serialized
from mlferry.training.options import Progress
from mlferry.training.tape import Tape

_SIDE_BY_SIDE = 16  # samples of a classic network that are evaluated at once


def _bytes_of_program(spec: model_pb2.Model) -> bytes | None:
    """The message of an ML Program, whose weights lie outside; None for other models."""
    is_program = spec.WhichOneof("Type") == "mlProgram"
    return spec.SerializeToString(deterministic=True) if is_program else None


class FeatureDescriptions(MutableMapping[str, str]):
    """The description of each input or output, by name; items can be set."""

    def __init__(self, described: Sequence[model_pb2.FeatureDescription]) -> None:
        self._described = described

    def _find(self, name: str) -> Any:
        for feature in self._described:
            if feature.name == name:
                return feature
        raise KeyError(f"No feature with name {name}.")

    def __getitem__(self, name: str) -> str:
        return str(self._find(name).shortDescription)

    def __setitem__(self, name: str, text: str) -> None:
        self._find(name).shortDescription = text

    def __delitem__(self, name: str) -> None:
        self._find(name).shortDescription = ""

    def __iter__(self) -> Iterator[str]:
        return iter([feature.name for feature in self._described])

    def __len__(self) -> int:
        return len(self._described)


ModelFile = str | os.PathLike[str] | bytes | model_pb2.Model
"""What `MLModel` takes: a path, the bytes of a file, or a message."""


class MLModel:
    """A Core ML model.

    Args:
        model: path of a `.mlmodel` file or of an `.mlpackage`, the bytes of the former, or a
            `Model` message (mlferry's or coremltools').
        custom_layers: classes of custom layers by class name, for this model only; they come
            before those of `register_custom_layer`.
        custom_models: likewise for custom models.
        engine: the library that runs neural networks and ML Programs: "numpy", or "onnxruntime"
            (the extra of this name), which is faster. Custom and random layers, and layers that
            ONNX cannot express, always run on NumPy.
        threads: how many a prediction uses at most; by default one per core.
        winograd: whether convolutions on NumPy may go by Winograd's tiles, which are faster and
            round about twice as much as a plain sum: some 1e-6 of the result's range. What is not
            finite shows in all results of its tile, 4 x 4 at most, and values far larger than
            those beside them cost these their digits.
        compiled: whether convolutions and pooling on NumPy go by kernels that Numba compiles, which
            are faster; by default where Numba is installed (the extra "compiled").
        widened: of ML Programs on NumPy: whether float16 weights stay in memory as float32 after
            their first use. False widens them in every run, which is slower and takes about half
            the memory. By default they stay if they take at most 64 MB in their file.
        precision: of ML Programs: "half" rounds values of float16 wherever the program does, as
            devices do; "exact" computes in float32 what the program means.
        function_name: the function of an ML Program to run, if it has several; by default the one
            that the model names.
        weights_dir: of ML Programs: the folder with the files of their weights, where `model` is
            a message or bytes.
        images: what `predict` gives for image outputs: "pil", images of Pillow, as on a Mac
            (`numpy.asarray` takes them; arrays where Pillow is not installed), or "array".
        useCPUOnly: accepted for scripts written for coremltools, like the next two; it has no
            effect.
        skip_model_load: see `useCPUOnly`.
        compute_units: see `useCPUOnly`.

    Raises:
        ModelFileError: the file is missing, cut off, or not a Core ML model.
        ValidationError: the model breaks rules without which its numbers are undefined.
        MissingDependencyError: the engine is not installed.
        RegistrationError: there is no such engine, or `threads` is below 1; or there is no
            such kind of images.
    """

    def __init__(
        self,
        model: ModelFile,
        *,
        custom_layers: Mapping[str, type[CustomLayer]] | None = None,
        custom_models: Mapping[str, type[CustomModel]] | None = None,
        engine: str = "numpy",
        threads: int | None = None,
        winograd: bool = True,
        compiled: bool | None = None,
        widened: bool | None = None,
        precision: str = "half",
        function_name: str | None = None,
        weights_dir: str | os.PathLike[str] | None = None,
        images: str = "pil",
        useCPUOnly: bool = False,
        skip_model_load: bool = False,
        compute_units: object = None,
    ) -> None:
        runs = engine_named(engine, threads, winograd=winograd, compiled=compiled, widened=widened)
        pictures.check_kind(images)
        spec, weights = read(model)
        if weights_dir is not None:
            weights = Weights.of_folder(Path(weights_dir))
        program = RunOptions(weights, precision, function_name)
        classes = CustomClasses(custom_layers or {}, custom_models or {}, runs, program)
        self._start(spec, classes, validate(spec, classes.program.weights), images)
        if function_name is not None or precision != "half":
            check_options(spec, program)

    def _start(
        self,
        spec: model_pb2.Model,
        classes: CustomClasses,
        problems: Sequence[Problem],
        images: str = "pil",
    ) -> None:
        self._spec, self._classes, self._images = spec, classes, images
        shown = spec.description.output if images == "pil" else ()
        self._image_outputs = pictures.names_of(shown)
        self._evaluator: Evaluator | None = None
        self._tape: Tape | None = None
        self._known_problems = list(problems)
        self._checked: bytes | None = None  # the message of a program that has these problems
        severe = [p for p in problems if p.severity == "error"]
        if severe:
            raise ValidationError("the model breaks the format's rules:", severe)

    @classmethod
    def adopt(cls, spec: model_pb2.Model, problems: Sequence[Problem]) -> MLModel:
        """A model that takes over a message, without a copy: nothing else may change it.

        Args:
            spec: the message.
            problems: what `validate` says of it.
        """
        model = cls.__new__(cls)
        model._start(spec, CustomClasses({}, {}), problems)
        return model

    def with_spec(
        self, spec: model_pb2.Model, *others: MLModel, weights: Weights | None = None
    ) -> MLModel:
        """Another model that runs like this one: with its classes, engine, images and options.

        Args:
            spec: the `Model` message of the new model, which is copied.
            others: models whose classes it needs as well. If this model runs on the default engine,
                it gets the first other engine of theirs.
            weights: the files of the constants of ML Programs; by default those of this model.

        Raises:
            ValidationError: the message breaks rules without which its numbers are undefined.
            RegistrationError: two of the models have different classes of the same name.
        """
        classes = self._classes
        for other in others:
            classes = classes.joined(other._classes)
        if weights is not None:
            classes = replace(classes, program=replace(classes.program, weights=weights))
        model = MLModel.__new__(type(self))
        copied, _ = read(spec)
        model._start(copied, classes, validate(copied, classes.program.weights), self._images)
        model._checked = _bytes_of_program(copied)
        return model

    def with_precision(self, precision: str) -> MLModel:
        """The same ML Program in another precision, "half" or "exact"; see `MLModel`.

        Raises:
            SpecError: there is no such precision.
        """
        program = replace(self._classes.program, precision=precision)
        check_options(self._spec, program)
        model = MLModel.__new__(type(self))
        classes = replace(self._classes, program=program)
        model._start(self._spec, classes, self._known_problems, self._images)
        return model

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator of the model, from features to features; made at its first use."""
        return self._prepared()

    def __reduce__(self) -> tuple[Any, ...]:
        """As its message, with the classes that it needs, registered ones too."""
        return _revived, (self._spec.SerializeToString(), self.classes_to_send, self._images)

    @property
    def classes_to_send(self) -> CustomClasses:
        """The classes that another process needs, with those that are registered in this one."""
        layers, models = dict(self._classes.layers), dict(self._classes.models)
        for spec in networks.models_in(self._spec):
            if spec.WhichOneof("Type") == "customModel":
                _add_registered(models, spec.customModel.className, CUSTOM_MODELS)
            network = networks.network_of(spec)
            for layer in networks.layers_of(network) if network is not None else ():
                if layer.WhichOneof("layer") == "custom":
                    _add_registered(layers, layer.custom.className, CUSTOM_LAYERS)
        return CustomClasses(layers, models, self._classes.engine, self._classes.program)

    # ---- description -------------------------------------------------------------------

    @property
    def short_description(self) -> str:
        """What the model does, for people who open it."""
        return self._spec.description.metadata.shortDescription

    @short_description.setter
    def short_description(self, text: str) -> None:
        self._spec.description.metadata.shortDescription = text

    @property
    def author(self) -> str:
        """Who made the model."""
        return self._spec.description.metadata.author

    @author.setter
    def author(self, text: str) -> None:
        self._spec.description.metadata.author = text

    @property
    def license(self) -> str:
        """The model's licence."""
        return self._spec.description.metadata.license

    @license.setter
    def license(self, text: str) -> None:
        self._spec.description.metadata.license = text

    @property
    def version(self) -> str:
        """The model's own version."""
        return self._spec.description.metadata.versionString

    @version.setter
    def version(self, text: str) -> None:
        self._spec.description.metadata.versionString = text

    @property
    def user_defined_metadata(self) -> MutableMapping[str, str]:
        """Further metadata, as a mapping that you can change."""
        return self._spec.description.metadata.userDefined

    @property
    def input_description(self) -> FeatureDescriptions:
        """Descriptions of the inputs by name."""
        return FeatureDescriptions(self._spec.description.input)

    @property
    def output_description(self) -> FeatureDescriptions:
        """Descriptions of the outputs by name."""
        return FeatureDescriptions(self._spec.description.output)

    def get_spec(self) -> model_pb2.Model:
        """A copy of the `Model` message."""
        copy = model_pb2.Model()
        copy.CopyFrom(self._spec)
        return copy

    @property
    def spec(self) -> model_pb2.Model:
        """The `Model` message itself, for reading; `get_spec` gives a copy."""
        return self._spec

    @property
    def custom_layers(self) -> Mapping[str, type[CustomLayer]]:
        """The classes of custom layers that were given with the model."""
        return self._classes.layers

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to a `.mlmodel` file or an `.mlpackage`; on an error, nothing is written.

        A program whose weights lie in a file beside it needs a package. An existing package is
        replaced.

        Returns:
            the path.

        Raises:
            ModelFileError: the suffix is another one, or the folder cannot be written.
            ValidationError: the model has problems that it did not have when it was loaded;
                nothing is written.
        """
        problems = [] if self._is_as_checked() else validate(self._spec, self.program_weights)
        severe = [p for p in problems if p.severity != "note" and p not in self._known_problems]
        if severe:
            raise ValidationError(f"{path} is not written: the model has problems:", severe)
        has_weight_files = has_blobs(self._spec)
        if Path(path).suffix == ".mlpackage":
            data = serialized(self._spec)
            weights = self._classes.program.weights
            return package.save_package(
                data,
                Path(path),
                weights.message,
                has_weight_files,
                weights.elsewhere,
                weights.memory,
            )
        if has_weight_files:
            raise ModelFileError(
                f"{path}: the weights of this model lie in a file beside it, which an .mlmodel "
                f"cannot hold: model.save({str(Path(path).with_suffix('.mlpackage'))!r})"
            )
        return io.save_spec(self._spec, path)

    def _is_as_checked(self) -> bool:
        """Whether nothing has changed since the model was checked; files of weights may have."""
        weights = self.program_weights
        in_files = weights.message is not None or weights.elsewhere
        return not in_files and self._checked == _bytes_of_program(self._spec) is not None

    @property
    def program_weights(self) -> Weights:
        """The files in which the constants of ML Programs lie."""
        return self._classes.program.weights

    @property
    def stored_size(self) -> int:
        """How many bytes the model takes in a file, with the files of its programs' weights."""
        return self._spec.ByteSize() + self.program_weights.size

    @property
    def precision(self) -> str:
        """The precision in which ML Programs run: "half" or "exact"."""
        return self._classes.program.precision

    @property
    def function_name(self) -> str | None:
        """The function of an ML Program that runs; None for the default one."""
        return self._classes.program.function

    @property
    def weights_dir(self) -> str | None:
        """The folder with the weights of ML Programs; None without such a folder, or with several.

        Weights that were not saved yet are written to a folder that is removed when Python ends, so
        that ``MLModel(model.get_spec(), weights_dir=model.weights_dir)`` is the same model.
        """
        weights = self.program_weights
        if weights.memory and not weights.elsewhere:
            return str(weights.written) if weights.written is not None else None
        folder = weights.folder / package.WEIGHTS if weights.folder is not None else None
        return str(folder) if folder is not None and folder.is_dir() else None

    def describe(self, against: MLModel | None = None) -> inspect.Description:
        """What Xcode shows of a model, and more: prints as text, `to_dict`, `html`.

        Args:
            against: the model before compression: adds how far each weight is from it.
        """
        weights = self.program_weights
        original = None if against is None else (against._spec, against.program_weights)
        return inspect.describe(self._spec, validate(self._spec, weights), weights, original)

    def visualize_spec(
        self,
        port: int | None = None,
        input_shape_dict: Mapping[str, Sequence[int]] | None = None,
        title: str = "Core ML model",
    ) -> Path:
        """Draw the model in the browser: see `mlferry.visualize_spec`; `port` is not used."""
        from mlferry.models.view import draw

        shapes = input_shape_dict or {}
        return draw(
            self._spec,
            self._classes.layers,
            shapes,
            None,
            title,
            open_browser=None,
            weights=self.program_weights,
        )

    def __repr__(self) -> str:
        return str(self.describe())

    def _repr_html_(self) -> str:
        return self.describe()._repr_html_()

    # ---- prediction --------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The plan that evaluates the network; `Session.run` gives any blob inside.

        Raises:
            UnsupportedModelError: the model is not a neural network.
            MissingCustomLayerError: custom classes are missing.
        """
        return self._network().session

    def _network(self) -> NetworkEvaluator:
        evaluate = self._prepared()
        if not isinstance(evaluate, NetworkEvaluator):
            kind = self._spec.WhichOneof("Type")
            raise UnsupportedModelError(f"a model of kind {kind!r} has no layers to look into")
        return evaluate

    def _prepared(self) -> Evaluator:
        """The evaluator of the model, made at its first use."""
        if self._evaluator is None:
            self._evaluator = prepare(self._spec, self._classes)
        return self._evaluator

    def _shown(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Results with images of the kind asked for."""
        return (
            pictures.as_pictures(outputs, self._image_outputs) if self._image_outputs else outputs
        )

    def intermediate(self, data: Mapping[str, Any], blobs: Sequence[str]) -> dict[str, Any]:
        """The blobs of a network, or the values of a program, for one sample, by name.

        In the classic mapping blobs have five axes, [Seq, Batch, C, H, W]; those that are outputs
        come as `predict` gives them.

        Args:
            data: as for `predict`.
            blobs: names of blobs; see `mlferry.shapes` for all of them.

        Raises:
            PredictionError: there is no such blob.
        """
        evaluate = self._transparent()
        values = evaluate.inside(data, blobs)
        return {name: evaluate.as_described(name, blob) for name, blob in values.items()}

    def blobs(self, data: Mapping[str, Any], blobs: Sequence[str]) -> dict[str, Any]:
        """As `intermediate`, with outputs as the network has them, too.

        Raises:
            PredictionError: there is no such blob.
        """
        return self._transparent().inside(data, blobs)

    def makers(self) -> dict[str, tuple[str, str]]:
        """The name and kind of the layer or operation that makes each blob or value.

        They come in order; those inside branches, loops and blocks are left out. In a pipeline, the
        name of its model and a slash stand before that of a layer, and before that of a blob where
        an earlier model has one of the same name.

        Raises:
            UnsupportedModelError: the model has neither layers nor operations.
        """
        return self._transparent().makers()

    def _transparent(self) -> Transparent:
        evaluate = self._prepared()
        if not isinstance(evaluate, Transparent):
            kind = self._spec.WhichOneof("Type")
            raise UnsupportedModelError(
                f"a model of kind {kind!r} has no layers or operations to look into"
            )
        return evaluate

    @overload
    def predict(
        self,
        data: Mapping[str, Any],
        state: State | bool | None = None,
        *,
        useCPUOnly: bool = False,
        executor: Executors | None = None,
    ) -> dict[str, Any]: ...
    @overload
    def predict(
        self,
        data: list[Mapping[str, Any]],
        state: State | bool | None = None,
        *,
        useCPUOnly: bool = False,
        executor: Executors | None = None,
    ) -> list[dict[str, Any]]: ...
    @overload
    def predict(
        self,
        data: Iterator[Mapping[str, Any]] | Path,
        state: State | bool | None = None,
        *,
        useCPUOnly: bool = False,
        executor: Executors | None = None,
    ) -> Iterator[dict[str, Any]]: ...

    def predict(
        self,
        data: Mapping[str, Any] | list[Mapping[str, Any]] | Iterator[Mapping[str, Any]] | Path,
        state: State | bool | None = None,
        *,
        useCPUOnly: bool = False,
        executor: Executors | None = None,
    ) -> dict[str, Any] | list[dict[str, Any]] | Iterator[dict[str, Any]]:
        """Evaluate the model.

        Args:
            data: a dict from input names to values, a list of such dicts, an iterator of such
                dicts, or the `Path` of a folder of pictures. Multi-arrays are arrays in the
                described shape, with or without a first axis of 1; images are PIL images, or arrays
                of 0 to 255 of shape [H, W, 3] (R, G, B) or [H, W].
            state: of a model that has one, see `make_state`; the prediction changes it. A boolean
                here is `useCPUOnly` of older scripts.
            useCPUOnly: accepted for scripts written for coremltools; it has no effect.
            executor: runs several samples at a time: a `concurrent.futures.Executor`, of processes
                here or of a Dask cluster, or a function that makes one; see
                `mlferry.models.workers`.

        Returns:
            The outputs by name, in the order of the description; a list for a list. Images
            come as PIL images, or, with ``MLModel(..., images="array")`` and where Pillow is not
            installed, as uint8 arrays [H, W, 3] or [H, W]; class probabilities as a dict from
            labels. For an iterator or
            a folder, an iterator: four samples for each core are in memory at a time, at most
            sixteen, or as many as the executor works on; pictures in the order of their names.

        Raises:
            PredictionError: a name, shape or value does not fit.
            MissingCustomLayerError: custom classes are missing.
            WorkerError: the executor cannot do it.
        """
        evaluate = self._prepared()
        if isinstance(state, State):
            return self._with_state(evaluate, data, state)
        if isinstance(data, Path):
            return self._pictures(data, executor)
        if isinstance(data, Iterator):
            return self._each(data, executor)
        if isinstance(data, list):
            return list(self._each(iter(data), executor, len(data)))
        return self._shown(evaluate(data))

    def gradient(
        self, data: Mapping[str, Any], output: Output, blobs: Sequence[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """The gradient of an output of a neural network with respect to its inputs.

        A map of the pixels that a classifier looks at is
        ``abs(model.gradient({"image": image}, ("classLabelProbs", "cat"))["image"]).max(axis=-1)``.

        Args:
            data: one sample, as for `predict`.
            output: the name of an output, or of a blob inside: the sum of its values is
                differentiated. Or the name with a place: a flat index, one index per axis, or a
                label of a classifier's probabilities.
            blobs: inputs, or blobs inside, to differentiate with respect to; by default all inputs.

        Returns:
            the gradients by name. That of a multi-array has its shape, that of an image
            is [height, width, 3] in the order R, G, B, or [height, width], for a pixel's value
            of 0 to 255; that of a blob inside has the blob's shape.

        Raises:
            UnsupportedModelError: the model is not a neural network, or the gradient has to pass a
                layer that has none.
            CustomLayerError: it has to pass a custom layer whose class has no `backward`.
            PredictionError: there is no such output, blob, place or label.
        """
        evaluate = self._prepared()
        if self._tape is None:
            self._tape = tape_for(self._spec, evaluate, self._classes.layers)
        return gradients(self._spec, self._network(), self._tape, data, output, blobs)

    # ---- training ----------------------------------------------------------------------

    def update(
        self,
        samples: Iterable[Mapping[str, Any]] | str | os.PathLike[str],
        epochs: int | None = None,
        parameters: Mapping[str, float] | None = None,
        progress: Progress | None = None,
    ) -> MLModel:
        """Train an updatable model, as `MLUpdateTask` does on a device.

        The model says how: which layers are trained, the loss, the optimizer with its numbers, the
        size of mini-batches, epochs, and whether samples are shuffled. A nearest-neighbours
        classifier remembers the samples; in a pipeline, the last model is trained.

        Args:
            samples: dicts from names to values: the inputs as for `predict`, and what the loss
                compares with, under the name of the training input; of a classifier its label.
                Or a folder of pictures, for a classifier of one image input: those of each label
                in a folder of its name. Or a folder of .npz files with these names.
            epochs: how often to go through the samples; by default the model's own number.
            parameters: values instead of the model's own, by the names of `MLParameterKey`:
                learningRate, momentum, beta1, beta2, eps, miniBatchSize, epochs, seed, shuffle,
                numberOfNeighbors. The model says which values it allows.
            progress: called after each epoch with a `mlferry.training.options.Moment`: the epoch,
                its loss, and more. It may return parameters that change from then on, or False to
                stop.

        Returns:
            the trained model, with the custom classes and the engine of this one, which stays as it
            is. The same samples and parameters give the same weights; a device shuffles
            differently.

        Raises:
            UnsupportedModelError: the model is not updatable, or a gradient has to pass a layer
                that has none.
            PredictionError: a sample does not fit, or the loss is no longer finite.
            SpecError: the model does not allow a parameter, or lacks a loss or an optimizer.
        """
        options = dict(parameters or {})
        if epochs is not None:
            options["epochs"] = epochs
        spec = self.get_spec()
        update(spec, self._classes, samples, options, progress)
        return self.with_spec(spec)

    def make_state(self) -> State:
        """The state of a model that has one, before the first prediction: zeros.

        Raises:
            UnsupportedModelError: the model has none.
        """
        evaluate = self._prepared()
        if not isinstance(evaluate, ProgramEvaluator) or not evaluate.session.states:
            raise UnsupportedModelError("the model has no state: model.predict(data)")
        return evaluate.make_state()

    def _with_state(self, evaluate: Evaluator, data: object, state: State) -> dict[str, Any]:
        if not isinstance(evaluate, ProgramEvaluator):
            raise UnsupportedModelError("the model has no state: model.predict(data)")
        if not isinstance(data, Mapping):
            raise PredictionError("with a state, samples are predicted one by one: give a dict")
        return self._shown(evaluate(data, state))

    def _each(
        self, data: Iterator[Mapping[str, Any]], executor: Executors | None, held: int = 0
    ) -> Iterator[dict[str, Any]]:
        """The results of samples, side by side if the network allows it; `held` are in memory."""
        evaluate = self._prepared()
        several = _several(evaluate) if executor is None else None
        if several is None:
            yield from in_order(_predicted, self, data, executor)
            return
        while samples := list(itertools.islice(data, several.count(held))):
            held = max(0, held - len(samples))
            try:
                results = several.evaluate(samples)
            except MlferryError:  # one sample is wrong: those before it have results
                results = None
            yield from map(self._shown, map(evaluate, samples) if results is None else results)

    def _pictures(self, folder: Path, executor: Executors | None) -> Iterator[dict[str, Any]]:
        """The results for the pictures of a folder; unreadable ones are left out."""
        from mlferry.models.samples import Unreadable, samples_for

        samples = samples_for(self._spec, folder)
        if executor is None:
            yield from self._each((sample.data for sample in samples), None)
            return
        shared = (self, samples.load)
        for result in in_order(_predicted_of, shared, samples.parcels(), executor):
            if isinstance(result, Unreadable):
                samples.add(result)
            else:
                yield result


@dataclass(frozen=True)
class _Several:
    """How to evaluate several samples at a time.

    Attributes:
        evaluate: gives their outputs, or None if they have to run one by one.
        count: says how many come next, where so many are in memory anyway.
    """

    evaluate: Callable[[list[Mapping[str, Any]]], list[dict[str, Any]] | None]
    count: Callable[[int], int]


def _several(evaluate: Evaluator) -> _Several | None:
    """None if samples have to run one by one."""
    if isinstance(evaluate, NetworkEvaluator) and evaluate.joins:
        return _Several(evaluate.many, lambda _: _SIDE_BY_SIDE)
    if isinstance(evaluate, Parallel):
        return _Several(evaluate.several, evaluate.next_count)
    return None


def _predicted(model: MLModel, data: Mapping[str, Any]) -> dict[str, Any]:
    return model.predict(data)


def _predicted_of(shared: tuple[MLModel, Any], parcel: tuple[str, Any]) -> Any:
    from mlferry.models.samples import Sample, loaded

    model, load = shared
    sample = loaded(load, *parcel)
    return model.predict(sample.data) if isinstance(sample, Sample) else sample


def _add_registered(classes: dict[str, Any], name: str, registered: Registry[Any]) -> None:
    entry = registered.find(name)
    if name not in classes and entry is not None:
        classes[name] = entry.value


def _revived(data: bytes, classes: CustomClasses, images: str) -> MLModel:
    model = MLModel.__new__(MLModel)
    spec = io.parse_spec(data, "the model")
    model._start(spec, classes, validate(spec, classes.program.weights), images)
    return model


ModelSource = MLModel | ModelFile
"""A model, or what `MLModel` takes."""
