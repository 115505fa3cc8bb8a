"""Real vLLM engines on a CPU: swaps that drain, what a killed owner leaves, the fallback."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from haloforge.errors import InfraError
from haloforge.model.bases import resolve_base
from haloforge.model.policy import Policy
from haloforge.placement import Cluster, place
from haloforge.rollout.engine import Prompt
from haloforge.rollout.pool import EnginePool
from haloforge.rollout.settings import RolloutSettings, Sampling
from tests.processes import family, living, names, wait_until

GREEDY = Sampling(temperature=0.0, top_p=1.0, max_tokens=200, stop_at_fence=False)
PROMPTS = [Prompt([5 + i, 17, 40 + i, 9]) for i in range(8)]
# fp32, so that a greedy answer is the same in every batch.
SETTINGS = RolloutSettings(max_model_len=256, max_num_seqs=8, kv_cache_gb=0.1, dtype="float32")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def policies(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Policy]:
    """The tiny base, and an adapter on it that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = resolve_base(str(tiny_model))
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapter = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(adapter)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(adapter)
    return [
        Policy("base", base, None, base.digest),
        Policy("tuned", base, adapter, "tuned-digest"),
    ]


def start(policy: Policy, settings: RolloutSettings) -> EnginePool:
    placement = place(Cluster(2, 0, 2), settings.engines)
    return EnginePool.start(policy.base, settings, [2], placement, 4)


def complete(pool: EnginePool, policy: Policy) -> list[ray.ObjectRef]:
    return [pool.engines[0].generate.remote(prompt, GREEDY, policy) for prompt in PROMPTS]


def texts(answers: list[ray.ObjectRef]) -> list[str]:
    return [answer["completion"] for answer in ray.get(answers)]


@pytest.mark.parametrize(
    ("engine", "swap"),
    [
        ("vllm", "merge"),
        pytest.param("vllm", "lora", marks=pytest.mark.slow),
        ("transformers", "merge"),
    ],
)
def test_a_swap_drains_first_and_mixes_no_answer(
    local_ray: None, policies: list[Policy], engine: str, swap: str, tmp_path: Path
) -> None:
    base, tuned = policies
    # What the engine computes with: an adapter beside the base is never rounded to bf16.
    tuned.merge_into(tmp_path / "merged", "fp32" if swap == "lora" else "bf16")
    merged = Policy("merged", resolve_base(str(tmp_path / "merged")), None, "merged-digest")
    pool = start(base, SETTINGS.model_copy(update={"engine": engine, "policy_swap": swap}))
    try:
        by_base = texts(complete(pool, base))
        in_flight = complete(pool, base)  # an actor begins its calls in order: before the swap
        by_tuned = complete(pool, tuned)
        by_base_again = complete(pool, base)
        assert texts(in_flight) == texts(by_base_again) == by_base
        assert {answer["policy"] for answer in ray.get(in_flight)} == {base.digest}
        assert {answer["policy"] for answer in ray.get(by_tuned)} == {tuned.digest}
        assert all(a != b for a, b in zip(by_base, texts(by_tuned), strict=True))
        assert pool.set_policy(tuned) > 0
        assert pool.set_policy(tuned) == 0
        if swap == "lora":
            with pytest.raises(InfraError, match="merged is no policy on the base"):
                pool.set_policy(merged)
            pool.stop()
            pool = start(merged, SETTINGS)
        assert texts(complete(pool, merged)) == texts(by_tuned)
    finally:
        pool.stop()


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_an_answer_ends_before_the_first_of_its_stops(
    local_ray: None, policies: list[Policy], engine: str
) -> None:
    pool = start(policies[0], SETTINGS.model_copy(update={"engine": engine}))
    try:

        def answer(stop: tuple[str, ...] | None, fence: bool) -> dict[str, Any]:
            prompt = Prompt(PROMPTS[0].token_ids, "given ", stop)
            sampling = GREEDY.model_copy(update={"stop_at_fence": fence})
            return ray.get(pool.engines[0].generate.remote(prompt, sampling, pool.policy))

        whole = answer(None, fence=False)
        assert whole["finish_reason"] == "length"
        written = whole["completion"].removeprefix("given ")
        early, late = (re.findall(r"[a-z]{2}", written)[place] for place in (3, 12))
        cut = written[: min(written.find(early), written.find(late))]
        stopped = answer((late, "never there", early), fence=True)
        assert (stopped["completion"], stopped["finish_reason"]) == (f"given {cut}", "stop")
        assert 0 < stopped["num_tokens"] < whole["num_tokens"]
        assert answer((), fence=True)["completion"] == whole["completion"]
    finally:
        pool.stop()


@pytest.mark.slow
def test_an_engine_s_processes_end_with_their_owner(
    local_ray: None, policies: list[Policy]
) -> None:
    pool = start(policies[0], SETTINGS)
    try:
        processes = family(pool.pids[0])
        # Its core and its worker, with torch in memory. Their titles are not set on every machine.
        assert sum(process.memory_info().rss > 200 * 2**20 for process in processes[1:]) == 2
        processes[0].kill()
        assert wait_until(lambda: not living(processes), 15), names(processes)
    finally:
        pool.stop()


DRIVER = """
import sys
from haloforge.config import load_settings
from haloforge.session import Session
settings = load_settings(None, {"model": sys.argv[1], "rollout.max_model_len": 256,
    "rollout.max_tokens": 64, "rollout.kv_cache_gb": 0.1})
with Session(settings) as session:
    session.engines(session.policy(None))
    print("engines are up", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    "ending", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_nothing_is_left_when_the_driver_ends(tiny_model: Path, ending: signal.Signals) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tiny_model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "engines are up\n"
    processes = family(driver.pid)
    assert "ray::EngineActor" in names(processes) and "raylet" in names(processes)
    driver.send_signal(ending)
    driver.wait(30)
    assert wait_until(lambda: not living(processes), 30), names(processes)


def test_the_cpu_sampler_finds_its_place_in_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.sample.ops import topk_topp_sampler

    from haloforge.rollout import cpu_sampler

    place = "compiled_random_sample"
    monkeypatch.setattr(topk_topp_sampler, place, getattr(topk_topp_sampler, place))  # to restore
    own = getattr(topk_topp_sampler, place)
    cpu_sampler.use_cpu_sampler()
    assert getattr(topk_topp_sampler, place) is own  # not our engine: left alone
    monkeypatch.setenv(cpu_sampler.CPU_ENGINE_VARIABLE, "1")
    cpu_sampler.use_cpu_sampler()
    assert getattr(topk_topp_sampler, place) is cpu_sampler.draw
