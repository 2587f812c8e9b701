"""`search_quantization`: the smallest model that is still good enough."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, NamedTuple

from mlferry.errors import (
    MissingDependencyError,
    MlferryError,
    SpecError,
    UnsupportedModelError,
)
from mlferry.models import agreement, charts, html_page
from mlferry.models.charts import Mark
from mlferry.models.compare import Report, SampleRows, report_of, rows_of
from mlferry.models.comparison import OutputReport
from mlferry.models.facts import readable_size
from mlferry.models.model import MLModel
from mlferry.models.problems import has_programs
from mlferry.models.programs import is_program
from mlferry.models.quantization.api import program_bits, quantize_weights
from mlferry.models.samples import SampleData, samples_for
from mlferry.models.workers import Executors, Team

METRICS = ("top1", "top5", "snr", "psnr", "cosine")
MODES = ("linear", "kmeans")
Metric = str | Callable[[Report], float]


@dataclass(frozen=True)
class Trial:
    """One setting, with its size and how near its model is to the float model.

    Attributes:
        mode: of `quantize_weights`.
        bits: of a weight.
        size: of its model, in bytes.
        score: the metric over all samples.
        meets: whether it is good enough: its `criterion` reaches the target, and so does the upper
            end of its interval.
        calibrated: whether it was quantized with samples.
        interval: of a rate (top1, top5): from where to where it lies in 95 % of cases.
        expected: of a rate, where there are scores: the rate that the margins between them tell,
            which moves less from sample to sample.
        kl: where there are scores: their mean Kullback-Leibler divergence, in nats.
        needed: how many samples would tell it from the target; None where no number does, or the
            metric is no rate.
    """

    mode: str
    bits: int
    size: int
    score: float
    meets: bool
    calibrated: bool = False
    interval: tuple[float, float] | None = None
    expected: float | None = None
    kl: float | None = None
    needed: int | None = None

    @property
    def criterion(self) -> float:
        """What has to reach the target: the expected rate where there is one, else the score."""
        return self.score if self.expected is None else self.expected

    @property
    def way(self) -> str:
        """The mode, and whether samples were used."""
        return f"{self.mode}, calibrated" if self.calibrated else self.mode


@dataclass(frozen=True)
class Search:
    """What `search_quantization` found; prints as a table.

    Attributes:
        model: the smallest one that meets the target, quantized with all samples where `best` is
            calibrated.
        best: its setting.
        trials: every setting that was tried.
        metric: the name of the score.
        target: what the score had to reach.
        full_size: of the float model, in bytes.
        count: how many samples measured every setting.
        needed: of rates: with how many samples an interval can lie above the target at all.
    """

    model: MLModel
    best: Trial
    trials: list[Trial]
    metric: str
    target: float
    full_size: int
    count: int = 0
    needed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the model, as plain dicts, lists, numbers and strings."""
        rows = [asdict(trial) for trial in self.trials]
        return {
            "best": asdict(self.best),
            "trials": rows,
            "metric": self.metric,
            "target": self.target,
            "full_size": self.full_size,
            "count": self.count,
            "needed": self.needed,
        }

    def __str__(self) -> str:
        lines = [_table(self.trials, self.metric, self.target, self.best)]
        if self.needed is not None:
            lines.append(_advice(self.best, self.count, self.needed, self.target))
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_page.fragment(
            f"<h2>The smallest: {escape(self.best.way)}, {self.best.bits} bits</h2>"
            + html_page.tiles(self._figures())
            + self._chart()
            + html_page.table(_cells(self.trials, self.metric, self.best), _HEAD)
        )

    def _figures(self) -> Iterator[tuple[str, str, str]]:
        best = self.best
        yield f"{readable_size(self.full_size)} → {readable_size(best.size)}", "size", ""
        note = f"target {_shown(self.metric, self.target)}"
        if best.interval is not None:
            low, high = best.interval
            note += f"; {100 * low:.1f} to {high:.1%} in 95 % of cases"
        yield _shown(self.metric, best.score), self.metric, note
        needed = "" if self.needed is None else f"the target takes {self.needed}"
        yield str(self.count), "samples", needed

    def _chart(self) -> str:
        """Size against score, a line a mode."""
        unit, name = (1e6, "MB") if self.full_size >= 1e6 else (1e3, "kB")
        known = [trial for trial in self.trials if math.isfinite(trial.score)]
        if not known:
            return ""
        marks = [
            Mark(
                trial.size / unit,
                trial.score,
                f"{trial.way}, {trial.bits} bits: {readable_size(trial.size)}, "
                f"{_shown(self.metric, trial.score)}",
                f"{trial.bits} bits: smallest" if trial == self.best else str(trial.bits),
                trial.interval,
                bad=not trial.meets,
                group=trial.way,
            )
            for trial in sorted(known, key=lambda trial: trial.size)
        ]
        scores = [self.target, *(trial.score for trial in known)]
        if self.metric in ("top1", "top5"):
            lows = [trial.interval[0] for trial in known if trial.interval is not None]
            y = charts.percent(self.metric, [*scores, *lows])
        else:
            y = charts.linear(self.metric, scores)
        x = charts.linear("size", [mark.x for mark in marks], f" {name}", zero=True)
        return charts.chart(marks, x, y)

    def plot(self) -> Any:
        """Size against score, a line a mode, rates with intervals, as a matplotlib figure.

        Raises:
            MissingDependencyError: matplotlib is not installed.
        """
        try:
            pyplot = importlib.import_module("matplotlib.pyplot")
        except ImportError as error:
            raise MissingDependencyError(
                "plots need matplotlib: pip install 'mlferry[plot]'"
            ) from error
        figure, axes = pyplot.subplots(layout="constrained")
        unit, divisor = ("MB", 1e6) if self.full_size >= 1e6 else ("kB", 1e3)
        ways = list(dict.fromkeys(trial.way for trial in self.trials))
        for index, way in enumerate(ways):
            line = [trial for trial in self.trials if trial.way == way]
            sizes, scores = [t.size / divisor for t in line], [t.score for t in line]
            (drawn,) = axes.plot(sizes, scores, marker="o", label=way)
            for trial in line:
                if trial.interval is not None:
                    at = trial.size / divisor
                    axes.vlines(at, *trial.interval, color=drawn.get_color(), alpha=0.4)
            above = index % 2 == 0  # the bits of two modes are written apart
            for trial in line:
                axes.annotate(
                    str(trial.bits),
                    (trial.size / divisor, trial.score),
                    (0, 6 if above else -6),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if above else "top",
                    color=drawn.get_color(),
                )
        axes.plot(
            self.best.size / divisor,
            self.best.score,
            "o",
            markersize=14,
            fillstyle="none",
            color="black",
            label=f"smallest: {self.best.way}, {self.best.bits} bits",
        )
        axes.axhline(self.target, linestyle="--", color="grey", label=f"target {self.target:g}")
        axes.margins(y=0.1)
        axes.set_xlabel(f"size in {unit}; the float model has {readable_size(self.full_size)}")
        axes.set_ylabel(f"{self.metric}, float model = reference")
        axes.legend()
        return figure


def search_quantization(
    model: MLModel,
    sample_data: SampleData,
    metric: Metric = "top1",
    target: float = 0.97,
    *,
    modes: tuple[str, ...] = MODES,
    bits: Sequence[int] = tuple(range(8, 0, -1)),
    calibrate: bool | None = None,
    folds: int = 2,
    options: Mapping[str, Any] | None = None,
    executor: Executors | None = None,
) -> Search:
    """The smallest quantized model whose outputs are near enough to the float model's.

    Each mode goes down from 8 bits, once by the weights alone and once with samples, until it
    misses the target; 16 bits are tried where no setting meets it.

    Every sample measures every setting. So that what was fitted is not what is measured, the
    samples are dealt into folds, and those of each fold measure a model that was quantized with
    the others (cross-fitting).

    A rate of agreement over few samples moves by chance, so that it is shown with its interval
    (Wilson, 95 %), and settings are judged by the rate that the margins between the scores tell,
    where there are scores: see `mlferry.models.agreement.expected`.

    All weights get the same bits; `quantize_weights(mean_bits=...)` gives more to those that need
    more. Of ML Programs the bits are tried that a mode has there, by the weights alone; a network
    that is to become a program is searched as such with ``options={"convert_to": "mlprogram"}``.

    Args:
        model: the float model.
        sample_data: at least two samples, as for `compare_models`. For a rate as target, a
            hundred are few: the result tells how many it needs.
        metric: "top1" or "top5" (of a classifier, or of an output of scores: [classes], with
            any axes of 1 beside it), "snr", "psnr" or "cosine", of the first output that has it;
            or a function of the `Report` of `compare_models`; higher is better.
        target: the least score.
        modes: what is tried; see `quantize_weights`.
        bits: which are tried.
        calibrate: True for settings with samples only, False for those by the weights alone,
            which take less time; by default both are tried.
        folds: into how many parts the samples are dealt; with more of them, the models that are
            measured are nearer to the one that is returned, and the search takes longer.
        options: further arguments of `quantize_weights`, such as `selector`, `granularity` or
            `cluster_dim`, for every setting.
        executor: quantizes and evaluates for several settings at a time; see `MLModel.predict`.
            While workers wait for what decides, they try settings that may turn out not to matter.

    Raises:
        SpecError: an unknown metric or mode, one that no output has, too few samples, or no
            setting meets the target; the message lists what was tried.
        PredictionError: the samples do not fit the model.
        WorkerError: the executor cannot do it.
        UnsupportedModelError: `calibrate` is True for an ML Program.
    """
    arguments = dict(options or {})
    program = has_programs(model.spec)
    if program and calibrate:
        raise UnsupportedModelError(
            "calibrate=True is for neural networks: search the network that the program is made "
            "of, with options={'convert_to': 'mlprogram'}"
        )
    if not callable(metric) and metric not in METRICS:
        raise SpecError(f"the metric {metric!r} is unknown: {', '.join(METRICS)}, or a function")
    samples: list[Mapping[str, Any]] = [
        dict(sample.data) for sample in samples_for(model.get_spec(), sample_data)
    ]
    if len(samples) < 2:
        raise SpecError("the search needs two samples at least: to quantize and to measure")
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise SpecError(f"folds is {folds!r}; it is a whole number from 2, such as folds=2")
    ways = [way for way in (False, True) if calibrate in (None, way) and not (program and way)]
    in_program = program or is_program(arguments.get("convert_to"))
    settings = [
        _Setting(mode, count, way)
        for mode, count, way in itertools.product(modes, sorted(set(bits), reverse=True), ways)
        if not in_program or count in program_bits(mode)
    ]
    reference = list(model.predict(samples, executor=executor))
    source = _Source(model, samples, reference, min(folds, len(samples)), arguments)
    with Team(_measured, source, executor, chunk_size=1) as team:
        judge = _Judge(source, metric, target, team)
        trials = judge.trials(settings)
        if not any(trial.meets for trial in trials):
            trials += judge.trials([_Setting(_HALF, 16)])
    good = [trial for trial in trials if trial.meets]
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "score")
    if not good:
        raise SpecError(f"no setting meets the target:\n{_table(trials, name, target, None)}")
    best = min(good, key=lambda trial: (trial.size, -trial.criterion, trial.calibrated))
    needed = None if best.interval is None else agreement.samples_needed(1.0, target)
    smallest = source.quantized(_Setting(best.mode, best.bits, best.calibrated), samples, executor)
    full = model.stored_size
    return Search(smallest, best, trials, name, target, full, len(samples), needed)


_HALF = "float16"


class _Setting(NamedTuple):
    """What is tried."""

    mode: str
    bits: int
    calibrated: bool = False


class _Piece(NamedTuple):
    """A share of the work for a setting: one model, and some of the samples that measure it.

    Attributes:
        setting: of the model.
        fold: whose samples do not fit the model; 0 where none do.
        inside: which samples measure it.
    """

    setting: _Setting
    fold: int
    inside: range


class _Source:
    """What every piece needs.

    Attributes:
        model: the float model.
        samples: all of them.
        reference: the outputs of the model for each.
        folds: into how many parts the samples are dealt.
        options: of `quantize_weights`.
    """

    def __init__(
        self,
        model: MLModel,
        samples: list[Mapping[str, Any]],
        reference: list[Any],
        folds: int,
        options: Mapping[str, Any],
    ) -> None:
        self.model, self.samples, self.reference = model, samples, reference
        self.folds, self.options = folds, options
        self._last: tuple[tuple[_Setting, int], MLModel] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Without the model that was made last."""
        return _Source, (self.model, self.samples, self.reference, self.folds, self.options)

    def quantized(
        self,
        setting: _Setting,
        samples: Sequence[Mapping[str, Any]],
        executor: Executors | None = None,
    ) -> MLModel:
        """The model in a setting, with samples if it is fitted to some."""
        if setting.mode == _HALF:
            kept = ("selector", "convert_to")
            options = {name: self.options[name] for name in kept if name in self.options}
            return quantize_weights(self.model, setting.bits, **options)
        options = dict(self.options)
        if setting.calibrated and executor is not None:
            options["executor"] = executor
        sample_data = samples if setting.calibrated else None
        return quantize_weights(self.model, setting.bits, setting.mode, sample_data, **options)

    def quantized_without(self, setting: _Setting, fold: int) -> MLModel:
        """The model in a setting, fitted to the samples of all other folds."""
        last = self._last
        if last is None or last[0] != (setting, fold):
            others = [s for i, s in enumerate(self.samples) if i % self.folds != fold]
            last = (setting, fold), self.quantized(setting, others)
            self._last = last
        return last[1]

    def pieces(self, setting: _Setting, workers: int, settings: int) -> list[_Piece]:
        """The work for a setting, in as many pieces as keep workers busy.

        Args:
            setting: the setting.
            workers: how many there are.
            settings: how many settings are tried side by side.
        """
        folds = self.folds if setting.calibrated else 1
        insides = [range(fold, len(self.samples), folds) for fold in range(folds)]
        parts = max(1, min(-(-workers // (settings * folds)), len(insides[-1])))
        return [
            _Piece(setting, fold, inside[part::parts])
            for fold, inside in enumerate(insides)
            for part in range(parts)
        ]


class _Result(NamedTuple):
    """What a piece gave: the size of its model, and the rows of each sample by its number."""

    size: int
    rows: dict[int, SampleRows]


def _measured(source: _Source, piece: _Piece) -> _Result | MlferryError:
    """Quantize, predict and measure; an error is a result, as nobody may ask for it."""
    try:
        model = source.quantized_without(piece.setting, piece.fold)
        outputs = model.predict([source.samples[index] for index in piece.inside])
        rows = {
            index: rows_of(f"sample {index}", source.reference[index], output)
            for index, output in zip(piece.inside, outputs, strict=True)
        }
    except MlferryError as error:
        return error
    return _Result(model.stored_size, rows)


class _Judge:
    """Measures settings, every one with all samples, and says which are good enough."""

    def __init__(
        self,
        source: _Source,
        metric: Metric,
        target: float,
        team: Team[_Source, _Piece, _Result | MlferryError],
    ) -> None:
        self.source, self.metric, self.target, self.team = source, metric, target, team
        if isinstance(metric, str):
            same = [rows_of(f"sample {i}", one, one) for i, one in enumerate(source.reference)]
            _output(report_of(same), metric)  # says early that there is none

    def trials(self, settings: Sequence[_Setting]) -> list[Trial]:
        """The settings, measured, each mode until it misses the target."""
        ways = list(dict.fromkeys((each.mode, each.calibrated) for each in settings))
        apart = self.team.workers > 1  # then those that take longest come first
        order = sorted(settings, key=lambda each: (-each.bits, apart and not each.calibrated))
        missed: set[tuple[str, bool]] = set()
        asked: deque[tuple[_Setting, int]] = deque()

        def pieces() -> Iterator[_Piece]:
            for setting in order:
                if (setting.mode, setting.calibrated) in missed:
                    continue
                parts = self.source.pieces(setting, self.team.workers, len(ways))
                asked.append((setting, len(parts)))
                yield from parts

        trials: dict[_Setting, Trial] = {}
        results = self.team.run(pieces())
        with contextlib.closing(results):
            for first in results:
                setting, count = asked.popleft()
                measured = [first, *itertools.islice(results, count - 1)]
                way = setting.mode, setting.calibrated
                if way in missed:
                    continue
                trials[setting] = self._trial(setting, measured)
                if not trials[setting].meets:
                    missed.add(way)
        return [trials[setting] for setting in settings if setting in trials]

    def _trial(self, setting: _Setting, results: Sequence[_Result | MlferryError]) -> Trial:
        rows: dict[int, SampleRows] = {}
        size = 0
        for result in results:
            if isinstance(result, MlferryError):
                raise result
            rows |= result.rows
            size = result.size
        report = report_of([rows[index] for index in sorted(rows)])
        return self._judged(setting.mode, setting.bits, setting.calibrated, size, report)

    def _judged(self, mode: str, bits: int, calibrated: bool, size: int, report: Report) -> Trial:
        if callable(self.metric):
            score = float(self.metric(report))
            return Trial(mode, bits, size, score, score >= self.target, calibrated)
        output = _output(report, self.metric)
        numbers, score = output.numbers, output.numbers[self.metric]
        expected, interval = numbers.get(f"expected_{self.metric}"), None
        good = (score if expected is None else expected) >= self.target
        needed = None
        if self.metric in output.intervals:
            interval = output.intervals[self.metric]
            good = good and interval[1] >= self.target
            needed = agreement.samples_needed(score if expected is None else expected, self.target)
        kl = None if interval is None else numbers.get("kl")
        return Trial(mode, bits, size, score, good, calibrated, interval, expected, kl, needed)


def _output(report: Report, metric: str) -> OutputReport:
    """The output that has a metric, first of all one with scores."""
    outputs = [output for output in report.outputs.values() if metric in output.numbers]
    if outputs:
        return next((out for out in outputs if f"expected_{metric}" in out.numbers), outputs[0])
    has = {
        name: [each for each in METRICS if each in output.numbers]
        for name, output in report.outputs.items()
    }
    other = next((known[0] for known in has.values() if known), None)
    raise SpecError(
        f"no output of the model has the metric {metric!r}: "
        + "; ".join(f"{name!r} has {', '.join(known) or 'none'}" for name, known in has.items())
        + (f". Write metric={other!r}" if other else "")
    )


def _table(trials: list[Trial], metric: str, target: float, best: Trial | None) -> str:
    width = max(len(trial.way) for trial in trials) + 2
    rates = any(trial.interval for trial in trials)
    scores = any(trial.expected is not None for trial in trials)
    head = f"{metric} (at least {target:g})" + ", 95 % interval" * rates
    wide = len(head)
    lines = [f"{'mode':<{width}}{'bits':>4}{'size':>11}  {head}" + "  expected      KL" * scores]
    for trial in trials:
        score = f"{trial.score:.4g}"
        if trial.interval is not None:
            score += f" ({trial.interval[0]:.3f} to {trial.interval[1]:.3f})"
        line = f"{trial.way:<{width}}{trial.bits:>4}{readable_size(trial.size):>11}  {score}"
        if scores:
            expected = "" if trial.expected is None else f"{trial.expected:.4f}"
            kl = "" if trial.kl is None else f"{trial.kl:.4f}"
            line = f"{line:<{width + 17 + wide}}  {expected:>8}  {kl:>6}"
        mark = "  <- smallest" if trial is best else "" if trial.meets else "  missed"
        lines.append(line + mark)
    return "\n".join(lines)


_HEAD = ("Mode", "Bits", "Size", "Score", "Expected", "KL", "")


def _cells(trials: Sequence[Trial], metric: str, best: Trial) -> Iterator[list[str]]:
    """The rows of a table, as in the text."""
    for trial in trials:
        note = "smallest" if trial is best else "" if trial.meets else "missed"
        known = (trial.expected, trial.kl)
        rest = ["" if each is None else f"{each:.4f}" for each in known]
        size, score = readable_size(trial.size), _shown(metric, trial.score)
        yield [trial.way, str(trial.bits), size, score, *rest, note]


def _shown(metric: str, score: float) -> str:
    if metric in ("top1", "top5"):
        return f"{score:.2%}"
    return f"{score:.2f} dB" if metric in ("snr", "psnr") else f"{score:.4g}"


def _advice(best: Trial, count: int, needed: int, target: float) -> str:
    """How sure the best setting is, and what would make it so."""
    text = f"{count} samples"
    if best.interval is not None and best.interval[0] >= target:
        return f"{text}: enough to show {target:g}"
    if count < needed:
        text += f": too few to show {target:g} even where all agree, which takes {needed}"
    if best.needed is not None:
        text += f"{';' if count < needed else ':'} to tell {best.criterion:.4g} from {target:g}"
        text += f" takes {best.needed}"
    return text
