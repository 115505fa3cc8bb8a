"""A DeepSpeed JSON of one's own: what is taken from it, what is refused, what is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from haloforge.config import load_settings
from haloforge.errors import InputError
from haloforge.train.deepspeed_config import adamw_options, deepspeed_config, read_deepspeed
from haloforge.train.settings import TrainSettings


def written(folder: Path, config: Any) -> str:
    path = folder / "ds.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


def test_what_it_says_in_our_words_becomes_our_settings(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        {
            "zero_optimization": {"stage": 3, "reduce_bucket_size": 1000},
            "bf16": {"enabled": False},
            "gradient_clipping": 0.5,
            "train_batch_size": 16,
            "train_micro_batch_size_per_gpu": "auto",
            "gradient_accumulation_steps": "auto",
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "eps": 1e-6, "betas": "auto"}},
            "wall_clock_breakdown": True,
        },
    )
    settings = load_settings(None, {"train.deepspeed": path}).train
    assert (settings.zero_stage, settings.dtype, settings.max_grad_norm) == (3, "fp32", 0.5)
    assert (settings.batch_size, settings.learning_rate) == (16, 1e-3)
    assert settings.micro_batch_size is None
    config = deepspeed_config(settings, read_deepspeed(path))
    assert config["zero_optimization"] == {"stage": 3, "reduce_bucket_size": 1000}
    assert config["wall_clock_breakdown"] is True
    assert config["gradient_clipping"] == 0.5
    assert config["bf16"] == {"enabled": False}
    assert config["train_micro_batch_size_per_gpu"] == config["gradient_accumulation_steps"] == 1
    assert config.keys().isdisjoint({"optimizer", "train_batch_size"})
    assert adamw_options(read_deepspeed(path)) == {"eps": 1e-6}
    again = TrainSettings.model_validate(settings.model_dump())  # as config.yaml is read again
    assert again == settings


def test_each_conflict_is_named_with_both_sides(tmp_path: Path) -> None:
    path = written(tmp_path, {"zero_optimization": {"stage": 2}, "gradient_clipping": 1.0})
    flags = {"train.deepspeed": path, "train.zero_stage": 3, "train.max_grad_norm": 0.3}
    with pytest.raises(InputError) as refused:
        load_settings(None, flags)
    assert "zero_optimization.stage is 2, but train.zero_stage is 3" in str(refused.value)
    assert "gradient_clipping is 1.0, but train.max_grad_norm is 0.3" in str(refused.value)
    same = {"train.deepspeed": path, "train.zero_stage": 2, "train.max_grad_norm": 1}
    assert load_settings(None, same).train.zero_stage == 2


def test_a_stage_s_own_rate_is_a_conflict_too(tmp_path: Path) -> None:
    path = written(tmp_path, {"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}})
    settings = load_settings(None, {"train.deepspeed": path}).train
    assert settings.of_stage(2.0, 1e-3).epochs == 2.0
    with pytest.raises(InputError, match=r"params\.lr is 0\.001, but train\.learning_rate is 0\.1"):
        settings.of_stage(None, 0.1)


def test_its_offload_is_our_setting(tmp_path: Path) -> None:
    zero = {"stage": 2, "offload_optimizer": {"device": "cpu", "pin_memory": False}}
    path = written(tmp_path, {"zero_optimization": zero})
    settings = load_settings(None, {"train.deepspeed": path}).train
    assert settings.cpu_offload
    assert deepspeed_config(settings, read_deepspeed(path))["zero_optimization"] == zero


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", "expected JSON"),
        ([1], "expected an object"),
        ({"scheduler": {"type": "WarmupLR"}}, "'scheduler' cannot be set here: train.schedule"),
        ({"gradient_accumulation_steps": 4}, "it follows from train.batch_size"),
        ({"fp16": {"enabled": True}}, "training is in bf16 or fp32"),
        ({"optimizer": {"type": "Lamb"}}, "'optimizer.type' is Lamb: it is always AdamW"),
        ({"zero_optimization": {"stage": "two"}}, "'zero_optimization.stage' is 'two'"),
        (
            {"optimizer": {"params": {"torch_adam": True}}},
            "'optimizer.params.torch_adam' is not known",
        ),
        (
            {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}},
            "offload_optimizer.device' is 'nvme': expected ['cpu', 'none']",
        ),
    ],
)
def test_what_is_not_ours_to_give_is_refused(tmp_path: Path, config: Any, told: str) -> None:
    with pytest.raises(InputError, match=r"ds\.json") as refused:
        load_settings(None, {"train.deepspeed": written(tmp_path, config)})
    assert told in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.deepspeed=.*none\.json: No such file"):
        load_settings(None, {"train.deepspeed": str(tmp_path / "none.json")})


def test_offload_needs_something_to_offload() -> None:
    with pytest.raises(InputError, match=r"cpu_offload needs train\.zero_stage"):
        load_settings(None, {"train.cpu_offload": True})
    settings = load_settings(None, {"train.cpu_offload": True, "train.zero_stage": 3}).train
    zero = deepspeed_config(settings)["zero_optimization"]
    assert zero == {
        "stage": 3,
        "offload_optimizer": {"device": "cpu"},
        "offload_param": {"device": "cpu"},
    }
    with pytest.raises(InputError, match="cannot be cut by ZeRO 3"):
        load_settings(None, {"train.load_in_4bit": True, "train.zero_stage": 3})
