"""Training that is killed, in whatever way, ends as if it had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from haloforge.train.checkpoint import Checkpoints
from haloforge.train.metrics import StepMetrics
from haloforge.train.settings import LoraSettings, TrainSettings
from haloforge.train.trainer import TrainResult, train
from tests.processes import family, living, names, wait_until

ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f"say {number} " + "and more " * number},
            {"role": "assistant", "content": "x" * number + f" answer {number * 7}"},
        ]
    }
    for number in range(22)
]
# Dropout draws at each step: what is drawn must be the same again.
SETTINGS = TrainSettings(
    epochs=4,
    batch_size=4,
    learning_rate=1e-3,
    dtype="fp32",
    save_steps=3,
    lora=LoraSettings(rank=8, dropout=0.1),
)
STEPS = 24


@pytest.fixture
def local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def run(base: Path, output: Path, settings: TrainSettings, **options: Any) -> TrainResult:
    workers, cpus = options.pop("workers", 1), options.pop("cpus", 0.5)
    settings = settings.model_copy(update={"workers": workers})
    return train(ROWS, base, None, output, settings, cpus, threads_per_worker=1, **options)


def curve(folder: Path) -> list[float]:
    """The loss of every step; steps are told once each, in order."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    return [line["loss"] for line in lines]


def assert_same(found: Path, expected: Path) -> None:
    """The same weights, but for the order of sums."""
    from safetensors.torch import load_file

    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() < 1e-6, name


def kill_workers() -> None:
    for process in living(family(psutil.Process().pid)):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            process.kill()


def test_workers_that_are_killed_go_on_from_the_checkpoint(
    local_ray: None, tiny_model: Path, tmp_path: Path
) -> None:
    undisturbed = run(tiny_model, tmp_path / "undisturbed", SETTINGS)
    assert (undisturbed.steps, undisturbed.restarts) == (STEPS, 0)
    seen: list[int] = []

    def kill_twice(metrics: StepMetrics) -> None:
        seen.append(metrics.step)
        if metrics.step in (8, 17):
            kill_workers()

    result = run(tiny_model, tmp_path / "killed", SETTINGS, on_step=kill_twice)
    assert result.restarts == 2
    assert seen == list(range(1, STEPS + 1)), "a step was told twice"
    assert curve(tmp_path / "killed") == pytest.approx(curve(tmp_path / "undisturbed"), rel=1e-5)
    assert_same(result.path, undisturbed.path)
    (left,) = (tmp_path / "killed" / "checkpoints").iterdir()
    assert len(list(left.iterdir())) == SETTINGS.save_total_limit
    result.checkpoints.clear()
    assert not left.exists()


@pytest.mark.parametrize(
    ("begun", "ended", "workers"),
    [
        (3, 3, 3),  # three share no tensor evenly
        pytest.param(0, 2, 3, marks=pytest.mark.slow),
        pytest.param(2, 1, 2, marks=pytest.mark.slow),
        pytest.param(3, 0, 1, marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_with_other_workers_and_another_stage(
    begun: int, ended: int, workers: int, local_ray: None, tiny_model: Path, tmp_path: Path
) -> None:
    exact = SETTINGS.model_copy(update={"lora": LoraSettings(rank=8, dropout=0)})
    undisturbed = run(tiny_model, tmp_path / "undisturbed", exact)

    def stop(metrics: StepMetrics) -> None:
        if metrics.step == 4:
            raise KeyboardInterrupt

    first, second = (exact.model_copy(update={"zero_stage": stage}) for stage in (begun, ended))
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path / "two", first, workers=2, on_step=stop)
    (newest,) = sorted((tmp_path / "two" / "checkpoints").rglob("step_*"))[-1:]
    kept = int(newest.name.removeprefix("step_"))
    assert kept < STEPS and not (tmp_path / "two" / "trained").exists(), "it was not at work"
    first_lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()[:3]
    result = run(tiny_model, tmp_path / "two", second, workers=workers)
    lines = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()
    assert lines[:3] == first_lines, "they were made again: even the times are the same"
    found, expected = curve(tmp_path / "two"), curve(tmp_path / "undisturbed")
    assert found == pytest.approx(expected, rel=1e-4)
    assert found[-1] < 0.9 * found[0], "nothing was learned, so all would be equal"
    from safetensors.torch import load_file

    ours, theirs = (
        load_file(each.path / "adapter_model.safetensors") for each in (result, undisturbed)
    )
    for name, tensor in theirs.items():
        assert (ours[name] - tensor).abs().max() < 0.05 * exact.learning_rate, name


def test_validation_stops_early_and_the_best_weights_are_kept(
    local_ray: None, tiny_model: Path, tmp_path: Path
) -> None:
    held_out = [
        {"messages": [{"role": "user", "content": "say 3"}, {"role": "assistant", "content": "no"}]}
    ]
    settings = SETTINGS.model_copy(
        update={"epochs": 200, "eval_steps": 2, "patience": 3, "save_total_limit": 1}
    )
    kept: list[int] = []

    def count(metrics: StepMetrics) -> None:
        tree = os.walk(tmp_path / "checkpoints")  # which is silent where one goes meanwhile
        kept.append(sum("manifest.json" in files for _, _, files in tree))

    result = run(tiny_model, tmp_path, settings, validation=held_out, on_step=count)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    judged = {line["step"]: line["eval_loss"] for line in lines if line["eval_loss"] is not None}
    assert list(judged) == list(range(2, result.steps + 1, 2))
    best = min(judged, key=lambda step: judged[step])
    assert (result.best_step, result.eval_loss) == (best, judged[best])
    assert settings.patience and result.steps == best + 2 * settings.patience < 1000
    # The worker goes on meanwhile: it deletes the last one when the new one is there. At the last
    # two steps the best is neither of the two newest.
    assert max(kept) <= 3 and min(kept[-2:]) <= 2, f"more than the newest and the best: {kept}"

    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from haloforge.data.chat import encode_example

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, result.path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    example = encode_example(tokenizer, held_out[0]["messages"], 2048)
    assert example is not None
    ids = torch.tensor([example.input_ids])
    labels = torch.where(torch.tensor([example.trained]), ids, -100)
    with torch.no_grad():
        assert float(model(ids, labels=labels).loss) == pytest.approx(judged[best], rel=1e-4)


@pytest.mark.slow
def test_a_node_that_dies_is_replaced_by_the_next_one_that_comes(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Two workers on two nodes. The first node, the driver's, stays: Ray's head is on it."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        undisturbed = run(tiny_model, tmp_path / "undisturbed", SETTINGS, workers=2, cpus=1)
        dies = cluster.list_all_nodes()[1]
        seen: list[int] = []

        def take_the_node(metrics: StepMetrics) -> None:
            seen.append(metrics.step)
            if metrics.step == 8:
                cluster.remove_node(dies, allow_graceful=False)
                cluster.add_node(num_cpus=1)

        output = tmp_path / "disturbed"
        result = run(tiny_model, output, SETTINGS, workers=2, cpus=1, on_step=take_the_node)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert result.restarts >= 1 and seen == list(range(1, STEPS + 1))
    assert curve(output) == pytest.approx(curve(tmp_path / "undisturbed"), rel=1e-5)
    assert_same(result.path, undisturbed.path)


def sft_command(model: Path, data: Path, output: Path, epochs: int) -> list[str]:
    asked = [sys.executable, "-m", "haloforge", "sft", "train", "--model", model, "--data", data]
    asked += ["--output", output, "--epochs", epochs, "--batch-size", 4, "--learning-rate", 1e-3]
    for setting in ("save_steps=3", "dtype=fp32", "lora.dropout=0.1", "lora.rank=8", "workers=1"):
        asked += ["--set", f"train.{setting}"]
    return [*map(str, asked), "--set", "ray.num_cpus=2"]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, pytest.param(5, marks=pytest.mark.timeout(900))])
def test_a_job_that_is_killed_goes_on_when_it_is_run_again(
    kills: int, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    # Steps take milliseconds, and the driver looks four times a second.
    epochs = 10 + 10 * kills
    steps = epochs * -(-len(ROWS) // 4)
    undisturbed = sft_command(tiny_model, data, tmp_path / "undisturbed", epochs)
    subprocess.run(undisturbed, check=True, timeout=300)

    command, drawn = (
        sft_command(tiny_model, data, tmp_path / "killed", epochs),
        random.Random(kills),
    )
    final = tmp_path / "killed" / "final_model"
    work = final.with_name("final_model.training")
    reached = 0
    for _ in range(kills):
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        target, metrics = reached + drawn.randint(2, 20), work / "metrics.jsonl"
        assert wait_until(partial(has_lines, metrics, target), 300)
        time.sleep(drawn.random() / 10)
        reached = lines_of(metrics)
        everything = family(driver.pid)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert reached < steps and not final.exists(), "it was not at work any more"
        assert wait_until(partial(none_lives, everything), 30), names(everything)
    subprocess.run(command, check=True, timeout=300)
    expected = tmp_path / "undisturbed" / "final_model"
    assert curve(final) == pytest.approx(curve(expected), rel=1e-5)
    assert_same(final, expected)
    assert not work.exists()


def lines_of(path: Path) -> int:
    return path.read_text().count("\n")


def has_lines(path: Path, count: int) -> bool:
    return path.exists() and lines_of(path) >= count


def none_lives(processes: list[psutil.Process]) -> bool:
    return not living(processes)


def test_a_place_for_checkpoints_of_one_s_own(
    local_ray: None, tiny_model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "shared"
    settings = SETTINGS.model_copy(update={"checkpoints": str(place), "epochs": 2})
    seen: set[str] = set()

    def look(metrics: StepMetrics) -> None:
        tree = os.walk(place)
        seen.update(
            Path(folder).parent.name for folder, _, files in tree if "manifest.json" in files
        )

    result = run(tiny_model, tmp_path / "out", settings, on_step=look)
    (run_digest,) = seen
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert Checkpoints(str(place), run_digest, 1).steps() == result.checkpoints.steps() != []
    result.checkpoints.clear()
    assert list(place.iterdir()) == []
