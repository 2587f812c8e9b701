"""The results of a comparison of two models: numbers by output and by sample, and their text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mlferry.models.agreement import Margins
from mlferry.text import paragraph, printable


@dataclass(frozen=True)
class Energy:
    """The components of a signal-to-noise ratio.

    Attributes:
        signal: the sum of the squares of the first model's values.
        noise: the sum of the squares of the differences.
        peak: the largest magnitude of the first model's values.
        count: how many values there are.
    """

    signal: float
    noise: float
    peak: float
    count: int

    @classmethod
    def pooled(cls, parts: Sequence[Energy]) -> Energy:
        """Of all values of several arrays."""
        return cls(
            sum(part.signal for part in parts),
            sum(part.noise for part in parts),
            float(np.max([part.peak for part in parts])),  # keeps NaN
            sum(part.count for part in parts),
        )

    @property
    def snr(self) -> float:
        """Signal over noise, in dB."""
        return math.inf if self.noise == 0 else decibels(self.signal, self.noise)

    @property
    def psnr(self) -> float:
        """The square of the peak over the mean noise, in dB."""
        if self.noise == 0:
            return math.inf
        return decibels(self.peak * self.peak, self.noise / self.count)


@dataclass(frozen=True)
class Row:
    """One sample and one output.

    Attributes:
        sample: the name of the sample: its number, or the picture's file.
        output: the name of the output.
        numbers: the measures of this output for this sample.
        score: how well they agree, higher is better; `worst` sorts by it.
        energy: of an array, the components of its ratios.
        margins: of scores, the margins behind their expected agreement.
    """

    sample: str
    output: str
    numbers: dict[str, Any]
    score: float
    energy: Energy | None = None
    margins: Margins | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the margins, as plain dicts, numbers and strings."""
        return asdict(replace(self, margins=None))


@dataclass(frozen=True)
class OutputReport:
    """One output over all samples.

    Attributes:
        name: of the output.
        kind: "label", "probabilities" or "array" (numbers and images too).
        numbers: for labels: `top1`, the part of samples with the same label. For probabilities:
            `top1` (the same best label) and `top5` (the first model's best label is among the
            second's best five), from 0 to 1; `expected_top1` and `expected_top5`, the same from the
            margins between the scores, which are nearer to what other samples give; `kl`, the mean
            Kullback-Leibler divergence of the second model's scores from the first's, in nats; and
            `largest_difference`. For arrays: `snr` and `psnr` (dB) of the values of all samples
            together, `worst_snr` of the sample with the smallest one, means over the samples of
            `mean_difference` and `cosine`, and `largest_difference` of all. Vectors also have the
            numbers of probabilities, as they may be scores of classes; scores that are not chances
            go through softmax.
        intervals: 95 % intervals of `top1` and `top5` (`mlferry.models.agreement.wilson`).
        count: the number of samples.
    """

    name: str
    kind: str
    numbers: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    count: int = 0

    @property
    def keys(self) -> list[str]:
        """The numbers to show; a single sample has no rates."""
        return [key for key in self.numbers if self.count != 1 or not key.startswith("expected")]

    def lines(self) -> list[str]:
        """What is printed."""
        lines = [f"  {self.label(key):<20} {self.shown(key)}" for key in self.keys]
        title = f"Output {self.name}:"
        return [title, "-" * len(title), *lines]

    def label(self, key: str) -> str:
        """The label of a number; a single sample has no rate of agreement."""
        return LABELS[key].replace(" agreement", "") if self.count == 1 else LABELS[key]

    def shown(self, key: str) -> str:
        """A number with its unit, a rate with its interval; "" if there is no such number."""
        if key not in self.numbers:
            return ""
        if self.count == 1 and key in self.intervals:
            return "agrees" if self.numbers[key] else "differs"
        text = show(key, self.numbers[key])
        if key not in self.intervals:
            return text
        low, high = self.intervals[key]
        return f"{text} ({100 * low:.1f} to {high:.1%})"


LABELS = {
    "top1": "Top 1 agreement:",
    "top5": "Top 5 agreement:",
    "expected_top1": "Top 1, expected:",
    "expected_top5": "Top 5, expected:",
    "kl": "KL divergence:",
    "snr": "SNR:",
    "worst_snr": "SNR, worst sample:",
    "psnr": "PSNR:",
    "largest_difference": "Largest difference:",
    "mean_difference": "Mean difference:",
    "cosine": "Cosine:",
}


def show(key: str, value: float) -> str:
    """A number with its unit."""
    if key.endswith(("top1", "top5")):
        return f"{value:.2%}"
    if key in ("snr", "worst_snr", "psnr"):
        return f"{value:.2f} dB"
    return f"{value:.6f}" if key == "cosine" else f"{value:.4g}"


@dataclass(frozen=True)
class BlobDifference:
    """How far a blob is from that of the same name in another network, for one sample.

    Attributes:
        blob: its name.
        layer: the layer of the first network that makes it, and its kind.
        relative: the root of the mean squared difference, divided by that of the first network's
            values; NaN where the shapes differ.
    """

    blob: str
    layer: str
    kind: str
    relative: float


@dataclass(frozen=True)
class Comparison:
    """What `compare_models` found; prints as a table.

    Attributes:
        count: how many samples were compared.
        outputs: a report by output.
        rows: every sample and output.
        unreadable: pictures that could not be read, with the reason.
        sizes: of both models in bytes, where they are Core ML models.
        pictures: of the samples that agree least, as PNG files; where an input looks like one.
        depth: how far the values inside are apart for the sample that agrees least, from the first
            layer to the last; if you asked for it, and both have blobs of the same names.
    """

    count: int
    outputs: dict[str, OutputReport]
    rows: list[Row]
    unreadable: dict[str, str] = field(default_factory=dict)
    sizes: tuple[int, int] | None = None
    pictures: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)
    depth: list[BlobDifference] = field(default_factory=list)

    @property
    def top1(self) -> float:
        """The part of samples with the same best label.

        Raises:
            KeyError: no output is a label.
        """
        return self._first("top1")

    @property
    def top5(self) -> float:
        """The part of samples whose best label in the first model is in the second's best five.

        Raises:
            KeyError: no output is a dictionary of probabilities.
        """
        return self._first("top5")

    def _first(self, key: str) -> float:
        for output in self.outputs.values():
            if key in output.numbers:
                return output.numbers[key]
        raise KeyError(f"no output has {key}; they have {[*self.outputs]}")

    def worst(self, count: int = 5, output: str | None = None) -> list[Row]:
        """The rows that agree least, the worst one first."""
        rows = [row for row in self.rows if output in (None, row.output)]
        return sorted(rows, key=lambda row: row.score)[:count]

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, as plain dicts, lists, numbers and strings."""
        plain = asdict(replace(self, rows=[], pictures={}))
        del plain["pictures"]
        return plain | {"rows": [row.to_dict() for row in self.rows]}

    def __str__(self) -> str:
        lines = [f"Compared {self.count} sample{'s' * (self.count != 1)}"]
        for output in self.outputs.values():
            lines += ["", *output.lines()]
            lines += self._answers(output.name)
        if self.unreadable:
            lines += ["", f"Not readable: {', '.join(self.unreadable)}"]
        return paragraph(lines)

    __repr__ = __str__

    def _answers(self, output: str) -> list[str]:
        """The answers of both models, if there is one sample and its answers are labels."""
        rows = [row for row in self.rows if row.output == output and "first" in row.numbers]
        if self.count != 1 or not rows:
            return []
        return [f"  {'Answers:':<20} {' and '.join(answers(rows[0].numbers))}"]


def answers(numbers: Mapping[str, Any]) -> list[str]:
    """What both models answer for a sample, with the score where it is known."""
    texts = []
    for which in ("first", "second"):
        score = numbers.get(f"{which}_score")
        text = printable(str(numbers[which]))
        texts.append(text if score is None else f"{text} ({score:.4g})")
    return texts


def decibels(signal: float, noise: float) -> float:
    """Signal over noise."""
    return 10 * math.log10(signal / noise) if signal > 0 else (-math.inf if noise else math.nan)
