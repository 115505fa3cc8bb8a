"""Samples for a real fleet, and a verifier whose samples say what its actor is to do."""

import time
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import ray
import ray.data

from haloforge.groups import judged_in
from haloforge.placement import Fleet
from haloforge.schema import Problem, Verdict
from haloforge.verify.settings import VerifySettings
from haloforge.verify.stage import verify_stage
from haloforge.verify.stored import StoredSamples

SCRIPTED = """
import os, pathlib, signal, time
import ray
from haloforge.verify.own import Judgement, Outcome

class Scripted:
    def judge(self, code, problem, sandbox):
        word, _, rest = code.strip().partition(" ")
        if word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if word == "once":  # dies, or waits to be killed, the first time
            path = pathlib.Path(rest)
            if not path.exists():
                path.write_text(str(os.getpid()))
                time.sleep(600)
        if word == "sleep":
            time.sleep(float(rest))
        node = ray.get_runtime_context().get_node_id()
        return Judgement(Outcome.PASSED, diagnostics=f"{os.getpid()} {node}")
"""


def scripted(folder: Path, **settings: Any) -> VerifySettings:
    """Settings of a verifier that does what `code` says."""
    (folder / "scripted.py").write_text(SCRIPTED)
    name = f"{folder / 'scripted.py'}:Scripted"
    return VerifySettings(verifier=name, cache=False, **settings)


def judge(
    codes: Sequence[str],
    settings: VerifySettings,
    fleet: Fleet,
    problem: Problem | None = None,
    pauses: Sequence[float] = (),
) -> Iterator[Verdict]:
    """Each code's verdict as it comes, with the code's number as its sample's id; `pauses` are the
    seconds before the first samples arrive."""
    problem = problem or Problem(problem_id="p", prompt="?", language="python")

    def rows() -> Iterator[dict[str, Any]]:
        for number, (code, pause) in enumerate(zip_longest(codes, pauses, fillvalue=0.0)):
            time.sleep(pause)
            yield {"sample_id": str(number), "problem_id": "p", "index": number, "code": code}

    stored = StoredSamples(rows, fleet.max_actors)
    judged = verify_stage(stored.dataset(), ray.put({"p": problem}), settings, fleet)
    for _, verdict in judged_in(judged):
        stored.judged()
        yield Verdict.model_validate(verdict)
