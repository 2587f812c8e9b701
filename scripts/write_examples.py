"""Write the files of mlferry/examples/files that are made of others: pictures, a sample, a network.

    python scripts/write_examples.py [FOLDER]

The models and their test data are written by the `train.py` of examples/spatial_transformer and
examples/from_pytorch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

FILES = Path(__file__).resolve().parent.parent / "mlferry" / "examples" / "files"
PHOTOS = 20


def pictures(folder: Path) -> None:
    """`photos/`, the first test pictures of the small reader, and `digit.png`, one of them."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(np.load(FILES / "digits.npz")["x"][:PHOTOS]):
        picture = Image.fromarray((image * 15.9).astype(np.uint8))
        picture.save(folder / "photos" / f"{index:02}.png", optimize=True)
        if index == 0:
            picture.save(folder / "digit.png", optimize=True)


def sample(folder: Path) -> None:
    """`digit.npy`, a sample of the reader with a spatial transformer: float32 [1, 40, 40, 1]."""
    test = np.load(FILES / "digits_stn.npz")
    np.save(folder / "digit.npy", test["x"][:1].astype(np.float32) / 255)


def style(folder: Path) -> None:
    """`style.onnx`: halves its picture, doubles it again, and joins it with the picture."""
    weights = np.ones((3, 3, 3, 3), np.float32) / 27
    scales = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["half"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Resize", ["half", "", "scales"], ["twice"], mode="nearest",
                         coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        helper.make_node("Concat", ["image", "twice"], ["styled"], axis=1),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "style",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("styled", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(scales, "scales")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "style.onnx")


def main() -> None:
    """Write all of them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FILES
    for write in (pictures, sample, style):
        write(folder)


if __name__ == "__main__":
    main()
