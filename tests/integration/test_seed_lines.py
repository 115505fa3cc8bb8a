"""From a copy of the Codeforces rows to prompts and an adapter, by the README's command lines."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from haloforge.data.problems import read_problems
from tests.perf.measuring import DATA

ROWS = DATA / "codeforces_cpp.jsonl"
LINES = """
halo-forge data prepare --dataset codeforces_cpp --from {rows} --output data/train.jsonl
head -200 data/train.jsonl | jq -c \
 '{{prompt: .text | split("<|im_start|>user\\n")[1] | split("<|im_end|>")[0]}}' > data/prompts.jsonl
halo-forge sft train --data data/train.jsonl --model {model} --output models/sft --epochs 1 \
 --set sft.limit=16
"""


def test_the_lines_run_on_a_copy_of_the_codeforces_rows(tiny_model: Path, tmp_path: Path) -> None:
    if not ROWS.is_file():
        pytest.skip(f"{ROWS} is not here (HALOFORGE_TEST_DATA names its folder)")
    if not shutil.which("jq"):
        pytest.skip("jq is not installed")
    script = "set -euo pipefail\n" + LINES.format(rows=ROWS, model=tiny_model)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    rows = [json.loads(line) for line in (tmp_path / "data/train.jsonl").read_text().splitlines()]
    asked = {row["messages"][-2]["content"].strip() for row in rows[:200]}
    prompts = read_problems(str(tmp_path / "data/prompts.jsonl"))
    assert {str(problem.prompt).strip() for problem in prompts} == asked
    assert not asked & {
        str(problem.prompt).strip() for problem in read_problems(str(tmp_path / "data/test.jsonl"))
    }
    made = json.loads((tmp_path / "models/sft/final_model/haloforge.json").read_text())
    assert made["training"]["rows"] == 16
    assert made["training"]["dropped_rows"] < 16 and made["training"]["steps"] >= 1
