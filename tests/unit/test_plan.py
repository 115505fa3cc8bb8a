"""`halo-forge plan`: what it counts, where it puts actors, what it refuses, and what it prints."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from haloforge.config import Settings, load_settings
from haloforge.errors import InputError, ResourceError
from haloforge.model.adapter import AdapterInfo
from haloforge.placement import Cluster, place
from haloforge.plan.fit import plan, plan_on
from haloforge.plan.hours import Rates, rates_of, stages_of
from haloforge.plan.memory import GB, engine_gpu, kv_bytes_per_token, trainer_gpu
from haloforge.plan.nodes import Node, nodes_of, seat
from haloforge.plan.settings import PlanSettings
from haloforge.plan.shape import shape_of, shipped
from haloforge.store.cache import cache_folder
from haloforge.study import _settings_digest

# What the hub says of the weights of each: tensors' sizes, tied embeddings once.
PUBLISHED = {
    "smollm2-135m": 134_515_008,
    "Qwen/Qwen2.5-Coder-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-Coder-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-Coder-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-Coder-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-Coder-32B-Instruct": 32_763_876_352,
}
SEVEN = "Qwen/Qwen2.5-Coder-7B-Instruct"
ONE_GPU = ["plan.gpus_per_node=1", "plan.cpus_per_node=24", "plan.node_memory_gb=220"]


@pytest.fixture(autouse=True)
def no_hub_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine has fetched."""
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)


def settings(*assignments: str, model: str | None = SEVEN) -> Settings:
    return load_settings(None, {"model": model}, assignments)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_forms_that_come_along_have_as_many_parameters_as_the_weights(name: str) -> None:
    assert shape_of(settings(model=name)).parameters == PUBLISHED[name]


def test_base_and_instruct_have_one_form() -> None:
    for name, facts in shipped().items():
        if name.startswith("Qwen/"):
            assert shipped()[name.removesuffix("-Instruct")] == facts


def test_an_adapter_s_parameters_are_counted() -> None:
    """Rank x (inputs + outputs) of each linear layer (LoRA, Hu et al. 2021)."""
    facts = shipped()["Qwen/Qwen2.5-Coder-0.5B"]
    hidden, inside = facts["hidden_size"], facts["intermediate_size"]
    cached = hidden // facts["num_attention_heads"] * facts["num_key_value_heads"]
    ends = 2 * (hidden + hidden) + 2 * (hidden + cached) + 3 * (hidden + inside)
    shape = shape_of(settings("train.lora.rank=4", model="Qwen/Qwen2.5-Coder-0.5B"))
    assert shape.added == 4 * ends * facts["num_hidden_layers"]
    assert shape_of(settings("train.use_lora=false", model="smollm2-135m")).added == 0


def test_a_form_is_read_where_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({**shipped()["Qwen/Qwen2.5-Coder-0.5B"], "num_hidden_layers": 2})
    )
    given = f"plan.architecture={tmp_path}"
    assert shape_of(settings(given, model="some/model")).size.layers == 2
    assert shape_of(settings(model=str(tmp_path))).size.layers == 2


def test_the_bundled_model_has_the_form_that_comes_along() -> None:
    path = cache_folder() / "bases" / "smollm2-135m-1" / "config.json"
    if not path.is_file():
        pytest.skip("the bundled model was not converted here yet")
    real = json.loads(path.read_text())
    shape = shipped()["smollm2-135m"]
    assert {name: real[name] for name in shape} == shape


def test_a_form_in_the_hub_s_cache_is_taken_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**shipped()[SEVEN], "num_hidden_layers": 1}))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(path))
    found = shape_of(settings())
    assert (found.size.layers, found.source) == (1, "the Hugging Face cache")


def test_an_adapter_goes_on_with_its_own_rank(tmp_path: Path) -> None:
    lora = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(lora))
    info = AdapterInfo(
        base="smollm2-135m",
        base_public_id="smollm2-135m",
        base_digest="d",
        stage="sft",
        parent="d",
        chat_template="",
    )
    (tmp_path / "haloforge.json").write_text(info.model_dump_json())
    found = shape_of(settings(f"raft.checkpoint={tmp_path}"))
    assert found.name == "smollm2-135m"
    assert found.added == 2 * (576 + 576) * 30


@pytest.mark.parametrize(
    ("content", "fault"),
    [(None, "cannot be read"), ("{", "expected the JSON"), ('{"model_type": "no"}', "not a conf")],
)
def test_a_form_that_cannot_be_read_is_named(
    content: str | None, fault: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=f"{path}.*{fault}"):
        shape_of(settings(f"plan.architecture={path}"))


def test_an_unknown_model_says_what_to_give() -> None:
    with pytest.raises(InputError, match=r"some/model.*plan\.architecture=PATH"):
        shape_of(settings(model="some/model"))


def test_the_kv_cache_of_a_token() -> None:
    """2 x 28 layers x 4 heads x 128 x 2 bytes = 56 KiB of the 7B model; four GPUs share its heads,
    and of eight each holds one all the same."""
    shape = shape_of(settings())
    assert kv_bytes_per_token(shape, settings()) == 56 * 1024
    assert kv_bytes_per_token(shape, settings("rollout.tensor_parallel=4")) == 14 * 1024
    assert kv_bytes_per_token(shape, settings("rollout.tensor_parallel=8")) == 14 * 1024
    assert kv_bytes_per_token(shape, settings("rollout.dtype=float32")) == 112 * 1024


def test_an_engine_s_gpus_share_its_weights() -> None:
    shape = shape_of(settings())
    whole = engine_gpu(shape, settings(), 79)
    half = engine_gpu(shape, settings("rollout.tensor_parallel=2"), 79)
    assert whole["weights"] == 2 * PUBLISHED[SEVEN] == 2 * half["weights"]
    assert half["KV cache"] > whole["KV cache"]
    assert sum(whole.values()) == pytest.approx(79 * 0.92 * GB)
    assert engine_gpu(shape, settings("rollout.kv_cache_gb=3"), 79)["KV cache"] == 3 * GB
    assert "adapter" in engine_gpu(shape, settings("rollout.policy_swap=lora"), 79)


def trainer(*assignments: str, workers: int = 4) -> tuple[dict[str, float], dict[str, float]]:
    chosen = settings(*assignments)
    placed = place(Cluster(96, 8, 96), 2, 1, workers, "disaggregated")
    return trainer_gpu(shape_of(chosen), chosen, placed)


def test_zero_shares_out_what_its_paper_says() -> None:
    """Of a trained weight 12 bytes of states, 4 of its gradient here, 2 of itself, over 4 workers
    from stage 1, 2 and 3 on (Rajbhandari et al. 2020)."""
    stages = [trainer(f"train.zero_stage={stage}")[0] for stage in range(4)]
    trained = shape_of(settings()).size.trained
    assert [s["optimizer"] / trained for s in stages] == [12, 3, 3, 3]
    assert [s["gradients"] / trained for s in stages] == [4, 4, 1, 1]
    assert [s["trained weights"] / trained for s in stages] == [2, 2, 2, 0.5]
    assert stages[3]["frozen weights"] * 4 == stages[0]["frozen weights"] == 2 * PUBLISHED[SEVEN]


def test_what_is_offloaded_is_the_host_s() -> None:
    gpu, host = trainer("train.zero_stage=3", "train.cpu_offload=true")
    assert set(host) == {"optimizer", "frozen weights", "trained weights"} and not set(host) & set(
        gpu
    )
    gpu, host = trainer("train.zero_stage=2", "train.cpu_offload=true")
    assert set(host) == {"optimizer"} and "frozen weights" in gpu


def test_checkpointing_and_four_bits_save_memory() -> None:
    plain, _ = trainer()
    saved, _ = trainer("train.gradient_checkpointing=true", "train.load_in_4bit=true")
    assert saved["activations"] < plain["activations"] / 8
    # The embeddings of 2 x 152,064 x 3,584 parameters stay, in fp32.
    outer = 2 * 152_064 * 3584
    assert saved["frozen weights"] == (PUBLISHED[SEVEN] - outer) / 2 + 4 * outer


def seats_of(nodes: list[Node], **asked: Any) -> list[tuple[int, int]]:
    gpus = sum(node.gpus for node in nodes)
    cluster = Cluster(
        sum(node.cpus for node in nodes),
        gpus,
        8,
        tuple(node.cpus for node in nodes),
        tuple(float(node.gpus) for node in nodes),
    )
    placed = place(cluster, **asked)
    found = seat(nodes, placed)
    return [(node.engines, node.trainers) for node in found]


def node(gpus: int, cpus: float = 96) -> Node:
    return Node(cpus, gpus, 1000, 79)


def test_each_actor_has_a_seat() -> None:
    assert seats_of([node(8)] * 2, engines=12) == [(8, 0), (4, 4)]
    assert seats_of([node(4)] * 2, engines=8, layout="colocated") == [(4, 4), (4, 4)]
    assert seats_of([node(3)] * 2, engines=2, tensor_parallel=2) == [(1, 1), (1, 1)]
    assert seats_of([node(0, 4), node(0, 4)], engines=2, trainers=2) == [(2, 1), (0, 1)]


def test_an_engine_larger_than_a_node_is_refused() -> None:
    """Ray has enough GPUs in all, and would wait for ever for a node of 16."""
    with pytest.raises(ResourceError, match=r"engine 1 of 1 .*tensor_parallel is 8 at most"):
        seats_of([node(8)] * 3, engines=1, tensor_parallel=16)


def test_gpus_that_are_left_over_in_parts_are_no_seat() -> None:
    with pytest.raises(ResourceError, match="engine 4 of 4 books 2 GPUs"):
        seats_of([node(3)] * 3, engines=4, tensor_parallel=2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rollout.tensor_parallel=8", "28 attention heads"),
        ("rollout.max_model_len=40000", "32768 positions"),
    ],
)
def test_what_vllm_would_refuse_is_refused(change: str, message: str) -> None:
    machines = ["plan.gpus_per_node=16", "plan.cpus_per_node=96", "plan.node_memory_gb=1000"]
    with pytest.raises(InputError, match=message):
        plan(settings(*machines, change))


def test_a_key_value_cache_for_less_than_a_sequence_is_named() -> None:
    found = plan(settings(*ONE_GPU, "rollout.kv_cache_gb=0.1"))
    assert "holds no sequence of 2048 tokens, which takes 0.11 GB" in found.misfits[0]
    with pytest.raises(ResourceError, match="holds no sequence"):
        found.require_fit()


def test_a_living_cluster_can_be_planned_for() -> None:
    found = plan_on([node(1, 16)], settings("train.max_length=1024"))
    assert (found.placement.engines, found.placement.trainers) == (1, 1)
    assert found.placement.engines_sleep and not found.misfits


def test_the_machines_are_those_of_the_settings() -> None:
    given = PlanSettings(
        nodes=2, gpus_per_node=4, cpus_per_node=48, node_memory_gb=500, verifier_nodes=1
    )
    one, other, judges = nodes_of(given)
    assert one == other == Node(48, 4, 500, 79)
    assert (judges.gpus, judges.cpus, judges.only_verifies) == (0, 16, True)


def test_hours_are_work_by_rate() -> None:
    chosen = settings(
        *ONE_GPU, "raft.limit=10", "benchmark.limit=5", "sft.limit=6", "raft.epochs=1"
    )
    placed = place(Cluster(24, 1, 24), 1)
    rates = Rates(engine=1000, trainer=500, programs=5, answer_tokens=100)
    benchmark, sft, cycle = stages_of(chosen, placed, 24, rates)
    assert (benchmark.samples, cycle.samples) == (50, 80)
    assert cycle.generated_tokens == 8000 and cycle.generate == pytest.approx(8 / 3600)
    assert cycle.verify == pytest.approx(80 / 5 / 24 / 3600)
    # Half of each problem's 8 samples are kept.
    assert cycle.trained_tokens == 4000 and cycle.train == pytest.approx(8 / 3600)
    assert cycle.hours == pytest.approx(16 / 3600), "judging is hidden behind generating"
    assert sft.trained_tokens == 6 * 3 * 100 and sft.generate is None
    quarter = Rates(1000, 500, 5, 100, kept=0.25)
    assert stages_of(chosen, placed, 24, quarter)[2].trained_tokens == 2000
    unknown = stages_of(chosen, placed, 24, Rates(None, None, None, 100))
    assert [stage.hours for stage in unknown] == [None] * 3


def measured_run(folder: Path) -> Path:
    record = {
        "generated_tokens": 30_000,
        "tokens_per_second": 100.0,
        "selection": {"samples": 600},
        "training": {"rows": 150, "trained_tokens": 9000, "seconds": 180.0},
    }
    (folder / "raft_statistics.json").write_text(json.dumps([record, record]))
    config = {"rollout": {"engines": 2}, "train": {"workers": 3}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_rates_of_a_measured_run(tmp_path: Path) -> None:
    run = measured_run(tmp_path)
    found = rates_of(settings(), run)
    assert (found.engine, found.answer_tokens, found.kept) == (50, 50, 0.25)
    assert found.trainer == pytest.approx(9000 / 180 / 3)
    assert rates_of(settings("plan.engine_tokens_per_s=7"), run).engine == 7
    assert rates_of(settings(), None) == Rates(None, None, None, 1024)


@pytest.mark.parametrize("content", [None, "[]", "[{}]", "{"])
def test_a_run_that_tells_no_rates_is_named(content: str | None, tmp_path: Path) -> None:
    run = measured_run(tmp_path)
    path = run / "raft_statistics.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(InputError, match=r"raft_statistics\.json"):
        rates_of(settings(), run)


def test_no_run_is_told_apart_by_its_plan() -> None:
    recipe = Path(__file__).parents[2] / "jobs" / "demo.yaml"
    other = load_settings(recipe, {}, ["plan.gpus_per_node=8", "plan.answer_tokens=3"])
    assert _settings_digest(load_settings(recipe)) == _settings_digest(other)


def run_plan(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "haloforge", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_tells_what_fits() -> None:
    done = run_plan("--config", "jobs/demo.yaml", "--json", "--set", "plan.node_memory_gb=24")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["model"]["parameters"] == PUBLISHED["smollm2-135m"]
    assert told["engine_gpu"] is None and told["nodes"][0]["memory"]["swap the policy"]


def test_the_command_fails_in_one_line_where_it_does_not_fit() -> None:
    sets = [part for given in ONE_GPU for part in ("--set", given)]
    done = run_plan("--model", "Qwen/Qwen2.5-Coder-32B", *sets, "--set", "plan.gpu_memory_gb=24")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "needs" in line and "61.0 of them weights" in line
    assert "raise rollout.tensor_parallel to 2" in line
    assert "KV cache" in done.stdout, "the table is told all the same"
