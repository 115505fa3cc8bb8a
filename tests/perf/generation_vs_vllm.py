"""Tokens/s through our Ray Data rollout over a plain `vllm.LLM.chat`, on the bundled model.

Both sides: the same prompts, sampling, thread binding, sequences in flight and cache; each warmed
up; start-up apart. They alternate (ours, reference, ours, reference) and the better of two counts,
so that a machine that slows down meanwhile does not favour one. Ours draws tokens with
`haloforge.rollout.cpu_sampler`, the reference as vLLM does. Prints one line of JSON.
"""

import json
import os
import sys
import time
from typing import Any

from tests.perf.measuring import alternately, number_format

SAMPLES = 4
PROBLEMS = 96
MAX_TOKENS = 128
MAX_NUM_SEQS = 64
MAX_MODEL_LEN = 1024
KV_CACHE_GB = 1.0
TEMPERATURE = 0.8
ENGINE = {
    "model": "smollm2-135m",
    "rollout.max_num_seqs": MAX_NUM_SEQS,
    "rollout.max_model_len": MAX_MODEL_LEN,
    "rollout.kv_cache_gb": KV_CACHE_GB,
}


def prompts() -> list[list[dict[str, str]]]:
    """Conversations, one a sample; the samples of a problem follow each other."""
    from haloforge.data.problems import read_problems

    problems = read_problems("starter", limit=PROBLEMS)
    return [problem.turns() for problem in problems for _ in range(SAMPLES)]


def ours() -> float:
    """Tokens/s of rollout_stage on engines of our pool, as RAFT uses them."""
    import numpy as np
    import ray

    from haloforge.config import load_settings
    from haloforge.data.chat import render_prompt
    from haloforge.groups import samples_in
    from haloforge.rollout.engine import Prompt
    from haloforge.rollout.requests import Requests
    from haloforge.rollout.settings import Sampling
    from haloforge.rollout.stage import rollout_stage
    from haloforge.session import Session

    sampling = Sampling(
        temperature=TEMPERATURE, top_p=1.0, max_tokens=MAX_TOKENS, stop_at_fence=False
    )
    with Session(load_settings(None, ENGINE)) as session:
        policy = session.policy(None)
        pool = session.engines(policy)
        tokenizer = session.tokenizer(policy.base)
        conversations = prompts()

        def run(count: int) -> float:
            chosen = [Prompt(render_prompt(tokenizer, c)) for c in conversations[:count]]
            names = [f"p{number}" for number in range(len(chosen))]
            requests = ray.put(Requests("perf", 0, names, 1, chosen))
            began = time.monotonic()
            stage = rollout_stage(np.arange(len(chosen)), pool, requests, sampling)
            tokens = sum(row["num_tokens"] for row in samples_in(stage))
            return tokens / (time.monotonic() - began)

        run(16)
        pool.set_policy(policy)
        return run(len(conversations))


def plain_llm() -> Any:
    """A `vllm.LLM`, tuned as its own users would: both cores, eager, bf16."""
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, range(os.cpu_count() or 1)))
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    from vllm import LLM

    from haloforge.model.bases import resolve_base

    return LLM(
        model=str(resolve_base("smollm2-135m").path),
        dtype=number_format(),
        enforce_eager=True,
        max_num_seqs=MAX_NUM_SEQS,
        max_model_len=MAX_MODEL_LEN,
        kv_cache_memory_bytes=int(KV_CACHE_GB * 2**30),
        generation_config="vllm",
    )


def reference() -> float:
    """Tokens/s of `LLM.chat`."""
    from vllm import SamplingParams

    llm = plain_llm()
    params = SamplingParams(temperature=TEMPERATURE, max_tokens=MAX_TOKENS)
    conversations: list[Any] = prompts()

    def run(count: int) -> float:
        began = time.monotonic()
        outputs = llm.chat(conversations[:count], params, use_tqdm=False)
        return sum(len(o.outputs[0].token_ids) for o in outputs) / (time.monotonic() - began)

    run(16)
    llm.reset_prefix_cache()
    return run(len(conversations))


def main() -> None:
    """Both sides twice, in turn."""
    sides = alternately("tests.perf.generation_vs_vllm", "tokens/s")
    best = {side: max(values) for side, values in sides.items()}
    note = (
        f"SmolLM2-135M, {PROBLEMS} prompts x {SAMPLES}, {MAX_TOKENS} tokens, {MAX_NUM_SEQS} in "
        f"flight, {os.cpu_count()} cores; all runs: {sides}"
    )
    entry = {**best, "ratio": best["ours"] / best["reference"], "unit": "tokens/s", "note": note}
    print(json.dumps(entry))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print({"ours": ours, "reference": reference}[sys.argv[1]]())
    else:
        main()
