"""RAFT: sample from the policy, judge, keep the best, train on them, and again."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from haloforge.config import Settings, save_settings
from haloforge.data.problems import choose_problems, prompts_digest
from haloforge.errors import InputError
from haloforge.model.adapter import INFO_FILE, read_info
from haloforge.model.policy import Policy, resolve_policy
from haloforge.raft.difficulty import (
    PASS_RATES,
    Plan,
    latest_rates,
    plan,
    read_history,
    record_history,
    record_rates,
    set_torn_aside,
)
from haloforge.raft.health import FEW_STEPS, Health, warnings
from haloforge.raft.held_out import HeldOut
from haloforge.raft.select import Selection, select
from haloforge.raft.statistics import write_statistics
from haloforge.raft.training_set import TrainingSet
from haloforge.rollout.pool import call
from haloforge.rollout.settings import Sampling, sampling_of
from haloforge.sampling import sample_and_judge
from haloforge.schema import Problem, digest
from haloforge.session import Session
from haloforge.store.clock import Clock
from haloforge.store.layout import EVAL, SECONDS
from haloforge.store.problems_table import write_problems
from haloforge.store.remote import saved
from haloforge.store.run import Identity, identity_of, open_run, set_aside
from haloforge.store.shards import sample_shards
from haloforge.train.plan import StepPlan
from haloforge.train.settings import NOT_LEARNED, TrainSettings
from haloforge.update import check_trainable, is_trained, update_policy

# In a run's identity even at their defaults, as they were before it left those out.
_TOLD_ALWAYS = {"samples_per_prompt", "reward_threshold", "keep_top_percent"}
# What the identity says by contents rather than names, or what decides nothing that is trained on.
_TOLD_OTHERWISE = {
    *("limit", "difficulty", "exclude", "prompts", "checkpoint", "history"),
    *("temperature", "epochs", "learning_rate"),
    *("output", "cycles", "min_samples", "eval_prompts", "eval_samples", "patience"),
}


def raft(session: Session, policy: Policy, output: Path, fresh: bool = False) -> Policy:
    """Runs `raft.cycles` cycles from `policy` and returns the last policy.

    After cycle N `output/cycle_N_final` is its adapter; `output/cycle_N` holds its samples and
    verdicts, what was trained on, and its score on held-out problems. A cycle that has ended is not
    repeated. Raises InputError where `output` holds another run, HaloforgeError where too few
    samples of a cycle are good enough to learn from.
    """
    run = _open(session, policy, output, fresh)
    with session.observer.run(output, "raft", session.settings.model_dump(mode="json")):
        return _cycles(session, policy, run)


def _cycles(session: Session, policy: Policy, run: "_Run") -> Policy:
    began = time.time()
    session.check_memory(policy, "engines", "trainers")
    last, parts = session.settings.raft.cycles, _parts(session.settings)
    cycles = session.report.each("cycle", range(1, last + 1), parts)
    held_out = HeldOut(session, run.output)
    with session.observer.phase("evaluate"):
        held_out.score(policy, 0)
    for cycle in cycles:
        clock = Clock(run.samples(cycle) / SECONDS, partial(_phase, session, cycle))
        run.set_torn_aside(cycle)
        if not is_trained(run.adapter(cycle)):
            planned = run.plan(cycle)
            clock.time("sample_and_verify", partial(run.sample_and_judge, policy, cycle, planned))
            run.note_first_token(policy, began, clock)
            selection = clock.time("select", partial(run.keep_best, policy, cycle))
            clock.time("train", partial(run.train, policy, planned, selection, cycle))
        else:
            session.report.reused()
        policy = resolve_policy(str(run.adapter(cycle)))
        clock.time("evaluate", partial(held_out.score, policy, cycle))
        if not is_trained(run.adapter(cycle + 1)):  # or they would go back, and forward again
            held_out.link_best()
            write_statistics(run.output, cycle, held_out.scores)
        session.observer.ended(f"cycle {cycle}")
        if held_out.stops(cycle):
            break
    return policy


@contextmanager
def _phase(session: Session, cycle: int, name: str) -> Iterator[None]:
    with session.report.under_way(name), session.observer.phase(name, cycle):
        yield


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

    def set_torn_aside(self, cycle: int) -> None:
        """The newest adapter, where a disk has spoilt what tells of it, so that it is trained anew.
        Of an earlier one that stays an error: the samples after it were drawn by it."""
        adapter = self.adapter(cycle)
        if not is_trained(adapter) or sample_shards(self.samples(cycle + 1)):
            return
        try:
            read_info(adapter)
        except InputError as error:
            aside = set_aside(adapter)
            if (scored := self.samples(cycle) / EVAL).exists():
                set_aside(scored)
            self.session.report.say(
                f"raft cycle {cycle}: {error}; it is set aside as {aside}, and trained anew"
            )

    def plan(self, cycle: int) -> Plan:
        """The problems that this cycle samples."""
        chosen = plan(self.problems, latest_rates(self.output, cycle), cycle, self.settings.raft)
        if self.settings.raft.curriculum != "none":
            self.session.report.say(
                f"raft cycle {cycle}: {len(chosen.problems)} problems to sample; {chosen.measured} "
                f"measured before, {chosen.unmeasured} not; {chosen.resting_too_easy} rest as too "
                f"easy, {chosen.resting_too_hard} as too hard"
            )
        return chosen

    def sample_and_judge(self, policy: Policy, cycle: int, planned: Plan) -> None:
        sample_and_judge(
            self.session,
            policy,
            planned.problems,
            self.settings.raft.samples_per_prompt,
            self.sampling,
            self.run_id,
            cycle,
            self.samples(cycle),
            f"raft cycle {cycle}",
        )

    def note_first_token(self, policy: Policy, began: float, clock: Clock) -> None:
        """Seconds from when the policy was saved until an engine wrote its first token by it, where
        that was in this sitting, which `began` then."""
        if policy.folder is None:
            return
        saved = (policy.folder / INFO_FILE).stat().st_mtime
        first = self.session.first_token_at(policy) if saved > began else None
        if first is not None:
            clock.note("saved_to_first_token", first - saved)

    def keep_best(self, policy: Policy, cycle: int) -> Selection:
        chosen = self.settings.raft
        selection = self._select(cycle)
        counts = selection.summary()
        self.session.report.say(
            f"raft cycle {cycle}: {counts['share_above_threshold']:.0%} of {selection.samples} "
            f"samples reach a reward of {chosen.reward_threshold:g}, {counts['share_kept']:.0%} "
            f"are kept ({_list(selection.kept_outcomes)}); dropped: {_list(selection.dropped)}"
        )
        if selection.earlier.unreadable:
            self.session.report.say(
                f"raft cycle {cycle}: left out is what was trained on in cycles "
                f"{', '.join(map(str, selection.earlier.unreadable))}: it cannot be read"
            )
        self.session.report.result(f"{selection.kept} kept")
        record_rates(
            self.output, cycle, self.problems, selection.judged, selection.solved, policy.digest
        )
        self.session.observer.selected(selection.summary(), asdict(selection.health))
        for line in self.warnings(selection, cycle):
            self.session.report.warn(f"raft cycle {cycle}: warning: {line}")
        selection.require(chosen.min_samples)
        return selection

    def _select(self, cycle: int) -> Selection:
        """In a process of its own on this machine, so that the memory that it takes is given back;
        it grows with the cycle's samples, the driver's does not."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        named = f"select cycle {cycle}"
        task = ray.remote(num_cpus=0, scheduling_strategy=here, name=named)(select)
        chosen, verify, seed = self.settings.raft, self.settings.verify, self.settings.seed
        problems = list(self.problems)
        selected = task.remote(self.output.resolve(), cycle, problems, chosen, verify, seed)
        found: Selection = call([selected], f"raft cycle {cycle}: selection stopped")[0]
        saved(found.path)  # by a process that knows nothing of where it is stored
        return found

    def warnings(self, selection: Selection, cycle: int) -> list[str]:
        """What is told of the cycle before it trains: signs of a collapse, and too few steps."""
        records = (read_info(self.adapter(n)).training for n in range(1, cycle))
        before = [
            Health(**record["selection"]["health"])
            for record in records
            if "health" in record["selection"]
        ]
        found = warnings([*before, selection.health])
        steps = StepPlan(
            [1] * selection.rows, self.training.batch_size, self.training.epochs, 0
        ).num_steps
        if steps < FEW_STEPS:
            found.append(
                f"{steps} steps are too few to learn much from: in the next run raise "
                "raft.samples_per_prompt, raft.keep_top_percent or raft.epochs, or lower "
                "train.batch_size"
            )
        return found

    def train(self, policy: Policy, planned: Plan, selection: Selection, cycle: int) -> None:
        chosen = self.settings.raft
        rate = chosen.learning_rate_of(cycle, self.training.learning_rate)
        update_policy(
            self.session,
            policy,
            TrainingSet(selection.path, self.problems, self.system),
            self.adapter(cycle),
            self.training.model_copy(update={"learning_rate": rate}),
            stage="raft",
            lineage=digest(self.run_id, cycle),
            cycle=cycle,
            system=self.system,
            data=f"{len(self.problems)} problems of `{Path(chosen.prompts).name}`, its own answers "
            f"with a reward of {chosen.reward_threshold:g} or more.",
            facts={
                "learning_rate": rate,
                "plan": {"problems": len(planned.problems), **_counts(planned)},
                "selection": selection.summary(),
                "warnings": self.warnings(selection, cycle),
            },
        )


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
    system = policy.system_prompt(settings.system)
    # What decides the samples of every cycle. More cycles of the same run are the same run.
    identity: Identity = {
        "what": "raft",
        "problems": prompts_digest(problems),
        "policy": policy.identity,
        "seed": settings.seed,
        "system": system,
        "sampling": identity_of(sampling),
        "selection": {
            **chosen.model_dump(include=_TOLD_ALWAYS),
            **identity_of(chosen, _TOLD_ALWAYS | _TOLD_OTHERWISE),
        },
        "verify": settings.verify.judging(),
        "train": identity_of(training, NOT_LEARNED),
    }
    history = read_history(chosen.history, problems, output) if chosen.history else None
    if history:
        identity["history"] = history.digest
        session.report.say(
            f"raft: {len(history.rates)} pass rates from {chosen.history}; left out are those of "
            f"{history.changed} problems that have changed and {history.unknown} not in this run"
        )
    if excluded:
        identity["excluded"] = excluded
        session.report.say(f"raft: {excluded} problems left out, as {chosen.exclude} says")
    if exposed := sum(problem.judge == "program" for problem in problems):
        session.report.say(
            f"raft: {exposed} problems have judge 'program', where an answer shares a process with "
            "its tests and can redefine what they assert with: rewards may be earned unsolved"
        )
    run_id = open_run(output, identity, fresh, {"weights": policy.digest})
    if torn := set_torn_aside(output):
        session.report.say(
            f"raft: {torn} pass rates in {output / PASS_RATES} cannot be read and are left out; "
            "those problems count as not measured then"
        )
    if history:
        record_history(output, history)
    save_settings(settings, output)
    write_problems(output, problems)
    return _Run(session, problems, sampling, system, training, run_id, output)


def _parts(settings: Settings) -> list[str]:
    """What each cycle does, by the names of its seconds."""
    scored = settings.raft.eval_prompts is not None
    return ["sample_and_verify", "select", "train", *(["evaluate"] if scored else [])]


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _counts(planned: Plan) -> dict[str, int]:
    return {name: value for name, value in planned._asdict().items() if name != "problems"}
