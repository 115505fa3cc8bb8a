"""Ray's own autoscaler, which starts nodes on this machine: what a run asks for comes, and goes."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.services import get_node_ip_address

from haloforge.config import load_settings
from haloforge.errors import ResourceError
from haloforge.session import Session
from tests.processes import family, free_port, living, wait_until

# As `ray up` would write it; the provider starts nodes as processes of the head's machine.
SCALING: dict[str, Any] = {
    "cluster_name": "here",
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "max_workers": 1,
    "idle_timeout_minutes": 0.1,
    "upscaling_speed": 1.0,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "verifier": {
            "resources": {"CPU": 1, "verifier": 1},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 1,
        },
    },
    "auth": {"ssh_user": "nobody"},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "docker": {},
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}
VARIABLES = {
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    "RAY_FAKE_CLUSTER": "1",
    "RAY_AUTH_MODE": "disabled",
}
SCALES = "ray.scales_to=[{count: 1, resources: {CPU: 1, verifier: 1}}]"


@pytest.fixture
def address() -> Iterator[str]:
    """Of a head without CPUs, to which a verifiers' node can be added."""
    with tempfile.TemporaryDirectory(prefix="hf", dir="/tmp") as folder:
        config, log = Path(folder) / "scaling.json", Path(folder) / "log"
        port = free_port()
        provider = {**SCALING["provider"], "gcs_address": f"{get_node_ip_address()}:{port}"}
        config.write_text(json.dumps({**SCALING, "provider": provider}))
        options = {
            "autoscaling-config": config,
            "num-cpus": 0,
            "temp-dir": f"{folder}/ray",
            "port": port,
            "ray-client-server-port": free_port(),
            "dashboard-port": free_port(),
            "dashboard-agent-listen-port": 0,
            "object-store-memory": 100_000_000,
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        head = subprocess.Popen(
            [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *flags],
            env={**os.environ, **VARIABLES},
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            current = Path(folder) / "ray" / "ray_current_cluster"
            assert wait_until(current.exists, 120), log.read_text()
            yield current.read_text()
        finally:
            ray.shutdown()
            started = family(head.pid)
            for process in started:
                process.kill()
            head.wait()
            assert wait_until(lambda: not living(started), 30)


def nodes() -> int:
    return sum(node["Alive"] for node in ray.nodes())


def test_a_node_is_asked_for_and_goes_when_it_is_idle(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ("verify.resource=verifier", f"ray.address={address}", "ray.same_versions=false")
    with Session(load_settings(None, {}, given)) as alone, pytest.raises(ResourceError):
        _ = alone.fleet  # nothing says that nodes may come
    with Session(load_settings(None, {}, (*given, SCALES))) as session:
        assert nodes() == 1
        assert session.fleet.max_actors == 1
        assert nodes() == 2
    assert "waiting for nodes for verifiers: no node with a CPU has" in capsys.readouterr().err
    ray.init(address=address, log_to_driver=False)
    assert wait_until(lambda: nodes() == 1, 120), "what was asked for is taken back at the end"
