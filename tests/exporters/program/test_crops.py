"""Boxes cut out of images, in every opset: beyond an image the pixels of its edge count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlferry
from mlferry.layers.builder import Builder
from tests.exporters.program.support import checked, kinds, read_by_coremltools

INSIDE = [[1.0, 0.5, 3.5, 4.0], [0.0, 0.0, 4.0, 5.0]]
BEYOND = [[-2.0, -1.0, 3.0, 8.0], [2.0, 2.5, 9.0, 4.0]]
RNG = np.random.default_rng(5)


def cropping(boxes: np.ndarray, images: int, *, known: bool, **options: Any) -> mlferry.MLModel:
    b = Builder()
    b.input("x", (1, images, 3, 5, 6))
    if known:
        b.layer("loadConstant", "k", [], ["boxes"], shape=boxes.shape[-3:], data=boxes)
    else:
        b.input("boxes", boxes.shape)
    b.layer("cropResize", "c", ["x", "boxes"], ["y"], targetSize=[3, 4], **options)
    b.output("y")
    return mlferry.MLModel(b.model())


def as_blob(boxes: list[list[float]], which: tuple[int, ...] = ()) -> np.ndarray:
    rows = [[*which[k : k + 1], *box] for k, box in enumerate(boxes)]
    return np.float32(rows)[:, None, :, None, None]


def compared(model: mlferry.MLModel, boxes: np.ndarray, target: str, folder: Path) -> list[str]:
    """The operations of the program, whose values are the network's."""
    shape = tuple(model.spec.description.input[0].type.multiArrayType.shape)
    sample = {"x": RNG.normal(size=shape).astype(np.float32)}
    if len(model.spec.description.input) > 1:
        sample["boxes"] = boxes
    right = model.predict(sample)["y"]
    program = checked(
        mlferry.to_program(model, minimum_deployment_target=target, compute_precision="float32")
    )
    read_by_coremltools(program, folder)
    for engine in ("numpy", "onnxruntime"):
        again = mlferry.MLModel(program.spec, engine=engine, weights_dir=program.weights_dir)
        actual = again.predict(sample)["y"]
        np.testing.assert_allclose(actual, right, rtol=1e-5, atol=1e-5)
    return kinds(program.spec)


CODINGS = ["CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST",
           "CENTER_SIZE_WIDTH_FIRST"]  # fmt: skip
SAMPLINGS = ["STRICT_ALIGN_ENDPOINTS_MODE", "ALIGN_ENDPOINTS_MODE", "UPSAMPLE_MODE",
             "ROI_ALIGN_MODE"]  # fmt: skip


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("coding", CODINGS)
def test_boxes_beyond_one_of_several_images(coding: str, sampling: str, tmp_path: Path) -> None:
    """The op of CoreML5 has these for one image alone, later ones have zeros beyond it."""
    boxes = as_blob(BEYOND, (1, 0))
    model = cropping(boxes, 2, known=False, mode={"samplingMethod": sampling},
                     boxIndicesMode={"boxMode": coding}, spatialScale=0.75)  # fmt: skip
    assert "crop_resize" not in compared(model, boxes, "iOS18", tmp_path)


@pytest.mark.parametrize("target", ["iOS15", "iOS16", "iOS17", "iOS18"])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("boxes", [INSIDE, BEYOND], ids=["inside", "beyond"])
@pytest.mark.parametrize(
    ("which", "images"), [((), 1), ((), 2), ((0, 0), 1), ((1, 0), 2)],
    ids=["one", "two", "indexed", "indexed of two"],
)  # fmt: skip
def test_boxes(
    which: tuple[int, ...], images: int, boxes: list[list[float]], known: bool, target: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    blob = as_blob(boxes, which)
    if known:
        blob = blob[:1]  # the layer of constants has no axis in front
    model = cropping(blob, images, known=known, mode={"samplingMethod": "ALIGN_ENDPOINTS_MODE"})
    compared(model, blob, target, tmp_path)
