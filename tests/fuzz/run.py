"""Read mutated files by the thousand: `python -m tests.fuzz.run [READER ...] [--count N]`.

Each reader runs in a child, which may take 1 GB beyond what its libraries take and 5 seconds an
input. A child that dies or hangs is seen, its input is kept, and the next child goes on behind it.
"""

from __future__ import annotations

import argparse
import pickle
import random
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from mlferry.errors import MlferryError
from tests.fuzz.readers import READERS

MEMORY = 1 << 30  # bytes beyond those of the libraries
FAULTS = Path(__file__).parent / "faults"
MAKING, READING = "making", "reading"  # what a child does; the HDF5 library may hang in either
START = 180.0  # seconds in which a child must have begun
GRACE = 10.0  # seconds in which a child that hangs in a library is given up


class Hang(BaseException):
    """An input takes too long; no `except Exception` keeps it."""


def mutant(name: str, seeds: list[bytes], seed: int, index: int) -> bytes:
    """An input: the same for the same numbers, on every machine."""
    rng = random.Random(f"{name}/{seed}/{index}")
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 2))):
        try:
            data = rng.choice(READERS[name].mutators)(data, rng)
        except Exception:  # what is broken already may not be broken by its structure
            data = rng.choice(READERS[name].mutators[:1])(data, rng) if data else data
    return data


def outcome(name: str, data: bytes, seconds: float | None = None) -> str:
    """ "read", the name of an error of ours, or "FAULT: ..."."""

    def too_long(number: int, frame: FrameType | None) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds or READERS[name].seconds)
    try:
        READERS[name].read(data)
    except MlferryError as error:
        if isinstance(error.__cause__, MemoryError):
            return f"FAULT: MemoryError: {str(error)[:200]}"
        return type(error).__name__
    except Hang:
        lines = traceback.format_exc().splitlines()
        return f"FAULT: hang at {' / '.join(line.strip() for line in lines[-12:])}"
    except BaseException as error:
        lines = traceback.format_exc().splitlines()
        where = [line.strip() for line in lines if "mlferry" in line][-1:]
        return f"FAULT: {type(error).__name__}: {str(error)[:200]} {where}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return "read"


def seeds_of(names: Iterable[str]) -> dict[str, list[bytes]]:
    """The seeds of readers, made by a process of its own: what made them is not loaded here."""
    program = "import sys, pickle; from tests.fuzz.readers import READERS as r; " \
        "seeds = {name: r[name].seeds() for name in sys.argv[1:]}; " \
        "sys.stdout.buffer.write(pickle.dumps(seeds))"  # fmt: skip
    command = [sys.executable, "-c", program, *names]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    seeds: dict[str, list[bytes]] = pickle.loads(done.stdout)
    return seeds


def child(name: str, seed: int, start: int, end: int, kept: str) -> None:
    """Read the inputs of some numbers; one line an input, before and after."""
    seeds = pickle.loads(Path(kept).read_bytes()) if kept else seeds_of([name])[name]
    for data in seeds:
        actual = outcome(name, data, seconds=60)
        assert not actual.startswith("FAULT"), f"a seed of {name}: {actual}"
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY + READERS[name].reserve
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for index in range(start, end):
        print(f"{index} {MAKING}", flush=True)
        data = mutant(name, seeds, seed, index)
        print(f"{index} {READING}", flush=True)
        print(f"{index} {outcome(name, data)}", flush=True)


def run(
    name: str, seed: int, count: int, kept: Path | None = None
) -> tuple[Counter[str], list[str]]:
    """Outcomes and faults of many inputs; how far it is goes to standard error.

    Args:
        name: of the reader.
        seed: of the random numbers.
        count: how many inputs.
        kept: a file with the seeds of the reader, pickled; by default they are made.
    """
    actual: Counter[str] = Counter()
    faults: list[str] = []
    start, patience = 0, READERS[name].seconds + GRACE
    while start < count:
        begun, last, hangs = start, "", False
        command = [sys.executable, "-m", "tests.fuzz.run", "--child", name, str(seed), str(start),
                   str(count), str(kept or "")]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, errors="replace") as process:  # fmt: skip
            assert process.stdout is not None
            while select.select([process.stdout], [], [], patience if last else START)[0]:
                line = process.stdout.readline()
                if not line:
                    break
                index, _, result = line.rstrip("\n").partition(" ")
                if not index.isdigit():
                    continue
                last, start = result, int(index)
                if last not in (MAKING, READING):
                    start += 1
                    kind, _, what = result.partition(": ")
                    actual[kind] += 1
                    if start % 5000 == 0:
                        print(f"{name}: {start:,} of {count:,}", file=sys.stderr, flush=True)
                    if kind == "FAULT":
                        faults.append(f"{name} {seed} {index} {what}")
            else:
                process.kill()
                hangs = True
        if last == READING:
            actual["FAULT"] += 1
            why = "hang in a library" if hangs else f"died with {process.returncode}"
            faults.append(f"{name} {seed} {start} {why}")
            start += 1
        elif last == MAKING:
            actual["not made"] += 1
            start += 1
        elif start == begun:
            raise SystemExit(f"{name}: the child did not start; try: {' '.join(command)}")
    return actual, faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(READERS)}; all by default")
    parser.add_argument("--count", type=int, help="inputs a reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, *numbers, kept = arguments.child
        child(name, *map(int, numbers), kept)
        return
    bad = 0
    for name in arguments.readers or READERS:
        begun = time.monotonic()
        count = arguments.count or READERS[name].count
        actual, faults = run(name, arguments.seed, count)
        bad += len(faults)
        spent = time.monotonic() - begun
        shown = ", ".join(f"{key} {number:,}" for key, number in actual.most_common())
        print(f"{name}: {count:,} inputs in {spent:.0f} s: {shown}", flush=True)
        for fault in faults:
            print(f"  {fault}", flush=True)
    if bad:
        raise SystemExit(f"{bad} faults")


if __name__ == "__main__":
    main()
