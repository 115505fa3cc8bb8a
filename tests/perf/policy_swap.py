"""Two ways for an engine to take a new policy: merged into the base, or a LoRA adapter beside it.

Tokens/s and seconds of a swap on the bundled model, an adapter of rank 16 on all linear layers.
Each way runs twice, in turn, in a process of its own; the better of two counts. A swap's seconds
run from the request for it, with the adapter on disk, to the first token by it. Prints one line of
JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SAMPLES, PROBLEMS, MAX_TOKENS = 2, 96, 128
ENGINE = {
    "model": "smollm2-135m",
    "rollout.max_num_seqs": 64,
    "rollout.max_model_len": 1024,
    "rollout.kv_cache_gb": 1.0,
}


def measure(swap: str) -> dict[str, float]:
    """Tokens/s by an adapter, and seconds of the second swap: imports are the first one's."""
    import numpy as np
    import ray

    from haloforge.config import load_settings
    from haloforge.data.chat import render_prompt
    from haloforge.data.problems import read_problems
    from haloforge.groups import samples_in
    from haloforge.model.bases import resolve_base
    from haloforge.model.policy import resolve_policy
    from haloforge.rollout.engine import Prompt
    from haloforge.rollout.requests import Requests
    from haloforge.rollout.settings import Sampling
    from haloforge.rollout.stage import rollout_stage
    from haloforge.session import Session
    from tests.adapters import random_adapter

    sampling = Sampling(temperature=0.8, top_p=1.0, max_tokens=MAX_TOKENS, stop_at_fence=False)
    base = resolve_base("smollm2-135m").path
    settings = load_settings(None, {**ENGINE, "rollout.policy_swap": swap})
    with tempfile.TemporaryDirectory() as folder, Session(settings) as session:
        adapters = [
            resolve_policy(str(random_adapter(base, Path(folder) / name, seed, 16, 0.01)))
            for seed, name in enumerate(("first", "second"))
        ]
        tokenizer = session.tokenizer(adapters[0].base)
        problems = read_problems("starter", limit=PROBLEMS)
        names = [problem.problem_id for problem in problems]
        prompts = [Prompt(render_prompt(tokenizer, problem.turns())) for problem in problems]
        requests = Requests("perf", 0, names, SAMPLES, prompts)
        asked_for = ray.put(requests)

        def run(count: int) -> float:
            began = time.monotonic()
            stage = rollout_stage(np.arange(count), pool, asked_for, sampling)
            tokens = sum(row["num_tokens"] for row in samples_in(stage))
            return tokens / (time.monotonic() - began)

        pool = session.engines(adapters[0])
        run(16)
        asked = time.time()
        pool = session.engines(adapters[1])
        speed = run(len(requests))
        (facts,) = pool.facts()
        return {
            "tokens_per_s": speed,
            "swap_s": facts["swap_seconds"],
            "first_token_s": facts["first_token_at"] - asked,
        }


def main() -> None:
    """Both ways twice, in turn."""
    runs: dict[str, list[dict[str, float]]] = {"merge": [], "lora": []}
    for _ in range(2):
        for swap, measured in runs.items():
            command = [sys.executable, "-m", "tests.perf.policy_swap", swap]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            measured.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"  {swap}: {measured[-1]}", file=sys.stderr, flush=True)
    merge, lora = (max(run["tokens_per_s"] for run in runs[swap]) for swap in runs)
    told = "; ".join(
        f"{swap}: swap {min(run['swap_s'] for run in measured):.1f} s, first token after "
        f"{min(run['first_token_s'] for run in measured):.1f} s"
        for swap, measured in runs.items()
    )
    note = (
        f"SmolLM2-135M with an adapter, merged against beside it, {PROBLEMS} prompts x {SAMPLES}, "
        f"{MAX_TOKENS} tokens, {os.cpu_count()} cores; {told}; all runs: {runs}"
    )
    entry = {"ours": merge, "reference": lora, "ratio": merge / lora, "unit": "tokens/s"}
    print(json.dumps({**entry, "note": note}))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
