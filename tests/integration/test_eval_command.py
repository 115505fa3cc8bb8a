"""`benchmark eval`: several suites, one engine start, each asked in its own style."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.unit import suite_rows as rows

OPTIONS = (
    "--samples 1 --k 1 --limit 2 --max-tokens 16 --set rollout.engine=transformers "
    "--set ray.num_cpus=2 --set verify.compile_wall_s=60 --set benchmark.resamples=100"
)


def test_two_suites_on_one_engine(tiny_model: Path, tmp_path: Path) -> None:
    rows.write(tmp_path / "data" / "humaneval-cpp.jsonl", rows.multipl_e())
    suites = ["humaneval", "multipl-e-cpp"]
    arguments = [
        *("benchmark", "eval", "--suite", ",".join(suites), "--model", str(tiny_model)),
        *("--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), *OPTIONS.split()),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "haloforge", *arguments],
        cwd=tmp_path,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=500,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0, told
    assert told.count("engines: starting") == 1
    found = {
        name: json.loads((tmp_path / "out" / name / "results.json").read_text()) for name in suites
    }
    for name, style, problems in zip(suites, ("instruct", "base"), (2, 1), strict=True):
        suite = found[name]["settings"]["suite"]
        assert (suite["name"], suite["prompt_style"]) == (name, style)
        assert len(suite["sha256"]) == 64
        assert found[name]["problems"] == problems
        assert f"{name}, prompt style {style}" in done.stdout
    assert found["multipl-e-cpp"]["outcomes"].keys() == {"compile_error"}
