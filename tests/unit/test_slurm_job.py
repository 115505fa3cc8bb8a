"""The Slurm job with stand-ins for Slurm and Ray: what it starts, what it says, how it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.scripts.scripts import start as ray_start

from tests.processes import family, living, wait_until

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm" / "pipeline.sbatch"
STAND_INS = {
    ".venv/bin/activate": 'PATH="$PWD/.venv/bin:$PATH"\n',
    ".venv/bin/ray": """#!/bin/bash
echo "ray $RAY_AUTH_MODE $RAY_AUTH_TOKEN_PATH $*" >>"$NOTES"
mkdir -p "$HALOFORGE_TEMP"
trap 'kill $!; exit 1' TERM
sleep 60 >/dev/null 2>&1 & wait
""",
    ".venv/bin/python": f"""#!/bin/bash
trap 'kill $!; exit 130' TERM
echo "python $RAY_ADDRESS $*" >>"$NOTES"
case "$*" in
-c*) exec {sys.executable} "$@" ;;
cluster/nodes.py*)
    [ "$3" != "$NEVER" ] || exit 3
    until [ "$(grep -c '^ray ' "$NOTES")" = $(($3 > 1 ? 3 : 1)) ]; do sleep 0.1; done
    ;;
jobs/pipeline.py*)
    [ -z "$LONG" ] || {{ sleep 60 >/dev/null 2>&1 & wait; }}
    exit "$ENDS"
    ;;
esac
""",
    "bin/srun": """#!/bin/bash
echo "srun $1" >>"$NOTES"
while [[ $1 == --* ]]; do shift; done
exec "$@"
""",
}


class Job:
    """One run of the script in a folder of its own."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder, self.name = folder, f"test-{os.getpid()}"
        for name, text in STAND_INS.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        (folder / "home").mkdir()
        environment = {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "NOTES": str(folder / "notes"),
            "ENDS": "0",
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_JOB_ID": self.name,
            "SLURM_JOB_NUM_NODES_HET_GROUP_1": "2",
            "SLURM_JOB_NUM_NODES_HET_GROUP_2": "1",
            "SLURM_CPUS_ON_NODE": "8",
            **variables,
        }
        words = ["bash", str(SCRIPT), "--config", "my config.yaml"]
        self.process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

    def notes(self, word: str) -> list[str]:
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(word)]

    def left(self) -> list[Path]:
        return [*(self.folder / "home").iterdir(), *Path("/tmp").glob(f"haloforge-{self.name}*")]


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    made = list[Job]()
    yield made
    for job in made:
        if job.process.poll() is None:
            for process in family(job.process.pid):
                process.kill()


def test_head_gpu_and_verifier_nodes_then_the_pipeline(tmp_path: Path, jobs: list[Job]) -> None:
    jobs.append(job := Job(tmp_path))
    _, said = job.process.communicate(timeout=30)
    assert job.process.returncode == 0, said
    rays = job.notes("ray ")
    head, gpu, verifier = sorted(
        rays, key=lambda line: ("--head" not in line, '"verifier"' in line)
    )
    token = f"token {tmp_path}/home/.haloforge-slurm-{job.name}/token"
    assert all(line.startswith(f"ray {token} start --block") for line in (gpu, verifier))
    assert "--head --block --num-cpus=0 --num-gpus=0" in head
    assert "--num-cpus=8" in gpu
    assert "--num-gpus" not in gpu
    assert '--num-gpus=0 --resources={"verifier": 1}' in verifier
    for line in rays:  # the pinned Ray knows these options
        words = line.replace('{"verifier": 1}', '{"verifier":1}').split()[4:]
        ray_start.make_context("start", words)
    groups = [line.split()[1] for line in sorted(job.notes("srun"))]
    assert groups == ["--het-group=1", "--het-group=2"]
    waits = [line.split()[3:5] for line in job.notes("python") if "nodes.py" in line]
    assert waits == [["--wait", "1"], ["--wait", "4"]]
    [pipeline] = [line for line in job.notes("python") if "pipeline.py" in line]
    assert pipeline.endswith("--config my config.yaml --set verify.resource=verifier")
    assert not job.left()


@pytest.mark.parametrize("code", [1, 3])
def test_the_job_ends_as_its_pipeline_does(tmp_path: Path, jobs: list[Job], code: int) -> None:
    jobs.append(job := Job(tmp_path, ENDS=str(code)))
    job.process.communicate(timeout=30)
    assert job.process.returncode == code
    assert not job.left()


@pytest.mark.parametrize("count", ["1", "4"])
def test_nodes_that_do_not_come_end_it(tmp_path: Path, jobs: list[Job], count: str) -> None:
    jobs.append(job := Job(tmp_path, NEVER=count))
    job.process.communicate(timeout=30)
    assert job.process.returncode == 3
    assert not [line for line in job.notes("python") if "pipeline.py" in line]
    assert not job.left()


def test_before_its_time_limit_the_pipeline_is_asked_to_stop(
    tmp_path: Path, jobs: list[Job]
) -> None:
    jobs.append(job := Job(tmp_path, LONG="1"))
    assert wait_until(lambda: any("pipeline.py" in each for each in job.notes("python")), 30)
    assert wait_until(lambda: len(job.notes("ray ")) == 3, 30)
    token = tmp_path / "home" / f".haloforge-slurm-{job.name}" / "token"
    assert token.stat().st_mode & 0o777 == 0o600
    processes = family(job.process.pid)
    job.process.send_signal(signal.SIGTERM)
    _, said = job.process.communicate(timeout=30)
    assert job.process.returncode == 130
    assert token.name not in said
    assert not job.left()
    assert wait_until(lambda: not living(processes), 10)


def test_without_the_environment_it_says_what_to_do(tmp_path: Path, jobs: list[Job]) -> None:
    jobs.append(job := Job(tmp_path, HALOFORGE_ROOT=str(tmp_path / "home")))
    _, said = job.process.communicate(timeout=30)
    assert job.process.returncode == 3
    assert said.splitlines() == [f"no Ray in {tmp_path}/home/.venv: run make venv STACK=gpu there"]
