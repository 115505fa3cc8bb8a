"""Verdicts/s of two verifier actors on two cores over one on one core, each actor on its own.

Both fleets judge the bundled C++ references through the stage and the session that `halo-forge
verify` has, and are bound to their cores with all that Ray runs. The note also has the ratio over
one actor beside which Ray's own processes have the other core. Counted is from the moment when all
actors are at work, each with its spawner, to the last verdict. `python -m
tests.perf.verify_two_actors [PROGRAMS]`, so many for each actor.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import ray

from haloforge.config import load_settings
from haloforge.errors import InfraError
from haloforge.sampling import judged_rows
from haloforge.session import Session
from haloforge.verify.stored import StoredSamples
from tests.perf.measuring import Pace, spread, tell
from tests.perf.verify_cpp_vs_naive import TESTS, references

PROGRAMS = 240  # for each actor
CORES = sorted(os.sched_getaffinity(0))[:2]
TWO, ONE, ONE_AND_RAY = "two", "one", "one, and Ray beside it"
SIDES = {TWO: (CORES, CORES), ONE: (CORES[:1], CORES[:1]), ONE_AND_RAY: (CORES[:1], CORES)}
"""The cores of the actors, and of all else."""
ACTOR = "VerifierActor"  # in the name that Ray gives the process of one


def main(programs: int = PROGRAMS) -> None:
    """Every side twice, so that a machine that slows down favours none; prints the entry."""
    if len(CORES) < 2:
        sys.exit("verify_two_actors needs two cores")
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for side in [*SIDES, *reversed(SIDES)]:
        command = [sys.executable, "-m", "tests.perf.verify_two_actors", side, str(programs)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rates[side].append(json.loads(done.stdout.splitlines()[-1]))
        print(f"  {side}: {rates[side][-1]:.2f} verdicts/s", file=sys.stderr, flush=True)
    best = {side: max(found) for side, found in rates.items()}
    note = (
        f"{programs} bundled C++ references with {TESTS} tests for each actor, no cache, through "
        "Ray Data, from the moment when all actors are at work to the last verdict; over one actor "
        f"with Ray on the other core {best[TWO] / best[ONE_AND_RAY]:.2f}"
    )
    pace = Pace(best[TWO], best[ONE], f"the better of two runs each, all: {rates}")
    tell(pace, "verdicts/s", note)


def measured(side: str, programs: int) -> float:
    """Verdicts/s of one side, each of whose actors judges so many programs."""
    cores, others = SIDES[side]
    os.sched_setaffinity(0, others)
    problems = {problem.problem_id: problem for problem in spread(references(), programs)}
    rows = [
        {"sample_id": f"{name} {core}", "problem_id": name, "code": problem.reference["cpp"]}
        for core in cores
        for name, problem in problems.items()
    ]
    settings = load_settings(None, {"verify.actors": len(cores), "verify.cache": False})
    bound, times = False, list[float]()
    with Session(settings) as session:
        samples = StoredSamples(lambda: rows, len(cores))
        data, known = samples.dataset(), ray.put(problems)
        stage = judged_rows(settings.verify, session.fleet, data, known, "verify")
        for _, verdict in stage:
            samples.judged()
            if verdict["outcome"] != "passed":
                raise InfraError(f"{verdict['sample_id']}: {verdict['outcome']}")
            if bound:
                times.append(time.monotonic())
            bound = bound or bind(cores)
    if len(times) < len(rows) / 2:
        raise InfraError(f"when all actors were at work {len(times)} of {len(rows)} were left")
    return (len(times) - 1) / (times[-1] - times[0])


def bind(cores: list[int]) -> bool:
    """Bind each actor, and what it has started, to a core; False where one has no spawner yet."""
    workers = [worker for raylet in psutil.Process().children() for worker in raylet.children()]
    actors = [worker for worker in workers if ACTOR in " ".join(worker.cmdline())]
    families = [[actor, *actor.children(recursive=True)] for actor in actors]
    if [len(family) > 1 for family in families] != [True for _ in cores]:
        return False
    for core, family in zip(cores, families, strict=True):
        for process in family:
            with contextlib.suppress(OSError):  # of what has ended meanwhile
                for thread in Path(f"/proc/{process.pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {core})
    return True


if __name__ == "__main__":
    if len(sys.argv) > 2:
        print(measured(sys.argv[1], int(sys.argv[2])))
    else:
        main(*map(int, sys.argv[1:]))
