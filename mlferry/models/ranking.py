"""The answer of a classifier as text: its likeliest classes, with bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlferry.models import agreement
from mlferry.spec.proto import model_pb2
from mlferry.text import paragraph

_BAR = 30  # cells of a full bar
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Ranking:
    """The classes of one sample; prints the five likeliest.

    Attributes:
        label: what the model predicts.
        scores: of every class, as the model gives them.
        chances: of every class; if scores are not chances, their softmax.
        others: the names of further outputs.
    """

    label: str | int
    scores: dict[Any, float] = field(repr=False)
    chances: dict[Any, float]
    others: list[str]

    def best(self, count: int = agreement.TOP) -> list[Any]:
        """The likeliest classes, the first one first."""
        return sorted(self.chances, key=lambda each: -self.chances[each])[:count]

    def __str__(self) -> str:
        best = self.best()
        width = max(len(str(each)) for each in best)
        texts = [
            f"{each!s:{width}}  {self.chances[each]:>6.1%}  {bar(self.chances[each])}".rstrip()
            for each in best
        ]
        if self.chances != self.scores:
            texts.append("the model gives scores, not chances: these are of their softmax")
        if self.others:
            texts.append(f"other outputs: {', '.join(self.others)}")
        return paragraph(texts)


def bar(part: float) -> str:
    """A bar for a number from 0 to 1, to an eighth of a cell."""
    eighths = round(min(max(part, 0.0), 1.0) * _BAR * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def ranking(description: model_pb2.ModelDescription, outputs: Mapping[str, Any]) -> Ranking | None:
    """The classes in a prediction of a classifier; None for any other model.

    Args:
        description: of the model.
        outputs: of one sample.
    """
    label, name = description.predictedFeatureName, description.predictedProbabilitiesName
    scores = outputs.get(name)
    if label not in outputs or not isinstance(scores, Mapping) or not scores:
        return None
    values = np.array([*scores.values()], np.float64)
    if not np.isfinite(values).all():
        return None
    plain = {key: float(value) for key, value in scores.items()}
    chances = plain
    if not agreement.are_chances(values):
        logs = agreement.log_chances(values)
        chances = dict(zip(plain, np.exp(logs).tolist(), strict=True))
    others = [each for each in outputs if each not in (label, name)]
    return Ranking(outputs[label], plain, chances, others)
