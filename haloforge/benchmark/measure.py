"""A benchmark of one model: samples judged, then compile@k and pass@k with intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from haloforge.benchmark.compare import distinct_names
from haloforge.benchmark.environment import environment
from haloforge.benchmark.exports import export_samples
from haloforge.benchmark.problems import problems_to_measure
from haloforge.benchmark.results import RESULTS, Environment, Result, Throughput, read_result
from haloforge.benchmark.scoring import benchmark_sampling, score
from haloforge.config import Settings, save_settings
from haloforge.data.problems import prompts_digest
from haloforge.errors import InputError
from haloforge.model.card import add_results
from haloforge.model.policy import Policy
from haloforge.sampling import sample_and_judge
from haloforge.session import Session
from haloforge.store.problems_table import write_problems
from haloforge.store.run import Identity, identity_of, open_run, write_atomic
from haloforge.store.shards import Judged, read_judged, working_seconds


def benchmark(
    session: Session,
    policy: Policy,
    output: Path,
    fresh: bool = False,
    settings: Settings | None = None,
    on_card: bool = True,
) -> Result:
    """Measures `policy` on `benchmark.prompts` and writes samples and `results.json` to `output`,
    and, where `on_card`, the result on the model's card.

    `settings` are the session's but for those of the benchmark, where they are given. Raises what
    `sample_and_judge` raises, and InputError where `output` holds another run.
    """
    settings = (settings or session.settings).model_copy(update={"model": policy.name})
    chosen = settings.benchmark
    problems, excluded, suite = problems_to_measure(settings, session.chats_with(policy))
    sampling = benchmark_sampling(settings)
    identity: Identity = {
        "what": "benchmark",
        "problems": prompts_digest(problems),
        "policy": policy.identity,
        "samples": chosen.samples,
        "sampling": identity_of(sampling),
        "verify": settings.verify.judging(),
        "system": policy.system_prompt(settings.system),
        "seed": settings.seed,
    }
    title = f"benchmark {policy.name}"
    if excluded:
        identity["excluded"] = excluded
        session.report.say(f"{title}: {excluded} problems left out, as {chosen.exclude} says")
    if suite:
        session.report.say(
            f"{title}: {suite['title']} ({suite['version']}; {suite['licence']}), "
            f"{len(problems)} problems, prompt style {suite['prompt_style']}"
        )
    run = open_run(output, identity, fresh, {"weights": policy.digest})
    save_settings(settings, output)
    write_problems(output, problems)
    with session.observer.run(output, "benchmark", settings.model_dump(mode="json")):
        with session.observer.phase("measure"):
            sample_and_judge(
                session,
                policy,
                problems,
                chosen.samples,
                sampling,
                run,
                0,
                output,
                title,
                chosen.raw,
            )
        judged = list(read_judged(output))
        export_samples(output, problems, judged, settings.verify)
        found = score(policy, problems, judged, settings, excluded, suite)
        result = found.model_copy(
            update={
                "throughput": _throughput(judged, output),
                "environment": _environment(found, output),
            }
        )
        session.report.result(_headline(result))
        write_atomic(output / RESULTS, result.model_dump_json(indent=2) + "\n")
        session.observer.measured(result.measures)
    if on_card and policy.folder is not None:
        add_results(policy.folder, _title(result), {m: str(e) for m, e in result.measures.items()})
    return result


def _headline(result: Result) -> str:
    """The first measure that is there of pass@1 and the compile rate."""
    found = (name for name in ("pass@1", "compile_rate") if name in result.measures)
    return next((f"{name} {result.measures[name]}" for name in found), "nothing measured")


def benchmark_all(
    session: Session,
    policies: Sequence[Policy],
    folders: Mapping[str, Path],
    fresh: bool = False,
    settings: Settings | None = None,
) -> dict[str, Result]:
    """The result of each policy, in their order, by the names of `output_folders`.

    Those of one base are measured one after the other, which needs one start of engines.
    """
    named = dict(zip(folders, policies, strict=True))
    bases = list(dict.fromkeys(policy.base.digest for policy in policies))
    order = sorted(named, key=lambda name: bases.index(named[name].base.digest))
    results = {
        name: benchmark(session, named[name], folders[name], fresh, settings) for name in order
    }
    return {name: results[name] for name in folders}


def output_folders(
    policies: Sequence[Policy], output: Path | None, suite: str | None = None
) -> dict[str, Path]:
    """Where the results of each policy go, by a name that tells it from the others: `output`, or a
    folder of that name below it where there are several; without it beside each model. Those of a
    `suite` have a folder of its name in there.

    Raises InputError where a policy comes twice.
    """
    names = distinct_names([policy.name for policy in policies])
    folders = {}
    for name, policy in zip(names, policies, strict=True):
        beside = suites_output(policy) if suite else default_output(policy)
        below = output / name if output and len(policies) > 1 else output
        folders[name] = (below or beside) / (suite or "")
    return folders


def default_output(policy: Policy) -> Path:
    """A folder beside what was trained, or `models/benchmark/<name>` for a base."""
    if policy.folder is not None:
        return policy.folder.with_name(f"{policy.folder.name}_benchmark")
    return Path("models") / "benchmark" / policy.base.public_id.replace("/", "--")


def suites_output(policy: Policy) -> Path:
    """The folder beside the model that holds a folder for each suite."""
    output = default_output(policy)
    return output.with_name(f"{output.name.removesuffix('_benchmark')}_suites")


def _throughput(judged: Sequence[Judged], output: Path) -> Throughput:
    tokens = sum(row.sample["num_tokens"] for row in judged)
    seconds = round(working_seconds(output), 1)
    rate = round(tokens / seconds, 1) if seconds else None
    return Throughput(generated_tokens=tokens, seconds=seconds, tokens_per_second=rate)


def _environment(found: Result, output: Path) -> Environment:
    """That of the sitting which ended these samples; of this one where none did."""
    if (output / RESULTS).is_file():
        try:
            before = read_result(output)
        except InputError:  # of another version, whose place is taken
            return environment()
        if before.complete and before.environment and before.samples_digest == found.samples_digest:
            return before.environment
    return environment()


def _title(result: Result) -> str:
    """What was measured, for the model card."""
    chosen = result.settings
    left_out = f" ({chosen.excluded} left out)" if chosen.excluded else ""
    missing = "" if result.complete else f" Incomplete: {result.infra_errors} samples were lost."
    return (
        f"{result.problems} problems of `{Path(chosen.prompts).name}`{left_out}, {result.samples} "
        f"samples each at temperature {chosen.temperature:g}; mean over problems with its 95% "
        f"interval.{missing}"
    )
