"""`cluster/local.sh` with a stand-in for Ray: it ends all that it started, and nothing else."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ray.scripts.scripts import start as ray_start

from tests.processes import living, wait_until

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "local.sh"

# Takes the place of the Python that has Ray. A node is a process with children as Ray's are: one in
# its session, one that overwrote its environment, and a job's driver with a session of its own.
STAND_IN = """#!{bash}
case "$*" in
-c*) exit ;;
-\\ *) exec {python} "$@" ;;
*nodes.py*) sleep "${{NODES_TAKE:-0}}"; echo "three nodes"; exit "${{NODES_EXIT:-0}}" ;;
esac
echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN_PATH $*"
for word in "$@"; do
    case $word in
    --temp-dir=*) temp=${{word#*=}} ;;
    --node-name=*) name=${{word#*=}} ;;
    esac
done
if [ "$name" = "$FAILS" ]; then echo "no room" >&2; exit 1; fi
if [ -n "$temp" ]; then
    mkdir -p "$temp"
    echo "192.0.2.1:6379" >"$temp/ray_current_cluster"
fi
sleep 1000 &
env -i sleep 1001 &
setsid sleep 1002 &
trap '[ "$name" = "$STUBBORN" ] || exit 1' TERM
while :; do wait; done
"""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hf", dir="/tmp") as made:
        yield Path(made) / "local"


@pytest.fixture
def local(folder: Path, tmp_path: Path) -> Iterator[Run]:
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.format(bash="/bin/bash", python=sys.executable))
    stand_in.chmod(0o755)
    environment = {
        **os.environ,
        "HALOFORGE_LOCAL": str(folder),
        "HALOFORGE_PYTHON": str(stand_in),
        "RAY_AUTH_TOKEN": "another",
    }

    def run(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [SCRIPT, *arguments],
            env={**environment, **variables},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
        )

    yield run
    run("stop")


def alive(folder: Path) -> set[psutil.Process]:
    """What the nodes of this folder are, and what they started."""
    found = set[psutil.Process]()
    for process in psutil.process_iter():
        try:
            mark = process.environ().get("HALOFORGE_NODE", "")
            if mark.startswith(f"{folder}/"):
                found |= {process, *process.children(recursive=True)}
        except psutil.Error:
            continue
    return set(living(list(found)))


def test_start_makes_three_nodes_and_stop_leaves_nothing(local: Run, folder: Path) -> None:
    bystander = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        started = local("start", "--gpu-cpus", "3")
        assert started.returncode == 0, started.stderr
        processes = alive(folder)
        assert len(processes) == 12
        assert local("status").stdout.splitlines()[0] == "head runs, 4 processes"
        logs = {path.stem: path.read_text() for path in (folder / "logs").iterdir()}
        assert set(logs) == {"head", "gpu", "verifier"}
        assert "--head --num-cpus=0 " in logs["head"]
        assert "--num-cpus=3" in logs["gpu"]
        assert '--resources={"gpu":1}' in logs["gpu"]
        assert "--address=192.0.2.1:6379 " in logs["verifier"]
        assert '--resources={"verifier":1}' in logs["verifier"]
        for log in logs.values():  # the pinned Ray knows these options
            ray_start.make_context("start", log.splitlines()[0].split(" start ")[1].split(" "))
        stopped = local("stop")
        assert stopped.returncode == 0, stopped.stderr
        assert not living(list(processes))
        assert not folder.exists()
        assert bystander.poll() is None
        assert local("stop").returncode == 0
        assert local("status").returncode == 3
    finally:
        bystander.kill()
        bystander.wait()


def test_the_token_is_in_a_file_of_ours_alone(local: Run, folder: Path) -> None:
    started = local("start")
    token = (folder / "token").read_text()
    assert len(token) == 64
    assert (folder / "token").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert f"export RAY_AUTH_TOKEN_PATH={folder}/token" in started.stdout
    assert "export RAY_ADDRESS=192.0.2.1:6379" in started.stdout
    assert local("env").stdout == started.stdout
    said = started.stdout + started.stderr
    said += "".join(path.read_text() for path in (folder / "logs").iterdir())
    assert token not in said
    assert f"token {folder}/token -m ray" in said


def test_a_killed_node_is_gone_at_once_and_comes_back(local: Run, folder: Path) -> None:
    local("start")
    before = alive(folder)
    assert local("kill-node", "verifier").returncode == 0
    left = alive(folder)
    assert len(left) == 8
    assert left < before
    status = local("status")
    assert status.returncode == 3
    assert "verifier does not run" in status.stdout
    assert local("kill-node", "verifier").returncode == 3
    assert local("start").returncode == 0
    again = alive(folder)
    assert len(again) == 12
    assert left < again


def test_starting_again_changes_nothing(local: Run, folder: Path) -> None:
    first = local("start")
    before = alive(folder)
    again = local("start")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert alive(folder) == before


@pytest.mark.parametrize("variables", [{"FAILS": "head"}, {"FAILS": "gpu"}, {"NODES_EXIT": "3"}])
def test_a_start_that_fails_half_way_leaves_nothing(
    local: Run, folder: Path, variables: dict[str, str]
) -> None:
    failed = local("start", NODES_TAKE="1", **variables)
    assert failed.returncode in (3, 4)
    assert failed.stdout == ""
    assert "what was begun is ended" in failed.stderr
    assert ("no room" in failed.stderr) == ("FAILS" in variables)
    assert not folder.exists()
    assert not alive(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_start_that_is_killed_leaves_nothing_after_stop(
    local: Run, folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    environment = {
        **os.environ,
        "HALOFORGE_LOCAL": str(folder),
        "HALOFORGE_PYTHON": str(tmp_path / "python"),
        "NODES_TAKE": "2",
    }
    starting = subprocess.Popen([SCRIPT, "start"], env=environment, stdout=subprocess.DEVNULL)
    assert wait_until(lambda: len(alive(folder)) >= 12, 20)
    starting.send_signal(number)
    starting.wait()
    assert local("stop").returncode == 0
    assert not alive(folder)
    assert not folder.exists()


def test_a_node_that_does_not_end_is_killed(local: Run, folder: Path) -> None:
    local("start", STUBBORN="gpu")
    processes = alive(folder)
    assert local("stop").returncode == 0
    assert not living(list(processes))


def test_a_number_that_another_process_has_by_now_is_left_alone(local: Run, folder: Path) -> None:
    local("start")
    bystander = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        local("kill-node", "gpu")
        (folder / "nodes" / "gpu").write_text(f"{bystander.pid} 1\n")
        assert "gpu does not run" in local("status").stdout
        local("stop")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_a_folder_that_is_not_ours_is_not_touched(local: Run, folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    refused = local("start")
    assert refused.returncode == 2
    assert "holds something else" in refused.stderr
    local("stop")
    assert (folder / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "usage"),
        (("begin",), "usage"),
        (("start", "--gpus", "2"), "no option --gpus"),
        (("start", "--gpu-cpus", "0"), "above 0"),
        (("start", "--gpu-cpus"), "above 0"),
        (("kill-node",), "name a node"),
        (("kill-node", "tail"), "name a node"),
    ],
)
def test_wrong_words_are_one_clear_line(
    local: Run, folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    refused = local(*arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not folder.exists()
