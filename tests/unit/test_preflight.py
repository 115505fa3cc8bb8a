"""What is refused before Ray starts."""

import json
from pathlib import Path

import pytest

from haloforge.config import load_settings
from haloforge.errors import InputError
from haloforge.preflight import check_raft

SUM, PRODUCT = "Print the sum of two numbers.", "Print their product."


@pytest.mark.parametrize(
    ("trained", "measured"),
    [
        ({"problem_id": "a"}, {"problem_id": "a", "prompt": PRODUCT}),
        ({"problem_id": "a"}, {"problem_id": "b", "prompt": f" {SUM}\n"}),
        ({"problem_id": "a", "group": "g"}, {"problem_id": "b", "group": "g", "prompt": PRODUCT}),
    ],
)
def test_problems_that_are_trained_on_do_not_score(
    tmp_path: Path, trained: dict[str, str], measured: dict[str, str]
) -> None:
    """By id, by what is asked, and by the group of variants."""
    files = {"prompts": {"prompt": SUM, **trained}, "eval_prompts": measured}
    for name, row in files.items():
        (tmp_path / name).write_text(json.dumps({"language": "python", **row}))
    paths = {f"raft.{name}": str(tmp_path / name) for name in files}
    with pytest.raises(InputError, match=r"'a' is in raft.prompts and in raft.eval_prompts \(1"):
        check_raft(load_settings(None, paths))
    apart = {"problem_id": "c", "prompt": PRODUCT, "language": "python"}
    (tmp_path / "eval_prompts").write_text(json.dumps(apart))
    check_raft(load_settings(None, paths))
