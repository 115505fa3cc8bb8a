"""Scores of the cycles on problems that are never trained on: the best one, and when to stop."""

import json
import os
from pathlib import Path
from typing import NamedTuple

from haloforge.benchmark.measure import benchmark
from haloforge.benchmark.passk import Estimate
from haloforge.benchmark.results import Result
from haloforge.benchmark.suites import INSTRUCT, suite_of
from haloforge.config import Settings
from haloforge.model.policy import Policy
from haloforge.session import Session
from haloforge.store.layout import EVAL, START_EVAL
from haloforge.store.run import write_atomic

BEST = "best"
BEST_RECORD = "best.json"


class Score(NamedTuple):
    """What a cycle's policy came to; cycle 0 is the policy that the run began from."""

    cycle: int
    result: Result

    @property
    def measure(self) -> str:
        """pass@1, or the compile rate where no problem has tests."""
        return "pass@1" if "pass@1" in self.result.measures else "compile_rate"

    @property
    def estimate(self) -> Estimate:
        """Of that measure."""
        return self.result.measures[self.measure]


class HeldOut:
    """Scores each cycle in the run folder `run`, if `raft.eval_prompts` are given."""

    def __init__(self, session: Session, run: Path) -> None:
        self._session, self._run = session, run
        self._chosen = session.settings.raft
        self.scores: list[Score] = []
        if self._chosen.eval_prompts is None:
            session.report.say(
                "raft: cycles are not scored on problems that are not trained on: no "
                "raft.eval_prompts (--eval-prompts FILE)"
            )

    def score(self, policy: Policy, cycle: int) -> None:
        """Scores the policy that `cycle` ended with. What was scored before is not drawn again."""
        if self._chosen.eval_prompts is None:
            return
        settings = eval_settings(self._session.settings)
        folder = self._run / f"cycle_{cycle}" / EVAL if cycle else self._run / START_EVAL
        # Not on the card: a few samples a problem, by which the best cycle is picked, flatter it.
        result = benchmark(self._session, policy, folder, settings=settings, on_card=False)
        found = Score(cycle, result)
        self.scores.append(found)
        best = self.best
        lead = "the best yet" if best.cycle == cycle else f"cycle {best.cycle} is the best"
        told = f"cycle {cycle}" if cycle else "start"
        self._session.report.say(
            f"raft {told}: {found.measure} {found.estimate} on held-out problems; {lead}"
        )

    def link_best(self) -> None:
        """Makes `best` lead to the best cycle; there is none where the start is better. `best.json`
        says the same, also in object storage, which has no links."""
        if not self.scores:
            return
        cycle = self.best.cycle
        model = f"cycle_{cycle}_final" if cycle else None
        if model:
            _link(self._run / BEST, Path(model))
        else:
            (self._run / BEST).unlink(missing_ok=True)
        told = {
            "cycle": cycle,
            "model": model,
            self.best.measure: round(self.best.estimate.mean, 4),
        }
        write_atomic(self._run / BEST_RECORD, json.dumps(told, indent=2) + "\n")

    @property
    def best(self) -> Score:
        """The best score, of equal ones the first."""
        return max(self.scores, key=lambda score: (score.estimate.mean, -score.cycle))

    def stops(self, cycle: int) -> bool:
        """Whether the run ends after `cycle`, as `raft.patience` says."""
        patience = self._chosen.patience
        if patience is None or cycle - self.best.cycle < patience or cycle >= self._chosen.cycles:
            return False
        where = (
            f"cycle {self.best.cycle}, which `best` leads to" if self.best.cycle else "the start"
        )
        self._session.report.say(
            f"raft: stops after cycle {cycle}: {patience} cycles brought no better score than "
            f"{where} (raft.patience)"
        )
        return True


def eval_settings(settings: Settings) -> Settings:
    """The benchmark's, with the problems and the number of samples that cycles are scored on."""
    chosen = settings.raft
    of_benchmark = {
        **settings.benchmark.model_dump(exclude={"k", "limit", "difficulty", "exclude"}),
        "prompts": chosen.eval_prompts,
        "samples": chosen.eval_samples,
        "raw": False,
    }
    suite = suite_of(str(chosen.eval_prompts))
    if suite and settings.benchmark.prompt_style == "auto" and INSTRUCT in suite.styles:
        of_benchmark["prompt_style"] = INSTRUCT  # of the start too, which may be a base
    benchmark = type(settings.benchmark).model_validate(of_benchmark)
    return settings.model_copy(update={"benchmark": benchmark})


def _link(link: Path, target: Path) -> None:
    """Makes `link` lead to `target`, beside it, at once."""
    partial = link.with_name(f"{link.name}.{os.getpid()}.tmp")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(link)
