"""RAFT on a real cluster of two nodes, killed at work, with a log of its commits kept from outside.

`Chaos` runs `halo-forge raft train` on a tiny model, kills a part of it and, where the command
ended, runs the same command again. `Ledger` looks at the run folder from outside all the while and
notes each sample that is committed, so that what is committed twice, changed or lost shows.

`python -m tests.chaos [RUNS]` (`make chaos`) does so RUNS times (20), each killed once: a random
part, at a random moment. It exits with 1 where a run does not end with the right set, which
`tests/right_set.py` works out.
"""

import hashlib
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from ray.cluster_utils import Cluster

from haloforge.schema import digest, sample_id
from tests import right_set
from tests.processes import family, living, wait_until
from tests.tiny import make_tiny_model

PROBLEMS, SAMPLES, CYCLES = 40, 10, 2
TIMEOUT_S = 900
LATEST, LATEST_PROXY = 0.6, 0.2
"""The share of a stage's work after which nothing is killed any more: it would be over by then. A
proxy's ends when all is drawn, long before all is judged here."""

PROCESSES = {
    "engine": "ray::EngineActor",
    "verifier": "VerifierActor",
    "proxy": "MapBatches(rollout)",
    "trainer": "RayTrainWorker",
    "progress": "ray::Progress",
}
"""What the command line of a part's process has in it, of those that are found by it."""
PARTS = ("driver", "node", *PROCESSES)
FAILURES = (
    *(AssertionError, OSError, subprocess.TimeoutExpired),
    *(psutil.Error, pa.ArrowException),
)
"""What ends one run and not those that follow."""


class Kill(NamedTuple):
    """What was killed in which cycle, and what was under way: `done` of `total` samples committed,
    or of steps where it was training. A node `held` those of PROCESSES when it was removed."""

    part: str
    cycle: int
    stage: str
    done: int
    total: int
    held: tuple[str, ...] = ()


class Ledger:
    """Watches the run folder `run` and appends a line to the file `path`, which is elsewhere, for
    each sample at the first sight of its commit: cycle, id, and a digest of the row and its
    verdict. `faults` are what must not be."""

    def __init__(self, run: Path, path: Path) -> None:
        self._run, self._path = run, path
        self.seen: dict[str, str] = {}
        self.faults: list[str] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Ledger":
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if not self._thread.is_alive():
            self.faults.append("the ledger was not kept to the end")
        self._stopped.set()
        self._thread.join()
        if kind is None:  # or the run is still at work
            self.look()

    def _watch(self) -> None:
        while not self._stopped.wait(0.3):
            # A commit may be put together with others while it is read: the next look sees it.
            with suppress(FileNotFoundError):
                self.look()

    def look(self) -> None:
        """Compares what is committed now with what was seen before."""
        now = {name: [_digest(row) for row in rows] for name, rows in committed(self._run)}
        with self._path.open("a") as log:
            for name, rows in now.items():
                if len(rows) > 1:
                    self.faults.append(f"{name} is committed {len(rows)} times")
                if name not in self.seen:
                    self.seen[name] = rows[0]
                    log.write(json.dumps({"sample": name, "digest": rows[0]}) + "\n")
                elif self.seen[name] != rows[0]:
                    self.faults.append(f"{name} was changed")
        self.faults += [f"{name} is gone" for name in self.seen.keys() - now.keys()]

    def lines(self) -> Counter[str]:
        """How often each sample stands in the log."""
        return Counter(json.loads(line)["sample"] for line in self._path.read_text().splitlines())


def committed(run: Path, cycle: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """Each committed sample's id (of one cycle, or of all), with each row that there is of it, its
    verdict beside it, as JSON."""
    rows: dict[str, list[str]] = {}
    for commits in run.glob(f"cycle_{cycle or '*'}/commits"):
        for told in manifests(commits.parent):
            tables = [
                pq.read_table(commits.parent / kind / told["shard"])
                for kind in ("samples", "verdicts")
            ]
            for sample, verdict in zip(*(table.to_pylist() for table in tables), strict=True):
                text = json.dumps([sample, verdict], sort_keys=True)
                rows.setdefault(sample["sample_id"], []).append(text)
    yield from rows.items()


def manifests(folder: Path) -> list[dict[str, Any]]:
    """The commits of a cycle's folder that count."""
    while True:
        with suppress(FileNotFoundError):  # they are put together meanwhile
            paths = sorted((folder / "commits").glob("*.json"))
            told = {path.stem: json.loads(path.read_text()) for path in paths}
            replaced = {name for each in told.values() for name in each.get("replaces", [])}
            return [told[name] for name in told.keys() - replaced]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Chaos:
    """One run in the folder `folder`, on the tiny model `model`, by the engine of this name."""

    def __init__(self, folder: Path, model: Path, engine: str) -> None:
        folder.mkdir(parents=True)
        self.run = folder / "run"
        (folder / "by_text.py").write_text(right_set.VERIFIER)
        problems = [
            {"problem_id": f"p{n}", "prompt": f"Say {n}.", "language": right_set.LANGUAGE}
            | {"answer_start": "```python\n", "stop": ["e"]}
            for n in range(PROBLEMS)
        ]
        source = folder / "problems.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in problems))
        settings = {
            "model": str(model),
            "seed": right_set.SEED,
            "rollout": {"engine": engine, "max_tokens": 48, "max_model_len": 256}
            | {"kv_cache_gb": 0.1, "max_num_seqs": 8},
            "verify": {"verifier": f"{folder / 'by_text.py'}:ByText", "actors": 2},
            "train": {"epochs": 3, "batch_size": 4, "max_length": 256, "save_steps": 5},
            "raft": {"prompts": str(source), "cycles": CYCLES, "samples_per_prompt": SAMPLES}
            | {**right_set.RULES, "output": str(self.run)},
        }
        self.config = folder / "raft.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.log_file = folder / "driver.log"
        self.drivers: list[subprocess.Popen[bytes]] = []

    def start(self, address: str) -> "subprocess.Popen[bytes]":
        """The command, the same each time."""
        command = [sys.executable, "-m", "haloforge", "raft", "train", "--config", self.config]
        with self.log_file.open("ab") as log:
            driver = subprocess.Popen(
                [*map(str, command), "--address", address], stdout=log, stderr=log
            )
        self.drivers.append(driver)
        return driver

    def expected(self) -> set[str]:
        """The samples that there must be in the end, from the run's inputs alone."""
        run_id = digest((self.run / "run.json").read_text().rstrip("\n"))
        return {
            sample_id(run_id, cycle, f"p{number}", index)
            for cycle in range(1, CYCLES + 1)
            for number in range(PROBLEMS)
            for index in range(SAMPLES)
        }

    def done(self, cycle: int, stage: str) -> tuple[int, int]:
        """How many of a cycle's samples are committed, or of its steps are made, and of how many;
        (0, 0) before that has begun, and as many as there are when it has ended."""
        if stage == "sampling":
            folder = self.run / f"cycle_{cycle}"
            if not (folder / "commits").is_dir():
                return 0, 0
            total = PROBLEMS * SAMPLES
            ended = (folder / "trained.parquet").exists()
            return total if ended else sum(told["rows"] for told in manifests(folder)), total
        if (self.run / f"cycle_{cycle}_final").is_dir():
            return 1, 1
        lines = self.run / f"cycle_{cycle}_final.training" / "metrics.jsonl"
        told = lines.read_text().splitlines() if lines.is_file() else []
        return len(told), json.loads(told[-1])["num_steps"] if told else 0

    def kill(
        self, part: str, cycle: int, draw: random.Random, cluster: Cluster, within_s: float = 8
    ) -> Kill:
        """Kills `part` at a random moment of this cycle, and says what was under way: when a random
        part of its samples, or of its steps, is there, and then within `within_s` seconds, or a
        fifth of that where it trains. Commits come every ten seconds. A node is removed only while
        it holds a process of the run. Where a proxy or a node has nothing to lose, nothing is
        killed, and all counts as done."""
        driver = self.drivers[-1]
        stages = {part: ["training"] for part in ("trainer", "progress")}
        stages["driver"] = ["sampling", "training"]
        stage = draw.choice(stages.get(part, ["sampling"]))
        share = draw.uniform(0, LATEST_PROXY if part == "proxy" else LATEST)

        def has_come() -> bool:
            done, total = self.done(cycle, stage)
            return driver.poll() is not None or (total > 0 and done >= share * total)

        come = wait_until(has_come, TIMEOUT_S)
        assert come and driver.poll() is None, f"it did not come to {stage}:\n{self.log()}"
        time.sleep(draw.uniform(0, within_s if stage == "sampling" else within_s / 5))
        held: tuple[str, ...] = ()
        if part == "node":
            (node,) = cluster.worker_nodes
            wait_until(lambda: parts_on(node), 60)
            held = parts_on(node)
            if not held:
                return Kill(part, cycle, stage, 1, 1)
            cluster.remove_node(node, allow_graceful=False)
        else:
            wait_until(lambda: self._pids(part), 60)
            found = self._pids(part)
            if part == "proxy" and not found:  # all is drawn, and only judged any more
                return Kill(part, cycle, stage, 1, 1)
            assert found, f"no {part} to kill"
            psutil.Process(draw.choice(found)).kill()
        done, total = self.done(cycle, stage)
        if part == "node":
            cluster.add_node(num_cpus=2)
        return Kill(part, cycle, stage, done, total, held)

    def _pids(self, part: str) -> list[int]:
        return [self.drivers[-1].pid] if part == "driver" else processes(PROCESSES[part])

    def finish(self, address: str) -> int:
        """Waits for the command and runs it again until it succeeds; how often it was run again."""
        again = 0
        while self.drivers[-1].wait(TIMEOUT_S) != 0:
            again += 1
            assert again <= 3, f"it does not come to an end:\n{self.log()}"
            self.start(address)
        return again

    def check(self, ledger: Ledger) -> None:
        """The run has the right set: each sample once and as it was first seen, each cycle trained
        on exactly those that it must and as they are committed, and each cycle's adapter and
        steps."""
        assert ledger.faults == [], f"commits: {ledger.faults}"
        other = ledger.seen.keys() ^ self.expected()
        assert not other, f"there and should not be, or the other way round: {sorted(other)}"
        assert set(ledger.lines().values()) == {1}, "a sample was committed again"
        for cycle in range(1, CYCLES + 1):
            stored = [json.loads(text) for _, rows in committed(self.run, cycle) for text in rows]
            trained = pq.read_table(self.run / f"cycle_{cycle}" / "trained.parquet").to_pylist()
            faults = right_set.faults(stored, trained)
            assert faults == [], f"cycle {cycle}: {faults}"
            assert len(trained) > 20, f"cycle {cycle}: only {len(trained)} are good enough"
            adapter = self.run / f"cycle_{cycle}_final"
            assert (adapter / "adapter_model.safetensors").is_file(), f"no {adapter}"
            steps = [json.loads(line)["step"] for line in (adapter / "metrics.jsonl").open()]
            assert steps == list(range(1, len(steps) + 1)), f"cycle {cycle}: steps {steps}"
        statistics = json.loads((self.run / "raft_statistics.json").read_text())
        cycles = [entry["cycle"] for entry in statistics]
        assert cycles == list(range(1, CYCLES + 1)), f"statistics of cycles {cycles}"

    def stop(self) -> None:
        """Ends the command, where a check has failed."""
        for driver in self.drivers:
            driver.kill()
            driver.wait()

    def log(self) -> str:
        """What the user would have seen."""
        return self.log_file.read_text()


def processes(title: str) -> list[int]:
    """The living processes of this one's family with `title` in their command line."""
    return [pid for pid, line in _command_lines(psutil.Process().pid) if title in line]


def parts_on(node: Any) -> tuple[str, ...]:
    """Which of PROCESSES are at work on this node of a Cluster: its raylet starts them, so that
    they are of its family. What Ray keeps there for itself, and idle workers, are none of them."""
    (raylet,) = node.all_processes["raylet"]
    lines = [line for _, line in _command_lines(raylet.process.pid)]
    return tuple(part for part, title in PROCESSES.items() if any(title in line for line in lines))


def _command_lines(pid: int) -> Iterator[tuple[int, str]]:
    """Of each living process of this one's family."""
    for process in living(family(pid)):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            yield process.pid, " ".join(process.cmdline())


@contextmanager
def two_nodes() -> Iterator[Cluster]:
    """A head and another node, of two CPUs each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        made.add_node(num_cpus=2)
        yield made
    finally:
        made.shutdown()


def main(runs: int = 20, seed: int = 0) -> None:
    """The runs, one after the other, half of them on vLLM; a line for each. One in which the moment
    came when the work was over, or when there was nothing to kill, is drawn again, and not
    counted."""
    draw = random.Random(seed)
    number = failed = 0
    with tempfile.TemporaryDirectory() as folder, two_nodes() as cluster:
        model = make_tiny_model(Path(folder) / "tiny")
        while number < runs:
            engine = ("vllm", "transformers")[number % 2]
            part, cycle = draw.choice(PARTS), draw.randint(1, CYCLES)
            began = time.monotonic()
            place = Path(tempfile.mkdtemp(dir=folder))
            chaos = Chaos(place / "killed", model, engine)
            told = f"run {number + 1}: {engine}, {part} in cycle {cycle}"
            try:
                with Ledger(chaos.run, place / "ledger.jsonl") as ledger:
                    chaos.start(cluster.address)
                    found = chaos.kill(part, cycle, draw, cluster)
                    again = chaos.finish(cluster.address)
                chaos.check(ledger)
            except FAILURES as error:
                failed += 1
                chaos.stop()
                reason = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
                print(f"{told}: FAILED: {reason}{chaos.log()}", flush=True)
                if not cluster.worker_nodes:
                    cluster.add_node(num_cpus=2)
            else:
                seconds = time.monotonic() - began
                at = f"at {found.done} of {found.total} {found.stage}"
                at += f" with {' and '.join(found.held)} on it" if found.held else ""
                how = f"run again {again} times" if again else "went on by itself"
                late = "" if found.done < found.total else "; nothing was at work, another is drawn"
                print(f"{told}, {at}: {how}, right set, {seconds:.0f} s{late}", flush=True)
                if late:
                    continue
            number += 1
    print(f"{runs - failed} of {runs} ended with the right set")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
