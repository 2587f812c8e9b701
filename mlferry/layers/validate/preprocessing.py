"""Rules about the preprocessing of image inputs."""

from __future__ import annotations

from mlferry.layers.validate.rules import network_rule
from mlferry.spec import networks
from mlferry.spec.problems import Problems, error, hint, warning, within
from mlferry.spec.proto import features_pb2 as ft, model_pb2

_CHANNELS = {ft.ImageFeatureType.RGB: 3, ft.ImageFeatureType.BGR: 3}


@network_rule
def preprocessing(spec: model_pb2.Model, network: networks.Network) -> Problems:
    """Each step names an image input and does something sensible to it.

    A step without a name is for every image: early converters wrote such files.
    """
    images = {
        feature.name: feature.type.imageType
        for feature in spec.description.input
        if feature.type.WhichOneof("Type") == "imageType"
    }
    for index, step in enumerate(network.preprocessing):
        place = f"preprocessing {index}"
        kind = step.WhichOneof("preprocessor")
        if step.featureName and step.featureName not in images:
            known = hint(step.featureName, images)
            yield warning(f"featureName {step.featureName!r} is not an image input.{known}", place)
        if kind is None:
            yield warning("it does nothing: neither scaler nor meanImage is set", place)
        elif kind == "scaler" and step.scaler.channelScale == 0:
            yield warning("scaler.channelScale is 0: every pixel becomes the bias; write 1", place)
        elif kind == "meanImage":
            targets = [step.featureName] if step.featureName else list(images)
            for name in targets:
                if name in images:
                    size = len(step.meanImage.meanImage)
                    yield from within(place, _mean_image(size, name, images[name]))


def _mean_image(size: int, name: str, image: ft.ImageFeatureType) -> Problems:
    channels = _CHANNELS.get(image.colorSpace, 1)
    expected = channels * image.height * image.width
    if image.WhichOneof("SizeFlexibility") is None and size != expected:
        yield error(
            f"meanImage has {size} values; input {name!r} has {channels} x {image.height} x "
            f"{image.width} = {expected}"
        )
