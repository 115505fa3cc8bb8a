"""Training for real: Ray Train, DeepSpeed, gloo workers, a tiny Llama."""

import json
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest
import ray

from haloforge.data.chat import CHATML_TEMPLATE
from haloforge.errors import InfraError, InputError, ResourceError
from haloforge.observe.observer import Observer
from haloforge.observe.settings import ObserveSettings
from haloforge.report.progress import Report
from haloforge.train.metrics import WATCHED, StepMetrics
from haloforge.train.settings import LoraSettings, TrainSettings
from haloforge.train.trainer import TrainResult, train
from tests.processes import family, free_port, living, wait_until

ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f"say {number}"},
            {"role": "assistant", "content": "x" * number + f" answer {number * 7}"},
        ]
    }
    for number in range(11)
]
# Large enough for ZeRO 3 to cut the adapter's tensors (over 100,000 values each).
WIDE = LoraSettings(rank=1024, alpha=1024, dropout=0, target_modules=["q_proj", "down_proj"])
AGREEMENT = TrainSettings(
    epochs=2, batch_size=4, micro_batch_size=2, learning_rate=1e-3, dtype="fp32", lora=WIDE
)


@pytest.fixture(scope="module", autouse=True)
def metrics_port() -> Iterator[int]:
    """A Ray whose metrics are at the port."""
    port = free_port()
    options = {"include_dashboard": False, "log_to_driver": False, "_metrics_export_port": port}
    ray.init(address="local", num_cpus=2, **options)
    yield port
    ray.shutdown()


def run(
    base: Path, output: Path, settings: TrainSettings, workers: int, **options: Any
) -> TrainResult:
    settings = settings.model_copy(update={"workers": workers})
    rows = options.pop("rows", ROWS)
    adapter_path = options.pop("adapter_path", None)
    return train(rows, base, adapter_path, output, settings, 0.5, threads_per_worker=1, **options)


def losses(output: Path) -> list[float]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def weights(adapter: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(adapter / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def one_worker(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("one")
    long = {"role": "user", "content": "word " * 3000}
    dropped = {"messages": [long, {"role": "assistant", "content": "never reached"}]}
    seen: list[StepMetrics] = []
    observer = Observer(ObserveSettings(trackers=[], report_s=0), Report())
    observer.enter(tmp_path_factory.mktemp("watched"), "sft", {})

    def on_step(step: StepMetrics) -> None:
        seen.append(step)
        observer.trained(step, 1)

    result = run(tiny_model, output, AGREEMENT, 1, rows=[*ROWS, dropped], on_step=on_step)
    observer.close()

    assert result.dropped_rows == 1
    assert result.steps == 6  # 11 rows in batches of 4, twice
    assert [metrics.step for metrics in seen] == [1, 2, 3, 4, 5, 6]
    assert losses(output) == [metrics.loss for metrics in seen]
    assert result.trained_tokens == sum(metrics.trained_tokens for metrics in seen)
    assert (result.loss_first, result.loss_last) == (seen[0].loss, seen[-1].loss)
    # Too few steps for a checkpoint.
    written = ["metrics.jsonl", "run.id", "sittings.json", "tensorboard", "trained"]
    assert sorted(path.name for path in output.iterdir()) == written
    (board,) = (output / "tensorboard").iterdir()
    for name in ("loss", "lr", "grad_norm", "tokens_per_s", "seconds", "memory_mb"):
        assert f"train/{name}".encode() in board.read_bytes()
    assert all(metrics.tokens_per_s > 0 and 0 < metrics.memory_mb < 1e5 for metrics in seen)
    return output


def test_ray_exports_the_metrics(one_worker: Path, metrics_port: int) -> None:
    def exported() -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{metrics_port}/metrics") as answer:
            lines = re.findall(r"ray_haloforge_train_(\w+)\{.* (\S+)", answer.read().decode())
        return {name: float(value) for name, value in lines}

    last = json.loads((one_worker / "metrics.jsonl").read_text().splitlines()[-1])
    expected = {name: last[name] for name in ("step", *WATCHED) if last[name] is not None}
    assert wait_until(lambda: exported() == pytest.approx(expected), 60), exported()


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_two_workers_train_as_one_does_at_any_zero_stage(
    zero_stage: int, one_worker: Path, tiny_model: Path, tmp_path: Path
) -> None:
    settings = AGREEMENT.model_copy(update={"zero_stage": zero_stage})
    result = run(tiny_model, tmp_path, settings, 2)

    assert losses(tmp_path) == pytest.approx(losses(one_worker), rel=1e-4)
    expected, found = weights(one_worker / "trained"), weights(result.path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].shape == tensor.shape
        # Adam's first steps have the size of the rate, whatever the gradient's: this is a
        # twentieth of one step.
        assert (found[name] - tensor).abs().max() < 0.05 * settings.learning_rate, name


def test_plain_peft_loads_the_adapter_and_it_changes_the_output(
    one_worker: Path, tiny_model: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(one_worker / "trained")
    prompt = tokenizer.apply_chat_template(
        ROWS[3]["messages"], return_tensors="pt", return_dict=True
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        before = model(**prompt, labels=prompt["input_ids"])
        after = PeftModel.from_pretrained(model, one_worker / "trained")(
            **prompt, labels=prompt["input_ids"]
        )
    assert not torch.allclose(before.logits, after.logits, atol=1e-3)
    assert after.loss < before.loss


def test_memorises_in_bf16_then_goes_on_from_the_adapter_until_a_worker_dies(
    tiny_model: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(epochs=40, batch_size=11, learning_rate=1e-2, warmup_ratio=0)
    first = run(tiny_model, tmp_path / "first", settings, 2)
    assert first.loss_last < 0.5 * first.loss_first

    # Two cycles of one Ray session; the second one's worker is killed at its third step.
    seen: list[StepMetrics] = []

    def kill_at_third(metrics: StepMetrics) -> None:
        seen.append(metrics)
        if metrics.step == 3:
            for process in living(family(psutil.Process().pid)):
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    process.kill()

    gentle = settings.model_copy(update={"learning_rate": 1e-6, "epochs": 2000, "max_restarts": 0})
    output = tmp_path / "second"
    with pytest.raises(InfraError, match="training worker 0 died") as caught:
        run(
            tiny_model,
            output,
            gentle,
            1,
            adapter_path=first.path,
            on_step=kill_at_third,
        )
    assert "\n" not in str(caught.value)
    assert seen[0].loss == pytest.approx(first.loss_last, abs=0.5)
    assert not (output / "trained").exists()
    assert len(losses(output)) >= 3
    wait_for_free_cpus()


@pytest.mark.parametrize(
    "zero_stage", [0, 1, *(pytest.param(stage, marks=pytest.mark.slow) for stage in (2, 3))]
)
def test_hundreds_of_micro_batches_have_the_gradient_of_one(
    zero_stage: int, tiny_model: Path, tmp_path: Path
) -> None:
    """In bf16 the 300th of equal gradients would be lost beside the sum of the others."""
    settings = TrainSettings(epochs=1, batch_size=600, warmup_ratio=0, zero_stage=zero_stage)
    norms = []
    for micro_batch_size in (None, 1):
        chosen = settings.model_copy(update={"micro_batch_size": micro_batch_size})
        output = tmp_path / str(micro_batch_size)
        steps: list[StepMetrics] = []
        run(tiny_model, output, chosen, 1, rows=[ROWS[3]] * 600, on_step=steps.append)
        norms.append(steps[0].grad_norm)
    assert norms[1] == pytest.approx(norms[0], rel=0.01)


def test_a_base_without_a_chat_template_is_given_one(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    tokenizer = AutoTokenizer.from_pretrained(bare)
    tokenizer.chat_template = None
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(bare)
    assert AutoTokenizer.from_pretrained(bare).chat_template is None
    settings = AGREEMENT.model_copy(update={"epochs": 1, "use_lora": False})
    result = run(bare, tmp_path / "out", settings, 1)
    assert AutoTokenizer.from_pretrained(result.path).chat_template == CHATML_TEMPLATE


def test_loss_that_is_not_finite_names_step_and_setting(tiny_model: Path, tmp_path: Path) -> None:
    settings = AGREEMENT.model_copy(
        update={"learning_rate": 1e30, "warmup_ratio": 0.0, "lora": LoraSettings()}
    )
    complaint = r"^step \d: the (loss|gradient) is (nan|inf); lower train\.learning_rate .*e\+"
    with pytest.raises(InputError, match=complaint):
        run(tiny_model, tmp_path, settings, 1)
    assert not (tmp_path / "trained").exists()
    wait_for_free_cpus()


def test_stop_from_on_step_ends_the_run_and_frees_its_workers(
    tiny_model: Path, tmp_path: Path
) -> None:
    def stop(metrics: StepMetrics) -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    endless = AGREEMENT.model_copy(update={"epochs": 1e6, "lora": LoraSettings()})
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model, tmp_path, endless, 1, on_step=stop)
    assert not (tmp_path / "trained").exists()
    assert signal.getsignal(signal.SIGINT) is handler
    wait_for_free_cpus()


def test_more_workers_than_the_cluster_holds(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"train\.workers=5 of 0\.5 CPUs each do not fit"):
        run(tiny_model, tmp_path, AGREEMENT, 5)


def wait_for_free_cpus() -> None:
    """A run that failed must leave nothing booked."""
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.2)
