"""Fixtures for all tests."""

from __future__ import annotations

import copy
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlferry.compiled import is_available
from mlferry.models.model import MLModel
from mlferry.runtime.program_session import BlockPlan, PlannedOperation, ProgramSession, State
from mlferry.runtime.session import Session
from mlferry.spec.problems import Problem
from tests.fuzz.apple import Checker

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# its gradients of dilated convolutions need it; by default it depends on the processor
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--engine", default="numpy", help="what runs the networks of all tests")
    parser.addoption("--programs", action="store_true", help="try every network as a program, too")
    parser.addoption("--apple-checker", help="try every model with this program (tests.fuzz.apple)")


def pytest_configure(config: pytest.Config) -> None:
    """With ``--engine onnxruntime`` every model is run by it that does not say otherwise."""
    name = config.getoption("--engine")
    if name == "numpy":
        return
    from mlferry.models.model import MLModel
    from mlferry.runtime.engines import engine_named
    from mlferry.runtime.evaluators.registry import CustomClasses

    MLModel.__init__.__kwdefaults__["engine"] = name
    *others, _ = CustomClasses.__init__.__defaults__
    CustomClasses.__init__.__defaults__ = (*others, engine_named(name, 1))


def pytest_collection_finish() -> None:
    _keep()


def _keep() -> None:
    """What has been loaded stays, so that no collection looks at it again.

    Keras collects in every `clear_session`, over all of TensorFlow: 40 % of the time of its tests.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models; tests that need it skip where it is not there."""
    place = os.environ.get("MLFERRY_DATA")
    if not place:
        pytest.skip("MLFERRY_DATA does not name a folder of real models")
    return Path(place)


@pytest.fixture(scope="session")
def library() -> Callable[[str], Any]:
    """Imports an oracle by name; what it warns of while importing is its own affair."""

    def load(name: str) -> Any:
        if name in sys.modules:
            return sys.modules[name]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                module = importlib.import_module(name)
                _keep()
                return module
            except ModuleNotFoundError:
                if "MLFERRY_FEW_ORACLES" in os.environ:
                    pytest.skip(f"{name} does not go with these versions of the others")
                raise

    return load


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every test."""
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _as_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``--programs``: see `tests.programs_too`."""
    if request.config.getoption("--programs"):
        from tests import programs_too

        programs_too.install(monkeypatch)


@pytest.fixture(scope="session")
def _apple_checker(request: pytest.FixtureRequest) -> Iterator[Checker | None]:
    program = request.config.getoption("--apple-checker")
    if program is None:
        yield None
        return
    with Checker(Path(program)) as checker:
        yield checker


@pytest.fixture(autouse=True)
def _as_apple(_apple_checker: Checker | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With ``--apple-checker``: no model is taken in silence that Apple's checker refuses."""
    if _apple_checker is None:
        yield
        return
    start, refusals = MLModel._start, []

    def checked(model: MLModel, spec: Any, classes: Any, problems: Any, *others: Any) -> None:
        start(model, spec, classes, problems, *others)
        verdict = "" if _severe(problems) else _apple_checker.verdict(spec)
        refusals.extend([verdict] if verdict else [])

    monkeypatch.setattr(MLModel, "_start", checked)
    yield
    assert not refusals, "models that only mlferry accepts"


def _severe(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity != "note"]


@pytest.fixture(autouse=True)
def _planned_as_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a test runs: the first results of a planned network are those layer by layer.

    Where Numba has compiled them, those of NumPy alone, planned and not. Parts on arrays are
    planned however small they are.
    """
    for name in ("LEAST_STEPS", "LEAST_WORTH"):
        monkeypatch.setattr(f"mlferry.runtime.planned.worth.{name}", 0)
    run, compared = Session.run, set()

    def checked(session: Session, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Any:
        actual = run(session, inputs, outputs)
        key = (id(session), *outputs)
        if session.planned and key not in compared and _is_repeatable(session):
            program = session._program(frozenset(outputs))
            if program.constants or any(part.region for part in program.parts):
                for planned in _other_ways(session):
                    plain = copy.copy(session)
                    plain.planned, plain._programs = planned, {}
                    plain.compiled = False
                    _check_alike(actual, run(plain, inputs, outputs))
            compared.add(key)
        return actual

    monkeypatch.setattr(Session, "run", checked)
    run_program = ProgramSession.run

    def checked_program(
        session: ProgramSession,
        values: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
        state: State | None = None,
    ) -> Any:
        before = None if state is None else State({name: state[name] for name in state})
        actual = run_program(session, values, outputs, state)
        key = (id(session), *(outputs or ()))
        operations = _operations_of(session._plan)
        if session.planned and key not in compared and _plans(session._plan):
            if not any(each.call.op.startswith("random") for each in operations):
                half = session.precision == "half"
                for planned in _other_ways(session):
                    plain = copy.copy(session)
                    plain.planned, plain._plan = planned, _without_schedules(session._plan)
                    plain.compiled = False
                    state = None if before is None else State({n: before[n] for n in before})
                    _check_alike(actual, run_program(plain, values, outputs, state), half)
            compared.add(key)
        return actual

    monkeypatch.setattr(ProgramSession, "run", checked_program)


def _other_ways(session: Session | ProgramSession) -> tuple[bool, ...]:
    """Whether plans are used, in each of the other ways to compute."""
    compiles = is_available() and session.compiled is not False
    return (False, True) if compiles else (False,)


def _operations_of(plan: BlockPlan) -> list[PlannedOperation]:
    """Those of a block and of the blocks inside of it."""
    inner = [block for each in plan.operations for block in each.blocks]
    return [*plan.operations, *(each for block in inner for each in _operations_of(block))]


def _plans(plan: BlockPlan) -> bool:
    """Whether a convolutional part of it, or of a block inside of it, was planned."""
    planned = any(part.region for parts in plan.schedules.values() for part in parts)
    return planned or any(_plans(block) for each in plan.operations for block in each.blocks)


def _without_schedules(plan: BlockPlan) -> BlockPlan:
    operations = [
        replace(each, blocks=tuple(_without_schedules(block) for block in each.blocks))
        for each in plan.operations
    ]
    return replace(plan, operations=operations, schedules={})


def _is_repeatable(session: Session) -> bool:
    """Without layers of the test's own, which may count, and without random numbers."""
    steps = list(session._steps)
    for step in steps:
        steps += [inner for body in step.bodies for inner in body]
    kinds = {step.params.kind for step in steps}
    return not any(k == "custom" or k.startswith(("random", "categorical")) for k in kinds)


def _check_alike(result: Mapping[str, Any], plain: Mapping[str, Any], half: bool = False) -> None:
    part = 1e-2 if half else 1e-4  # of the range
    for name, right in plain.items():
        if not isinstance(right, np.ndarray) or right.dtype.kind != "f":
            continue
        assert result[name].shape == right.shape
        finite = right[np.isfinite(right)].astype(np.float64)
        span = max(float(np.ptp(finite)), 1e-6) if finite.size else 1.0
        close = max(part * span, 1e-7)  # NumPy's sigmoid is as far off where it is next to 0
        np.testing.assert_allclose(result[name], right, rtol=part, atol=close, err_msg=name)
