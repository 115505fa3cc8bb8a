"""Secrets in the environment of a cluster's nodes reach no program in the sandbox, and no log."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tests.local_cluster import LocalCluster

CANARY = "canary-8c1f04"
# Looks in its own environment, in that of every process that it sees, and for the cluster's token.
# The word stands in it in two parts: where it is found whole it came from elsewhere.
PROGRAM = """
import glob, os
canary = "canary-" "8c1f04"
found = [name for name, value in os.environ.items() if canary in value]
for path in [*glob.glob("/proc/[0-9]*/environ"), "{token}"]:
    try:
        held = open(path, "rb").read()
    except OSError:
        continue
    if canary.encode() in held or path == "{token}":
        found.append(path)
print("leaked" if found else "nothing")
"""


def test_they_stay_with_the_nodes(cluster: LocalCluster, tmp_path: Path) -> None:
    secrets = {"HF_TOKEN": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY, "WANDB_API_KEY": CANARY}
    cluster.environment.update(secrets)
    cluster.start()
    token = cluster.client["RAY_AUTH_TOKEN_PATH"]
    program = PROGRAM.format(token=token)
    outside = subprocess.run(
        [sys.executable, "-c", program], env=cluster.client, capture_output=True, text=True
    )
    assert outside.stdout == "leaked\n", "or the program could find nothing anywhere"

    row = {
        "problem_id": "look",
        "prompt": "?",
        "language": "python",
        "completion": f"```python\n{program}\n```",
        "tests": [{"stdin": "", "stdout": "nothing\n"}],
    }
    rows, verdicts = tmp_path / "rows.jsonl", tmp_path / "verdicts.parquet"
    rows.write_text(json.dumps(row) + "\n")
    words = ["submit", "verify", "--input", str(rows), "--output", str(verdicts)]
    done = subprocess.run(
        [sys.executable, "-m", "haloforge", *words, "--set", "verify.resource=verifier"],
        env=cluster.client,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [outcome] = pq.read_table(verdicts)["outcome"].to_pylist()
    assert outcome == "passed", done.stdout

    logs = [path for path in cluster.folder.rglob("*") if path.is_file() and str(path) != token]
    assert any("verif" in path.name or "worker" in path.name for path in logs)
    told = {str(path): path.read_bytes().decode(errors="replace") for path in logs}
    told |= {"the submitter": done.stdout + done.stderr}
    for secret in (CANARY, Path(token).read_text()):
        assert not [name for name, text in told.items() if secret in text]
