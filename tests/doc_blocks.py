"""The code blocks of a page, and the files that they find."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

HOOKS = """
import mlferry


def convert_sampler(node):
    size = {"output_height": node.output_height, "output_width": node.output_width}
    return mlferry.CustomLayerParams("GridSampler", "samples at a moved grid", size)


custom_conversion_functions = {"GridSampler": convert_sampler}
"""

SHOWN_ONLY = ("text", "toml", "")


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Language, title and text of every block of a page."""
    for head, body in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        language, _, rest = head.partition(" ")
        yield language, rest.removeprefix('title="').removesuffix('"'), body


def program(text: str) -> str:
    """A page as one Python program: its Python, and its commands in a shell, in their order."""
    lines = ["from mlferry.cli import main as mlferry_command"]
    for language, title, body in blocks(text):
        if language == "python" and title:
            lines.append(f"open({title!r}, 'w').write({body!r})")
        elif language == "python":
            lines.append(body)
        elif language == "shell":
            for line in body.splitlines():
                words = shlex.split(line, comments=True)
                if words and words[0] == "mlferry":
                    lines.append(f"assert mlferry_command({words[1:]!r}) == 0, {line!r}")
                else:
                    assert not words or words[:2] == ["pip", "install"], line
    return "\n".join(lines)


def style_network(path: Path) -> None:
    """A network that halves its picture, doubles it again, and joins it with the picture."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

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
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)]), path)


def furnish(folder: Path, page: str) -> None:
    """The files that a page speaks of."""
    from PIL import Image

    transformer, pytorch = EXAMPLES / "spatial_transformer", EXAMPLES / "from_pytorch"
    copies = {
        "digits_stn.h5": transformer / "digits_stn.h5",
        "digits_stn.npz": transformer / "digits_test.npz",
        "grid_sampler.py": transformer / "grid_sampler.py",
        "layers.py": transformer / "grid_sampler.py",
        "digits.onnx": pytorch / "digits.onnx",
        "digits_test.npz": (transformer if page == "README.md" else pytorch) / "digits_test.npz",
    }
    for name, source in copies.items():
        (folder / name).write_bytes(source.read_bytes())
    (folder / "hooks.py").write_text(HOOKS)
    (folder / "labels.txt").write_text("\n".join("0123456789"))
    test = np.load(folder / "digits_stn.npz")
    np.save(folder / "digit.npy", test["x"][:1].astype(np.float32) / 255)
    pixels = np.load(pytorch / "digits_test.npz")["x"]
    (folder / "photos").mkdir()
    for index, image in enumerate(pixels[:5]):
        picture = Image.fromarray((image * 15.9).astype(np.uint8))
        picture.save(folder / "photos" / f"{index}.png")
        picture.save(folder / "digit.png")
    style_network(folder / "style.onnx")
