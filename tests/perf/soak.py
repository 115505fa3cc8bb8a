"""`make soak`: thousands of verdicts, after which nothing has grown and nothing is left.

One process judges answers of every kind (see `soak_programs`) with no cache, on all cores, in both
tiers where both work. Between batches, when there is no box, it looks at the memory, descriptors,
threads and processes of itself and of its spawners. How much each has grown is the median slope of
all pairs of looks (Theil and Sen), the first quarter of them left out. What is left at the end is
looked for among its descendants, since it adopts orphans; in its folder for temporary files, and in
those that programs tried to write to; and in its mounts. Exits with 1, and one line that says what
grew or was left, or which verdict was wrong.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import psutil

from haloforge.verify.guards import PR_SET_CHILD_SUBREAPER, landlock_version, prctl
from haloforge.verify.limits import MIB
from haloforge.verify.sandbox import BUBBLEWRAP, LANDLOCK, Sandbox
from haloforge.verify.settings import VerifySettings
from haloforge.verify.verifier import Verifier
from tests.perf.soak_programs import FOLDERS, KINDS, LITTER, soak_problems
from tests.processes import living, names

BATCH = 50
TELL_EVERY_S = 15
WARM_UP = 0.25
MEMORY, SPAWNERS = "MB of the verifier", "MB of its spawners"
MAY_GROW = {MEMORY: 8, SPAWNERS: 8, "descriptors": 0.5, "threads": 0.5, "processes": 0.5}
MOUNTS = Path("/proc/self/mountinfo")
Look = dict[str, float]


def main() -> None:
    """Judge, look, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--verdicts", type=int, default=20_000)
    verdicts = parser.parse_args().verdicts
    if verdicts < 4 * BATCH:
        parser.error(f"growth shows in {4 * BATCH} verdicts at least")
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    mounts = MOUNTS.read_text()
    with tempfile.TemporaryDirectory(prefix="haloforge-soak-") as folder:
        Path(folder).chmod(0o755)  # boxes are another user's
        tempfile.tempdir = folder
        looks = list(soak(verdicts))
        faults = leftovers(Path(folder))
    faults += ["mounts have changed"] if MOUNTS.read_text() != mounts else []
    for name, amount in growth(looks).items():
        print(f"  {name}: {looks[-1][name]:.4g}, grown by {amount:.2g}")
        if amount > MAY_GROW[name]:
            faults.append(f"{name} grew by {amount:.3g}, more than {MAY_GROW[name]:g}")
    if faults:
        sys.exit(f"soak: {'; '.join(faults)}")
    print(f"soak: {verdicts} verdicts; nothing grew, nothing is left")


def soak(verdicts: int) -> Iterator[Look]:
    """Judge so many answers, and look after each batch of them."""
    shares = [kind.share for kind in KINDS.values()]
    chosen = random.Random(0).choices(list(KINDS), shares, k=verdicts)
    verifiers = every_tier()
    began = told = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, verdicts, BATCH):
            batch = chosen[first : first + BATCH]
            given = (verifiers[number % len(verifiers)] for number in range(BATCH))
            list(pool.map(judge, given, batch))
            yield (now := look())
            done, seconds = first + len(batch), time.monotonic() - began
            if time.monotonic() > told + TELL_EVERY_S:
                told = time.monotonic()
                print(
                    f"  {done} of {verdicts}: {done / seconds:.1f} verdicts/s, "
                    f"{seconds / done * (verdicts - done) / 60:.0f} minutes left, "
                    f"{now[MEMORY]:.0f} + {now[SPAWNERS]:.0f} MB",
                    flush=True,
                )
    for verifier in verifiers:
        verifier.sandbox.close()


def every_tier() -> list[Verifier]:
    """A verifier of each tier that works here."""
    # A busy machine is no fault of a right answer; endless ones have limits of their own.
    settings = VerifySettings(cache=False, compile_wall_s=60, run_wall_s=20)
    problems = soak_problems()
    verifiers = [Verifier(settings, problems)]
    if verifiers[0].sandbox.tier == BUBBLEWRAP and landlock_version():
        verifiers.append(Verifier(settings, problems))
        verifiers[1].sandbox.close()
        verifiers[1].sandbox = Sandbox(LANDLOCK)
    return verifiers


def judge(verifier: Verifier, name: str) -> None:
    """One answer; exits where its verdict is not what it must be."""
    sample = {"sample_id": "s", "problem_id": name, "code": KINDS[name].code}
    verdict = verifier.verify(sample)
    if verdict["outcome"] != KINDS[name].outcome:
        tier, said = verifier.sandbox.tier, verdict["diagnostics"][:200]
        sys.exit(
            f"soak: '{name}' in {tier}: {verdict['outcome']}, not {KINDS[name].outcome}: {said!r}"
        )


def look() -> Look:
    """What the verifier and its spawners hold, when there is no box."""
    own = psutil.Process()
    spawners = own.children(recursive=True)
    family = [own, *spawners]
    return {
        MEMORY: own.memory_info().rss / MIB,
        SPAWNERS: sum(process.memory_info().rss for process in spawners) / MIB,
        "descriptors": sum(process.num_fds() for process in family),
        "threads": sum(process.num_threads() for process in family),
        "processes": len(family),
    }


def growth(looks: list[Look]) -> Look:
    """How much of each there is more at the end than after the warm-up, by the median slope."""
    kept = looks[int(len(looks) * WARM_UP) :]
    pairs = list(combinations(range(len(kept)), 2))
    return {
        name: (len(kept) - 1)
        * statistics.median((kept[b][name] - kept[a][name]) / (b - a) for a, b in pairs)
        for name in MAY_GROW
    }


def leftovers(temporary: Path) -> list[str]:
    """The processes and files that are left."""
    running = living(psutil.Process().children(recursive=True))
    # Precompiled headers are kept on purpose, for the next run.
    files = [path for path in temporary.iterdir() if "headers" not in path.name]
    files += [path for folder in FOLDERS if (path := Path(folder, LITTER)).exists()]
    found = [f"left running: {names(running)}"] if running else []
    return found + [f"left behind: {path}" for path in files]


if __name__ == "__main__":
    main()
