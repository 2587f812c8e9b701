"""Samples to run a model on: dicts, arrays, or a folder of pictures or arrays."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlferry.errors import MissingDependencyError, MlferryError, PredictionError
from mlferry.numerics.shapes import Array
from mlferry.spec.proto import features_pb2 as ft, model_pb2
from mlferry.text import logger_of

logger = logger_of(__name__)

SampleData = str | os.PathLike[str] | Mapping[str, Any] | Array | Iterable[Any]
"""Samples as users give them; see `samples_for`."""
Load = Callable[[Any], Mapping[str, Any]]

ARRAY_SUFFIXES = (".npz", ".npy")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")


@dataclass(frozen=True)
class Sample:
    """One sample: its name in reports, and its values by input."""

    name: str
    data: Mapping[str, Any]


class Samples:
    """Samples that are loaded when they are needed.

    Attributes:
        sources: the source of each, by name: its values, or a picture's path.
        load: gives the values of one.
        unreadable: pictures that could not be read, with the reason; complete after a pass.
    """

    def __init__(self, sources: Sequence[tuple[str, Any]], load: Load) -> None:
        self.sources, self.load = sources, load
        self.unreadable: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[Sample]:
        for name, source in self.sources:
            sample = loaded(self.load, name, source)
            if isinstance(sample, Unreadable):
                self.add(sample)
            else:
                yield sample

    def named(self, name: str) -> Sample | None:
        """The sample of a name; None if it cannot be read."""
        source = next((source for each, source in self.sources if each == name), None)
        sample = loaded(self.load, name, source)
        return sample if isinstance(sample, Sample) else None

    def add(self, unreadable: Unreadable) -> None:
        """Remember a picture that cannot be read."""
        logger.warning("%s cannot be read: %s", unreadable.name, unreadable.reason)
        self.unreadable[unreadable.name] = unreadable.reason

    def parcels(self) -> Iterator[tuple[str, Any]]:
        """Names and sources for other processes: pictures as the bytes of their files."""
        for name, source in self.sources:
            if not isinstance(source, Path):
                yield name, source
                continue
            try:
                yield name, source.read_bytes()
            except OSError as error:
                self.add(Unreadable(name, str(error)))


@dataclass(frozen=True)
class Unreadable:
    """A picture that cannot be read."""

    name: str
    reason: str


def loaded(load: Load, name: str, source: object) -> Sample | Unreadable:
    """Load a sample."""
    try:
        return Sample(name, load(source))
    except MlferryError:
        raise
    except Exception as error:  # Pillow raises its own, and others, for broken files
        return Unreadable(name, str(error))


@dataclass(frozen=True)
class _Pictures:
    """Makes the sample of a picture for one image input."""

    name: str
    image: ft.ImageFeatureType

    def __call__(self, source: Path | bytes) -> dict[str, Any]:
        return {self.name: picture_for(self.image, source)}


def samples_for(
    spec: model_pb2.Model | None, sample_data: SampleData, *, nested: bool = False
) -> Samples:
    """Samples of a model, from any form that users give.

    Args:
        spec: of the model, which says what its inputs are; None where only dicts can be given.
        sample_data: a list of dicts from input names to values; for a model of one input also an
            array of samples or a list of arrays or images; for a model of one image input also a
            folder of pictures (jpg, png, bmp, webp). A picture is converted to RGB or grey as the
            input requires, scaled (Lanczos) to cover the input's size without distortion, and
            cropped to its centre. Or a folder of arrays: a sample is an .npz file whose arrays are
            named like inputs, or an .npy file for a model of one input. Or a single such file.
        nested: whether to include files in subfolders.

    Raises:
        PredictionError: it is none of these, or empty.
        MissingDependencyError: pictures without Pillow.
    """
    if isinstance(sample_data, str | os.PathLike):
        return _folder(spec, Path(sample_data), nested)
    if isinstance(sample_data, Mapping):
        sample_data = [sample_data]
    if isinstance(sample_data, np.ndarray):
        sample_data = _split(_only_input(spec, "an array"), sample_data)
    try:
        values = list(sample_data)
    except TypeError as error:
        raise PredictionError(
            "sample data is a list of dicts from input names to values, an array, a list of "
            f"arrays, or the path of a folder of pictures or arrays, not a "
            f"{type(sample_data).__name__}"
        ) from error
    if not values:
        raise PredictionError("there is no sample in the sample data")
    if not all(isinstance(one, Mapping) for one in values):
        name = _only_input(spec, "a list of arrays").name
        values = [{name: one} for one in values]
    return Samples([(f"sample {index}", one) for index, one in enumerate(values)], dict)


def _only_input(spec: model_pb2.Model | None, form: str) -> Any:
    described = [] if spec is None else list(spec.description.input)
    required = [feature for feature in described if not feature.type.isOptional] or described
    if len(required) == 1:
        return required[0]
    names = ", ".join(repr(feature.name) for feature in described) or "unknown names"
    raise PredictionError(
        f"{form} is possible for models of one input; this one has {len(described)} ({names}): "
        "give a list of dicts"
    )


def _split(feature: model_pb2.FeatureDescription, array: Array) -> list[Array]:
    """An array of samples, one by one, each with a batch axis of 1 if the model has one."""
    if feature.type.WhichOneof("Type") == "imageType":
        color = feature.type.imageType.colorSpace == ft.ImageFeatureType.GRAYSCALE
        return [array] if array.ndim == (2 if color else 3) else list(array)
    shape = tuple(feature.type.multiArrayType.shape)
    if array.shape == shape:
        return [array]
    if array.ndim == len(shape) and shape and shape[0] == 1:
        return [array[index : index + 1] for index in range(len(array))]
    return list(array)


def _folder(spec: model_pb2.Model | None, folder: Path, nested: bool) -> Samples:
    """The samples in a folder, pictures or arrays; a file is a single sample."""
    if folder.is_file() and folder.suffix.lower() in (*SUFFIXES, *ARRAY_SUFFIXES):
        return _of_files(spec, folder.parent, [folder], nested)
    if not folder.is_dir():
        raise PredictionError(f"there is no folder {folder}")
    files = [path for path in (folder.rglob("*") if nested else folder.iterdir()) if path.is_file()]
    return _of_files(spec, folder, files, nested)


def _of_files(
    spec: model_pb2.Model | None, folder: Path, files: Sequence[Path], nested: bool
) -> Samples:
    pictures = sorted(path for path in files if path.suffix.lower() in SUFFIXES)
    arrays = sorted(path for path in files if path.suffix in ARRAY_SUFFIXES)
    if pictures and arrays:
        raise PredictionError(
            f"{folder} holds pictures and arrays, {pictures[0].name} and {arrays[0].name}: give "
            "each kind a folder of its own"
        )
    if arrays:
        return _named(folder, arrays, _Arrays(_names(spec)))
    feature = _only_input(spec, "a folder of pictures")
    if feature.type.WhichOneof("Type") != "imageType":
        raise PredictionError(
            f"a folder of pictures is possible for models of one image input; {feature.name!r} "
            "is none: give a list of dicts, a folder of arrays (.npz, .npy), or convert the model "
            "with an image input (mlferry.ImageType; in a shell --image)"
        )
    if not pictures:
        hint = "" if nested else "; for those in inner folders, set nested=True"
        raise PredictionError(
            f"{folder} holds no picture ({', '.join(SUFFIXES)}) and no arrays "
            f"({', '.join(ARRAY_SUFFIXES)}){hint}"
        )
    return _named(folder, pictures, _Pictures(feature.name, feature.type.imageType))


def _named(folder: Path, files: Sequence[Path], load: Load) -> Samples:
    return Samples([(str(path.relative_to(folder)), path) for path in files], load)


def _names(spec: model_pb2.Model | None) -> list[str]:
    """The required inputs, or all if none is required."""
    described = [] if spec is None else list(spec.description.input)
    required = [feature for feature in described if not feature.type.isOptional] or described
    return [feature.name for feature in required]


@dataclass(frozen=True)
class _Arrays:
    """Load a sample from a file of arrays.

    Attributes:
        names: of the inputs that a sample needs; an .npy file is for the only one.
    """

    names: Sequence[str]

    def __call__(self, source: Path | bytes) -> dict[str, Any]:
        stream = io.BytesIO(source if isinstance(source, bytes) else source.read_bytes())
        arrays = np.load(stream, allow_pickle=False)
        if not isinstance(arrays, np.ndarray):
            return {name: arrays[name] for name in arrays.files}
        if len(self.names) != 1:
            raise PredictionError(
                f"an .npy file is a sample of a model of one input; this one needs "
                f"{', '.join(self.names) or 'unknown ones'}: write .npz files, "
                "numpy.savez(path, NAME=array)"
            )
        return {self.names[0]: arrays}


_COLOURS = (ft.ImageFeatureType.RGB, ft.ImageFeatureType.BGR)


def picture_for(image: ft.ImageFeatureType, source: Path | bytes) -> Any:
    """A picture in the described size and mode of an image input; see `open_picture`."""
    mode = "RGB" if image.colorSpace in _COLOURS else "L"
    if image.colorSpace == ft.ImageFeatureType.GRAYSCALE_FLOAT16:
        mode = "F"
    return open_picture(source, (image.width, image.height), mode)


def open_picture(source: Path | bytes, size: tuple[int, int], mode: str) -> Any:
    """A picture scaled without distortion to cover a size (width, height), and cropped.

    The source is a path, or the bytes of a file.

    Raises:
        MissingDependencyError: Pillow is not installed.
        OSError: the file is not a picture.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise MissingDependencyError(
            "reading pictures needs Pillow: pip install 'mlferry[images]'"
        ) from error
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
        upright = ImageOps.exif_transpose(opened)
        picture = upright.convert("L" if mode == "F" else mode)
    if picture.size != size:
        picture = ImageOps.fit(picture, size, Image.Resampling.LANCZOS)
    return picture.convert(mode) if picture.mode != mode else picture
