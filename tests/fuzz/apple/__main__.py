"""Compares verdicts about mutated models: `python -m tests.fuzz.apple CHECKER [--mutants N]`."""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter, defaultdict
from pathlib import Path

from google.protobuf.message import DecodeError

from mlferry.models.problems import validate
from mlferry.spec.proto import model_pb2
from tests.fuzz.apple import ACCEPTED, Checker
from tests.fuzz.mutate import protobuf
from tests.fuzz.readers import READERS
from tests.layers import broken_models, broken_predictors, broken_training, broken_transforms

_NUMBERS = re.compile(r"'[^']*'|\"[^\"]*\"|-?\d+(\.\d+)?")


def seed_models() -> list[model_pb2.Model]:
    """A network of each kind of layer, and models of the other kinds."""
    modules = (broken_models, broken_training, broken_predictors, broken_transforms)
    networks = [model_pb2.Model.FromString(data) for data in READERS["layers"].seeds()]
    return [*networks, *(make() for module in modules for make in module.SANE.values())]


def _ours(spec: model_pb2.Model) -> tuple[str, str]:
    """The most severe of our findings: its severity, "" without one, and its text."""
    problems = [problem for problem in validate(spec) if problem.severity != "note"]
    worst = min(problems, key=lambda problem: problem.severity, default=None)
    return ("", "") if worst is None else (worst.severity, f"{worst.where}: {worst.message}")


def _shape(text: str) -> str:
    """A message without what differs from model to model."""
    return _NUMBERS.sub("*", text)[:160]


def compared(checker: Checker, count: int, seed: int) -> tuple[Counter[str], dict[str, list[int]]]:
    """Verdicts about mutants: how many of each pair, and of which numbers those that differ are."""
    mutate = protobuf(model_pb2.Model, (1,))
    seeds = [spec.SerializeToString() for spec in seed_models()]
    counts: Counter[str] = Counter()
    gaps: defaultdict[str, list[int]] = defaultdict(list)
    for index in range(count):
        rng = random.Random(f"apple/{seed}/{index}")
        try:
            spec = model_pb2.Model.FromString(mutate(seeds[index % len(seeds)], rng))
        except DecodeError:
            counts["no model"] += 1
            continue
        theirs, (severity, text) = checker.verdict(spec), _ours(spec)
        ours = f"{severity} here" if severity else "accepted here"
        counts[f"{'accepted' if theirs == ACCEPTED else 'refused'} by Apple, {ours}"] += 1
        if theirs != ACCEPTED and not severity:
            gaps[f"only Apple refuses: {_shape(theirs)}"].append(index)
        elif theirs == ACCEPTED and severity == "error":
            gaps[f"only we refuse: {_shape(text)}"].append(index)
    return counts, gaps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checker", type=Path)
    parser.add_argument("--mutants", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    begun = time.monotonic()
    with Checker(arguments.checker) as checker:
        counts, gaps = compared(checker, arguments.mutants, arguments.seed)
    print(f"{arguments.mutants:,} mutants in {time.monotonic() - begun:.0f} s")
    for name, number in counts.most_common():
        print(f"{number:8,} {name}")
    for name, where in sorted(gaps.items(), key=lambda item: (item[0][:12], -len(item[1]))):
        print(f"{len(where):6,} {name}  {where[:3]}")
    if any(name.startswith("only Apple") for name in gaps):
        raise SystemExit("models that Apple's checker refuses are accepted here")


if __name__ == "__main__":
    main()
