"""What can be checked before Ray starts: inputs that are wrong are refused within a second."""

import os
from collections.abc import Iterable, Sequence

from haloforge.benchmark.problems import problems_to_measure, read_source
from haloforge.benchmark.suites import PREFIX, suite_named
from haloforge.config import Settings
from haloforge.data.keys import prompt_digest
from haloforge.data.problems import choose_problems
from haloforge.data.sft import read_sft
from haloforge.errors import InputError
from haloforge.model.bases import check_name
from haloforge.observe.trackers import check_trackers
from haloforge.raft.difficulty import read_history
from haloforge.raft.held_out import eval_settings
from haloforge.schema import Problem
from haloforge.serve.catalogue import Catalogue
from haloforge.verify.verifier import require_toolchains


def check_sft(settings: Settings) -> None:
    """Raises InputError for a model or data that `sft train` cannot use."""
    check_trackers(settings.observe)
    if settings.model is not None:
        check_name(settings.model)
    read_sft(settings.sft.data, settings.language, difficulty=settings.sft.difficulty)
    if isinstance(settings.sft.validation, str):
        read_sft(settings.sft.validation, settings.language)


def check_raft(settings: Settings) -> None:
    """Raises InputError for a model, checkpoint or problems that `raft train` cannot use."""
    check_trackers(settings.observe)
    for name in (settings.raft.checkpoint, settings.model):
        if name is not None:
            check_name(name)
    problems = choose_problems(settings.raft, settings.language).problems
    for problem in problems:
        if problem.prefix is not None:
            raise InputError(
                f"problem '{problem.problem_id}': RAFT trains on conversations, give 'prompt' or "
                "'messages' and no 'prefix'"
            )
    if settings.raft.history is not None:
        read_history(settings.raft.history, problems)
    check_problems(settings, problems)
    if settings.raft.eval_prompts is not None:
        held_out = read_source(settings.raft.eval_prompts, eval_settings(settings))
        check_problems(settings, held_out)
        _check_apart(problems, held_out, "raft.eval_prompts")


def check_benchmark(settings: Settings, models: Sequence[str] = ()) -> None:
    """Raises InputError for a model (that of `settings`, or several), problems or k that
    `benchmark run` cannot use."""
    check_trackers(settings.observe)
    for name in (*models, settings.model):
        if name is not None:
            check_name(name)
    chosen = settings.benchmark
    for k in chosen.k:
        if not 1 <= k <= chosen.samples:
            raise InputError(
                f"k={k} cannot be estimated from {chosen.samples} samples a problem: "
                "raise --samples or lower --k"
            )
    check_problems(settings, problems_to_measure(settings).problems)


def check_suites(
    settings: Settings, names: Sequence[str], models: Sequence[str] = ()
) -> dict[str, Settings]:
    """The settings to measure each suite by, by name. Raises InputError for an unknown one, and for
    what `benchmark run` could not use."""
    chosen = {}
    for name in dict.fromkeys(name.strip() for name in names):
        prompts = PREFIX + suite_named(name).name
        benchmark = settings.benchmark.model_copy(update={"prompts": prompts})
        chosen[name] = settings.model_copy(update={"benchmark": benchmark})
    for of_suite in chosen.values():
        check_benchmark(of_suite, models)
    return chosen


def check_serve(settings: Settings) -> None:
    """Raises InputError where no model is named to serve, or one that can be none."""
    if not settings.serve.models:
        raise InputError("no model is named: give --model, or serve.models")
    Catalogue(settings.serve.models)


def check_pipeline(settings: Settings) -> None:
    """All of these; and no problem may be both trained on and measured on, nor variants of one."""
    check_sft(settings)
    check_raft(settings)
    check_benchmark(settings)
    _check_apart(
        read_source(settings.raft.prompts, settings),
        read_source(settings.benchmark.prompts, settings),
        "benchmark.prompts",
    )


def _check_apart(trained: Iterable[Problem], measured: Iterable[Problem], setting: str) -> None:
    """By the group, or the id of a problem without one, and by what is asked."""
    ids = {name: problem.problem_id for problem in trained for name in _names(problem)}
    both = [problem for problem in measured if _names(problem) & ids.keys()]
    if both:
        known = min(ids[name] for name in _names(both[0]) & ids.keys())
        raise InputError(
            f"problem '{known}' is in raft.prompts and in {setting} ({len(both)} such in all): a "
            "model must not be measured on what it trained on"
        )


def _names(problem: Problem) -> set[str]:
    return {problem.group or problem.problem_id, str(prompt_digest(problem))}


def check_problems(settings: Settings, problems: Iterable[Problem]) -> None:
    """The toolchains that the problems name are here, where this machine is the one that judges by
    toolchains."""
    if settings.ray.address or os.environ.get("RAY_ADDRESS") or settings.verify.own():
        return
    require_toolchains(settings.verify.verifier, problems)
