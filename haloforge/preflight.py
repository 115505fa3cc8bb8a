"""What can be checked before Ray starts: inputs that are wrong are refused within a second."""

import os
from collections.abc import Iterable, Sequence

from haloforge.benchmark.problems import problems_to_measure, read_source
from haloforge.benchmark.suites import PREFIX, suite_named
from haloforge.config import Settings
from haloforge.data.problems import choose_problems
from haloforge.data.sft import read_sft
from haloforge.errors import InputError
from haloforge.model.bases import check_name
from haloforge.schema import Problem
from haloforge.verify.verifier import require_toolchains


def check_sft(settings: Settings) -> None:
    """Raises InputError for a model or data that `sft train` cannot use."""
    if settings.model is not None:
        check_name(settings.model)
    read_sft(settings.sft.data, settings.language, difficulty=settings.sft.difficulty)
    if isinstance(settings.sft.validation, str):
        read_sft(settings.sft.validation, settings.language)


def check_raft(settings: Settings) -> None:
    """Raises InputError for a model, checkpoint or problems that `raft train` cannot use."""
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
    check_problems(settings, problems)


def check_benchmark(settings: Settings, models: Sequence[str] = ()) -> None:
    """Raises InputError for a model (that of `settings`, or several), problems or k that
    `benchmark run` cannot use."""
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


def check_pipeline(settings: Settings) -> None:
    """All of these; and no problem may be both trained on and measured on, nor variants of one."""
    check_sft(settings)
    check_raft(settings)
    check_benchmark(settings)

    def groups(source: str) -> dict[str, str]:
        problems = read_source(source, settings)
        return {problem.group or problem.problem_id: problem.problem_id for problem in problems}

    trained = groups(settings.raft.prompts)
    both = sorted(groups(settings.benchmark.prompts).keys() & trained.keys())
    if both:
        raise InputError(
            f"problem '{trained[both[0]]}' is in raft.prompts and in benchmark.prompts "
            f"({len(both)} such in all): a model must not be measured on what it trained on"
        )


def check_problems(settings: Settings, problems: Iterable[Problem]) -> None:
    """The toolchains that the problems name are here, where this machine is the one that judges by
    toolchains."""
    if settings.ray.address or os.environ.get("RAY_ADDRESS") or settings.verify.own():
        return
    require_toolchains(settings.verify.verifier, problems)
