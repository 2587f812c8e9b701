"""The curve of a training's loss, as text and as a picture."""

from __future__ import annotations

import importlib
import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlferry.errors import MissingDependencyError, ModelFileError
from mlferry.spec.io import write_atomic

_EIGHTHS = " ▁▂▃▄▅▆▇█"


def curve_text(losses: Sequence[float], width: int = 60, height: int = 6) -> str:
    """The losses of epochs as a chart of text, from 0 at the bottom to the highest at the top.

    Args:
        losses: one per epoch, finite, at least one; if there are more than `width`, their means.
        width: the most columns.
        height: the lines.
    """
    count = min(width, len(losses))
    bounds = [len(losses) * column // count for column in range(count + 1)]
    means = [sum(losses[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    top = max(*means, 0.0) if len(means) > 1 else max(means[0], 0.0)
    levels = [round(max(0.0, mean) / top * height * 8) if top else 0 for mean in means]
    rows = []
    for line in range(height - 1, -1, -1):
        cells = "".join(_EIGHTHS[min(8, max(0, level - line * 8))] for level in levels)
        mark = f"{top:10.4g}" if line == height - 1 else f"{0:10}" if line == 0 else " " * 10
        rows.append(f"{mark} |{cells}".rstrip())
    first, last = "epoch 1", str(len(losses))
    gap = " " * max(1, count - len(first) - len(last))
    rows.append(f"{'':10}  {first}{gap}{last}")
    return "\n".join(rows)


def curve_picture(losses: Sequence[float], path: Path) -> None:
    """Draw the losses of epochs as a PNG.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        ModelFileError: the path ends in something else, or cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise ModelFileError(f"{path}: the curve is drawn as a .png")
    try:
        agg: Any = importlib.import_module("matplotlib.backends.backend_agg")
        figures: Any = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise MissingDependencyError(
            "drawing the curve needs Matplotlib: pip install 'mlferry[plot]'"
        ) from error
    figure = figures.Figure(figsize=(6, 3.5), layout="constrained")
    agg.FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, marker="o" if len(losses) < 40 else "")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    write_atomic(path, drawn.getvalue())
