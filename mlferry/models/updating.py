"""Train updatable models of any kind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from mlferry.errors import PredictionError, SpecError, UnsupportedModelError, context
from mlferry.models.samples import samples_for
from mlferry.registry import did_you_mean
from mlferry.runtime.evaluators import prepare
from mlferry.runtime.evaluators.network import NetworkEvaluator, probability_blob
from mlferry.runtime.evaluators.registry import CustomClasses
from mlferry.spec import networks
from mlferry.spec.proto import model_pb2, neural_network_pb2 as nn
from mlferry.training.losses import loss_of
from mlferry.training.neighbors import remember
from mlferry.training.network import NetworkTrainer, TrainingSample
from mlferry.training.options import Parameters, Progress

Features = Mapping[str, Any]


def update(
    spec: model_pb2.Model,
    classes: CustomClasses,
    samples: Iterable[Features] | str | os.PathLike[str],
    parameters: Parameters,
    progress: Progress | None,
) -> None:
    """Train a model, in place.

    Args:
        spec: the model.
        classes: its custom classes, and its engine.
        samples: see `MLModel.update`.
        parameters: likewise.
        progress: likewise.

    Raises:
        UnsupportedModelError: the model is not updatable, or of a kind that is not trained here.
        PredictionError: a sample does not fit.
        SpecError: the model's training parameters are inconsistent.
    """
    if not spec.isUpdatable:
        raise UnsupportedModelError(
            "the model is not updatable: mlferry.models.neural_network.NeuralNetworkBuilder("
            "spec=model.get_spec()).make_updatable(['name of a layer']), and a loss, an optimizer "
            "and epochs, make it one; see docs/training.md"
        )
    kind = spec.WhichOneof("Type") or ""
    with context(f"training a model of kind {kind!r}"):
        labelled = list(_labelled(spec, samples))
        if not labelled:
            raise PredictionError("there is no sample to train with")
        _train(spec, classes, labelled, parameters, progress)


def _train(
    spec: model_pb2.Model,
    classes: CustomClasses,
    samples: Sequence[Features],
    parameters: Parameters,
    progress: Progress | None,
) -> None:
    pipeline = networks.pipeline_of(spec)
    if pipeline is not None:
        last = pipeline.models[-1]
        _train(last, classes, _until_last(pipeline, samples, classes), parameters, progress)
    elif networks.network_of(spec) is not None:
        _train_network(spec, classes, samples, parameters, progress)
    elif spec.WhichOneof("Type") == "kNearestNeighborsClassifier":
        name = spec.description.predictedFeatureName
        labels = [_label(spec, data, name, number) for number, data in enumerate(samples)]
        inputs = [feature.name for feature in spec.description.input]
        rows = [{key: data[key] for key in inputs if key in data} for data in samples]
        remember(spec, list(zip(rows, labels, strict=True)), parameters)
    else:
        raise UnsupportedModelError(
            f"models of kind {spec.WhichOneof('Type')!r} are not trained; possible are neural "
            "networks, nearest-neighbours classifiers, and pipelines that end with one"
        )


def _until_last(
    pipeline: model_pb2.Pipeline, samples: Sequence[Features], classes: CustomClasses
) -> list[dict[str, Any]]:
    """The inputs and targets of the last model of a pipeline, for samples of the pipeline."""
    steps = [(inner.description, prepare(inner, classes)) for inner in pipeline.models[:-1]]
    names = _training_names(pipeline.models[-1])
    results = []
    for data in samples:
        features = dict(data)
        for description, step in steps:
            features |= step(
                {f.name: features[f.name] for f in description.input if f.name in features}
            )
        # an earlier model may make a feature with the name of the label
        features |= {name: data[name] for name in names if name in data}
        results.append({name: features[name] for name in names if name in features})
    return results


def _training_names(spec: model_pb2.Model) -> list[str]:
    """The names of the training inputs of a model."""
    description = spec.description
    names = [feature.name for feature in (*description.input, *description.trainingInput)]
    network = networks.network_of(spec)
    if network is not None:
        names += [_target_name(spec, network)]
    elif spec.WhichOneof("Type") == "kNearestNeighborsClassifier":
        names.append(description.predictedFeatureName)
    return list(dict.fromkeys(names))


def _target_name(spec: model_pb2.Model, network: networks.Network) -> str:
    """The target of the loss: for a classifier's probabilities, the label."""
    loss = loss_of(network)
    if _of_label(network, loss.input):
        return spec.description.predictedFeatureName
    return loss.target


def _of_label(network: networks.Network, blob: str) -> bool:
    return isinstance(network, nn.NeuralNetworkClassifier) and blob == probability_blob(network)


def _train_network(
    spec: model_pb2.Model,
    classes: CustomClasses,
    samples: Sequence[Features],
    parameters: Parameters,
    progress: Progress | None,
) -> None:
    network = networks.network_of(spec)
    assert network is not None
    evaluate = prepare(spec, classes)
    assert isinstance(evaluate, NetworkEvaluator)
    trainer = NetworkTrainer(network, classes.layers, evaluate.session, parameters)
    target = _target_name(spec, network)
    of_label = _of_label(network, trainer.loss.input)
    labels = networks.class_labels(network) if of_label else []
    inputs = {feature.name for feature in spec.description.input}
    training_samples = []
    for number, data in enumerate(samples):
        _check_names(data, inputs, target, number)
        value: Any = data[target]
        if of_label:
            value = _place(_label(spec, data, target, number), labels, number)
        blobs = evaluate.blobs({name: data[name] for name in data if name in inputs})
        training_samples.append(TrainingSample(blobs, trainer.loss.prepared(value, target)))
    trainer.train(training_samples, progress)
    trainer.write()


def _check_names(data: Features, inputs: set[str], target: str, number: int) -> None:
    if target not in data:
        close = did_you_mean(target, list(data))
        raise PredictionError(
            f"sample {number} has no {target!r}, which the model is trained with; it has "
            f"{', '.join(map(repr, data))}.{close}"
        )
    unknown = [name for name in data if name not in inputs and name != target]
    if unknown:
        close = did_you_mean(unknown[0], [*inputs, target])
        raise PredictionError(
            f"sample {number} has {unknown[0]!r}; the model is trained with "
            f"{', '.join(map(repr, [*sorted(inputs), target]))}.{close}"
        )


def _label(spec: model_pb2.Model, data: Features, name: str, number: int) -> str | int:
    """The label of a sample, with the type of the model's labels."""
    if name not in data:
        raise PredictionError(f"sample {number} has no {name!r}, its label")
    label = data[name]
    if hasattr(label, "item"):
        label = label.item()
    kind = spec.WhichOneof("Type") or ""
    texts = getattr(spec, kind).WhichOneof("ClassLabels") != "int64ClassLabels"
    if texts and isinstance(label, str):
        return label
    if not texts and isinstance(label, int) and not isinstance(label, bool):
        return label
    raise PredictionError(
        f"the label {name!r} of sample {number} is {'text' if texts else 'an integer'}, not "
        f"{label!r:.80}"
    )


def _place(label: str | int, labels: Sequence[str | int], number: int) -> int:
    if label not in labels:
        close = did_you_mean(str(label), [str(each) for each in labels])
        raise PredictionError(
            f"sample {number} has the label {label!r}; the classifier knows "
            f"{', '.join(map(repr, labels[:10]))}{', ...' if len(labels) > 10 else ''}.{close}"
        )
    return labels.index(label)


# ---- samples of a folder ----------------------------------------------------------------------


def _labelled(
    spec: model_pb2.Model, samples: Iterable[Features] | str | os.PathLike[str]
) -> Iterable[Features]:
    """Samples as given; pictures in folders get the folder's name as label."""
    if not isinstance(samples, str | os.PathLike):
        return samples
    last = spec
    while (pipeline := networks.pipeline_of(last)) is not None:
        last = pipeline.models[-1]
    results = []
    for sample in samples_for(spec, samples, nested=True):
        data = dict(sample.data)
        input_names = {feature.name for feature in spec.description.input}
        if not data.keys() - input_names:
            data |= _label_of_folder(last, sample.name)
        results.append(data)
    return results


def _label_of_folder(spec: model_pb2.Model, name: str) -> dict[str, Any]:
    kind = spec.WhichOneof("Type") or ""
    label = spec.description.predictedFeatureName
    holder = getattr(spec, kind)
    if not label or "ClassLabels" not in holder.DESCRIPTOR.oneofs_by_name:
        raise SpecError(
            "a folder of pictures is for classifiers, whose labels are the names of the folders "
            "inside; give a list of dicts, or a folder of .npz files with the target"
        )
    folder = PurePath(name).parent.name
    if not folder:
        raise PredictionError(
            f"{name} lies in no folder with the name of its label: put it into folder/LABEL/{name}"
        )
    if holder.WhichOneof("ClassLabels") != "int64ClassLabels":
        return {label: folder}
    try:
        return {label: int(folder)}
    except ValueError:
        raise PredictionError(
            f"the labels of the model are integers; the folder of {name} is {folder!r}"
        ) from None
