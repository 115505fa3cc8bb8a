"""What training holds in memory, by the number of its rows.

    python -m tests.perf.train_memory --rows 10000 1000000 --steps 100

Each run trains a tiny model on a JSONL file of so many rows, in a process of its own, for so many
steps of 512 rows; all rows are encoded, and drawn from.
Told are the driver, the largest worker that encodes or trains, each by the memory that it shares
with no other process (USS), and Ray's object store, which spills to disk what it has no room for.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

EVERY_S, MIB = 1.0, 2**20
BATCH_ROWS = 512


def main() -> None:
    """A line of figures for each number of rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=100)
    asked = parser.parse_args()
    if len(asked.rows) == 1:
        print(json.dumps(measured(asked.rows[0], asked.steps)))
        return
    for count in asked.rows:
        command = [sys.executable, "-m", "tests.perf.train_memory", "--rows", str(count)]
        command += ["--steps", str(asked.steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout.splitlines()[-1], flush=True)


def measured(count: int, steps: int) -> dict[str, Any]:
    """One run of training on `count` rows: the most that each kind of process held, in MiB."""
    import ray

    from haloforge.data.sft import read_sft
    from haloforge.train.settings import TrainSettings
    from haloforge.train.trainer import train
    from tests.tiny import make_tiny_model

    most: dict[str, float] = {}
    over = threading.Event()
    with tempfile.TemporaryDirectory() as folder:
        data = write_rows(Path(folder) / "rows.jsonl", count)
        base = make_tiny_model(Path(folder) / "tiny")
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        watch = threading.Thread(target=watched, args=(over, most))
        watch.start()
        began = time.monotonic()
        epochs = steps * BATCH_ROWS / count
        settings = TrainSettings(epochs=epochs, batch_size=BATCH_ROWS, workers=1)
        rows = ({"messages": row} for row in read_sft(str(data)))
        result = train(rows, base, None, Path(folder) / "out", settings, 1, 2)
        seconds = time.monotonic() - began
        over.set()
        watch.join()
        ray.shutdown()
    mib = {kind: round(size) for kind, size in sorted(most.items())}
    return {"rows": count, "steps": result.steps, "seconds": round(seconds), "MiB": mib}


def write_rows(path: Path, count: int) -> Path:
    """So many short conversations, all different."""
    with path.open("w") as file:
        for number in range(count):
            asked = {"role": "user", "content": f"double {number}"}
            answer = {"role": "assistant", "content": f"{2 * number}"}
            file.write(json.dumps({"messages": [asked, answer]}) + "\n")
    return path


def watched(over: threading.Event, most: dict[str, float]) -> None:
    """Note in `most` the most that each kind of process holds until it is `over`."""
    import ray

    own = psutil.Process()
    while not over.wait(EVERY_S):
        sizes = {"driver": held(own), "object store": stored(ray.cluster_resources())}
        for child in own.children(recursive=True):
            if (name := title(child)).startswith("ray::"):
                kind = "trainer" if "RayTrainWorker" in name else "encoders and other actors"
                sizes[kind] = max(sizes.get(kind, 0), held(child))
        for kind, size in sizes.items():
            most[kind] = max(most.get(kind, 0), size)


def title(process: psutil.Process) -> str:
    """What a process calls itself; a Ray worker by what it runs."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def held(process: psutil.Process) -> float:
    """MiB that a process shares with no other; 0 for one that is gone."""
    try:
        return float(process.memory_full_info().uss) / MIB
    except psutil.Error:
        return 0.0


def stored(total: dict[str, float]) -> float:
    """MiB in use of the object store."""
    import ray

    free = ray.available_resources().get("object_store_memory", 0.0)
    return (total.get("object_store_memory", 0.0) - free) / MIB


if __name__ == "__main__":
    main()
