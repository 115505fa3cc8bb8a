"""RAFT: sample from the policy, judge, keep the best, train on them, and again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from haloforge.config import Settings, save_settings
from haloforge.data.problems import choose_problems, prompts_digest
from haloforge.errors import HaloforgeError
from haloforge.model.adapter import read_info
from haloforge.model.policy import Policy, resolve_policy
from haloforge.raft.select import Selection, select
from haloforge.rollout.settings import Sampling, sampling_of
from haloforge.sampling import sample_and_judge
from haloforge.schema import Message, Problem
from haloforge.session import Session
from haloforge.store.run import Identity, identity_of, open_run, write_atomic
from haloforge.store.shards import Judged, read_judged
from haloforge.train.settings import NOT_LEARNED, TrainSettings
from haloforge.update import check_trainable, is_trained, update_policy

STATISTICS = "raft_statistics.json"


def raft(session: Session, policy: Policy, output: Path, fresh: bool = False) -> Policy:
    """Runs `raft.cycles` cycles from `policy` and returns the last policy.

    After cycle N `output/cycle_N_final` is its adapter; `output/cycle_N` holds its samples and
    verdicts. A cycle that has ended is not repeated. Raises InputError where `output` holds another
    run, HaloforgeError where no sample of a cycle is good enough to learn from.
    """
    session.require_room_to_train()
    run = _open(session, policy, output, fresh)
    for cycle in range(1, session.settings.raft.cycles + 1):
        if not is_trained(run.adapter(cycle)):
            run.sample_and_judge(policy, cycle)
            selection = run.keep_best(cycle)
            run.train(policy, selection, cycle)
        policy = resolve_policy(str(run.adapter(cycle)))
        run.write_statistics(cycle)
    return policy


@dataclass(frozen=True)
class _Run:
    """The steps of one cycle, each from files to files, so that any cycle can be taken up again."""

    session: Session
    problems: Sequence[Problem]
    sampling: Sampling
    system: str | None
    training: TrainSettings
    run_id: str
    output: Path

    @property
    def settings(self) -> Settings:
        return self.session.settings

    def adapter(self, cycle: int) -> Path:
        return self.output / f"cycle_{cycle}_final"

    def samples(self, cycle: int) -> Path:
        return self.output / f"cycle_{cycle}"

    def sample_and_judge(self, policy: Policy, cycle: int) -> None:
        sample_and_judge(
            self.session,
            policy,
            self.problems,
            self.settings.raft.samples_per_prompt,
            self.sampling,
            self.run_id,
            cycle,
            self.samples(cycle),
            f"raft cycle {cycle}",
        )

    def keep_best(self, cycle: int) -> Selection:
        chosen = self.settings.raft
        selection = select(
            read_judged(self.samples(cycle)),
            chosen.reward_threshold,
            chosen.keep_top_percent,
            self.settings.seed,
        )
        counts = selection.summary()
        self.session.report.say(
            f"raft cycle {cycle}: {counts['share_above_threshold']:.0%} of {selection.samples} "
            f"samples reach a reward of {chosen.reward_threshold:g}, {counts['share_kept']:.0%} "
            f"are kept ({_list(selection.kept_outcomes)}); dropped: {_list(selection.dropped)}"
        )
        if not any(self.settings.verify.tests(problem) for problem in self.problems):
            self.session.report.say(
                f"raft cycle {cycle}: correctness was not measured: no problem has tests"
            )
        if not selection.kept:
            raise HaloforgeError(
                f"raft cycle {cycle}: no sample is good enough to learn from; lower "
                "raft.reward_threshold, raise raft.samples_per_prompt or run sft first "
                "(the samples are kept)"
            )
        return selection

    def train(self, policy: Policy, selection: Selection, cycle: int) -> None:
        chosen = self.settings.raft
        update_policy(
            self.session,
            policy,
            conversations(selection.kept, self.problems, self.system),
            self.adapter(cycle),
            self.training,
            stage="raft",
            cycle=cycle,
            system=self.system,
            data=f"{len(self.problems)} problems of `{Path(chosen.prompts).name}`, its own answers "
            f"with a reward of {chosen.reward_threshold:g} or more.",
            facts={"selection": selection.summary()},
        )

    def write_statistics(self, last: int) -> None:
        """`raft_statistics.json`: one entry a cycle, from the adapters' own records."""
        statistics = [
            {"cycle": cycle, **read_info(self.adapter(cycle)).training}
            for cycle in range(1, last + 1)
        ]
        write_atomic(self.output / STATISTICS, json.dumps(statistics, indent=2) + "\n")


def conversations(
    kept: Sequence[Judged], problems: Sequence[Problem], system: str | None
) -> list[list[Message]]:
    """The kept samples as conversations that end with the policy's own answer."""
    by_id = {problem.problem_id: problem for problem in problems}
    return [
        [
            *by_id[row.sample["problem_id"]].turns(system),
            {"role": "assistant", "content": row.sample["completion"].strip()},
        ]
        for row in kept
    ]


def raft_sampling(settings: Settings) -> Sampling:
    """How RAFT samples: the engines' settings with RAFT's own temperature."""
    temperature = settings.raft.temperature
    rollout = settings.rollout
    if temperature is not None:
        rollout = rollout.model_copy(update={"temperature": temperature})
    return sampling_of(rollout)


def raft_training(settings: Settings) -> TrainSettings:
    """How each cycle trains: the training settings with RAFT's own epochs and learning rate."""
    return settings.train.of_stage(settings.raft.epochs, settings.raft.learning_rate)


def _open(session: Session, policy: Policy, output: Path, fresh: bool) -> _Run:
    settings = session.settings
    chosen = settings.raft
    problems, excluded = choose_problems(chosen, settings.language)
    sampling, training = raft_sampling(settings), raft_training(settings)
    check_trainable(policy, training)
    system = settings.system or policy.system
    # What decides the samples of every cycle. More cycles of the same run are the same run.
    identity: Identity = {
        "what": "raft",
        "problems": prompts_digest(problems),
        "policy": policy.digest,
        "seed": settings.seed,
        "system": system,
        "sampling": identity_of(sampling),
        "selection": settings.raft.model_dump(
            include={"samples_per_prompt", "reward_threshold", "keep_top_percent"}
        ),
        "verify": settings.verify.judging(),
        "train": identity_of(training, NOT_LEARNED),
    }
    if excluded:
        identity["excluded"] = excluded
        session.report.say(f"raft: {excluded} problems left out, as {chosen.exclude} says")
    if exposed := sum(problem.judge == "program" for problem in problems):
        session.report.say(
            f"raft: {exposed} problems have judge 'program', where an answer shares a process with "
            "its tests and can redefine what they assert with: rewards may be earned unsolved"
        )
    run_id = open_run(output, identity, fresh)
    save_settings(settings, output)
    return _Run(session, problems, sampling, system, training, run_id, output)


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
