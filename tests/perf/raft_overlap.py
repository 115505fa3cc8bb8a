"""How well generation and verification overlap: the longer of both alone, over both together.

The engine (its three processes) has core 0, and all else core 1: driver, Ray, verifier, boxes. A
round, in a process of its own, does three things with one engine, from the first request to the
last commit: both together (`sample_and_judge`); verification alone, of the very samples that gave;
generation alone (`rollout_stage`, consumed, nothing judged). No start-up counts: engine and Ray are
warm, and verification alone begins with its first verdict. Samples differ from draw to draw, so
generation alone counts in tokens/s, for as many tokens as both together made. No verdict comes from
a cache, and the engine forgets its cached prefixes before each part. Two rounds; of each of the
three the better counts. `python -m tests.perf.raft_overlap [PROBLEMS]`, by default 128.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import ray

from haloforge.config import load_settings
from haloforge.data.chat import render_prompt
from haloforge.data.problems import answer_start, read_problems
from haloforge.groups import samples_in
from haloforge.model.policy import Policy
from haloforge.rollout.engine import Prompt
from haloforge.rollout.requests import Requests
from haloforge.rollout.settings import Sampling
from haloforge.rollout.stage import rollout_stage
from haloforge.sampling import judged_rows, sample_and_judge
from haloforge.schema import Problem
from haloforge.session import Session
from haloforge.store.shards import ShardWriter, read_judged
from haloforge.verify.stored import StoredSamples
from tests.perf.generation_vs_vllm import ENGINE
from tests.perf.measuring import apart, spread

MODULE = "tests.perf.raft_overlap"
SAMPLES = 2
SAMPLING = Sampling(temperature=0.7, top_p=1.0, max_tokens=256, stop_at_fence=True)
ENGINE_CORE, OTHER_CORE = 0, 1
WARM_UP = 8


def bind(process: psutil.Process, core: int) -> None:
    """Binds all threads of a process and its descendants, and what they start from now on."""
    for each in (process, *process.children(recursive=True)):
        for thread in each.threads():
            os.sched_setaffinity(thread.id, {core})


def together(session: Session, policy: Policy, problems: Sequence[Problem], folder: Path) -> float:
    """Seconds of `sample_and_judge`."""
    began = time.monotonic()
    title = folder.name
    sample_and_judge(session, policy, problems, SAMPLES, SAMPLING, title, 0, folder, title)
    return time.monotonic() - began


def verification(session: Session, problems: Sequence[Problem], folder: Path) -> float:
    """Seconds to judge and commit again all samples of `folder` but the first."""
    samples = {row.sample["sample_id"]: row.sample for row in read_judged(folder)}
    by_id = ray.put({problem.problem_id: problem for problem in problems})
    stored = StoredSamples(lambda: samples.values(), session.fleet.max_actors)
    settings = session.settings.verify
    began = 0.0
    with ShardWriter(folder.with_name(f"{folder.name}-again")) as shards:
        judged = judged_rows(settings, session.fleet, stored.dataset(), by_id, "verification")
        for row, verdict in judged:
            began = began or time.monotonic()
            stored.judged()
            shards.add(samples[row["sample_id"]], verdict)
    return time.monotonic() - began


def generation(session: Session, policy: Policy, problems: Sequence[Problem]) -> float:
    """Tokens/s of the engine with nothing to be judged."""
    pool = session.engines(policy)
    tokenizer = session.tokenizer(policy.base)
    began = time.monotonic()
    prompts = []
    for problem in problems:
        start = answer_start(problem)
        prompts.append(Prompt(render_prompt(tokenizer, problem.turns(), start), start))
    names = [problem.problem_id for problem in problems]
    requests = Requests("alone", 0, names, SAMPLES, prompts)
    stage = rollout_stage(np.arange(len(requests)), pool, ray.put(requests), SAMPLING)
    tokens = sum(row["num_tokens"] for row in samples_in(stage))
    return tokens / (time.monotonic() - began)


def one_round(count: int) -> dict[str, float]:
    """All three in this process: samples/s, tokens/s, and tokens a sample of both together."""
    problems = spread(read_problems("starter"), count)
    settings = {
        **ENGINE,
        "verify.cache": False,
        "verify.actors": 1,
    }
    os.sched_setaffinity(0, {ENGINE_CORE})  # for the engine, which takes what it may use; see below
    with Session(load_settings(None, settings)) as session, tempfile.TemporaryDirectory() as parent:
        policy = session.policy(None)
        pool = session.engines(policy)
        bind(psutil.Process(), OTHER_CORE)
        for pid in pool.pids:
            bind(psutil.Process(pid), ENGINE_CORE)

        def forget() -> None:
            pool.set_policy(replace(policy, digest="another"))
            pool.set_policy(policy)

        together(session, policy, spread(problems, WARM_UP), Path(parent, "warm-up"))
        forget()
        folder = Path(parent, "together")
        both = together(session, policy, problems, folder)
        sizes = [row.sample["num_tokens"] for row in read_judged(folder)]
        judging = verification(session, problems, folder)
        forget()
        return {
            "together": len(sizes) / both,
            "verification": (len(sizes) - 1) / judging,
            "tokens_alone": generation(session, policy, problems),
            "tokens_each": sum(sizes) / len(sizes),
            "seconds": both,
        }


def entry(rounds: Sequence[dict[str, float]]) -> dict[str, float | str]:
    """The entry of all rounds: samples/s of both together over those of the slower alone."""

    def best(value: Callable[[dict[str, float]], float]) -> float:
        return max(map(value, rounds))

    together = best(lambda each: each["together"])
    verifying = best(lambda each: each["verification"])
    tokens_each = max(rounds, key=lambda each: each["together"])["tokens_each"]
    generating = best(lambda each: each["tokens_alone"]) / tokens_each
    slower = min(generating, verifying)
    told = [{name: round(value, 2) for name, value in each.items()} for each in rounds]
    note = (
        f"SmolLM2-135M, bundled C++ problems x {SAMPLES}, engine on one core, "
        f"all else on the other; alone: generation {generating:.2f}, verification "
        f"{verifying:.2f} samples/s; rounds: {told}"
    )
    numbers = {"ours": together, "reference": slower, "ratio": together / slower}
    return {**numbers, "unit": "samples/s", "note": note}


def main(count: str = "128") -> None:
    """Two rounds; prints the entry."""
    rounds = []
    for _ in range(2):
        rounds.append(json.loads(apart(MODULE, "round", count)))
        print(f"  {rounds[-1]}", file=sys.stderr, flush=True)
    print(json.dumps(entry(rounds)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["round", count]:
            print(json.dumps(one_round(int(count))))
        case arguments:
            main(*arguments)
