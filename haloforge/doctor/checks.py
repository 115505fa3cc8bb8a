"""All checks, in the order in which they are told."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from haloforge.config import Settings
from haloforge.doctor import cluster, gpu, judging, machine, models, software
from haloforge.doctor.finding import Check, Finding, Status, looked
from haloforge.store.cache import cache_folder
from haloforge.verify.toolchains import toolchain_names


def examine(settings: Settings, environment: Mapping[str, str] = os.environ) -> list[Finding]:
    """What every check finds for runs with these `settings`; a few seconds, at once."""
    checks = checks_of(settings, environment)
    order = list(checks)
    # It has the warnings module for itself, and ends its children with the thread that began them.
    own = checks.pop("sandbox")
    with ThreadPoolExecutor(len(checks)) as pool:
        asked = {name: pool.submit(looked, name, check) for name, check in checks.items()}
        held = looked("sandbox", own)
        found = {name: future.result() for name, future in asked.items()}
    return [found.get(name, held) for name in order]


def checks_of(settings: Settings, environment: Mapping[str, str]) -> dict[str, Check]:
    """The checks by name."""
    needed = {row.name for row in judging.needed_toolchains(settings.verify)}
    address = settings.ray.address or environment.get("RAY_ADDRESS")
    address = None if address == "local" else address
    scratch = Path(environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp")
    checks: dict[str, Check] = {
        "system": machine.check_system,
        "python": software.check_python,
        "haloforge": software.check_haloforge,
        "packages": software.check_packages,
        "trackers": software.check_trackers,
        "cpu": machine.check_cpu,
        "gpu": gpu.check_gpu,
        "memory": machine.check_memory,
        "shared memory": partial(machine.check_shared_memory, settings.ray.object_store_mb),
        "disk here": lambda: machine.check_disk("disk here", Path.cwd()),
        "disk cache": lambda: machine.check_disk("disk cache", cache_folder()),
        "disk ray": partial(machine.check_disk, "disk ray", scratch, for_ray=True),
        "sandbox": partial(judging.check_sandbox, settings.verify),
    }
    for name in toolchain_names():
        check = partial(judging.check_toolchain, name, needed=name in needed)
        checks[f"toolchain {name}"] = check
    checks |= _of_ray(settings, address, environment)
    checks |= {
        "cache": models.check_cache,
        "bundled model": models.check_bundled,
        "hugging face": models.check_hub,
    }
    if settings.model is not None:
        checks["model"] = partial(models.check_model, settings.model)
    return checks


def _of_ray(
    settings: Settings, address: str | None, environment: Mapping[str, str]
) -> dict[str, Check]:
    """A named job server and a named cluster are asked; else a private Ray has to be able to start.
    A job server may be named beside the cluster."""
    server = environment.get("RAY_API_SERVER_ADDRESS") or None
    if address is not None and address.startswith(("http://", "https://")):
        address, server = None, address
    checks: dict[str, Check] = {
        "ray token": partial(cluster.check_authentication, bool(address or server))
    }
    if address is not None:
        ray = settings.ray
        joins = partial(cluster.check_cluster, address, ray.compute_resource, ray.same_versions)
        checks["ray cluster"] = joins
    if server is not None:
        checks["ray job server"] = partial(cluster.check_job_server, server)
    if address is None and server is None:
        checks["ray"] = cluster.check_private
    return checks


def findings_json(findings: list[Finding]) -> dict[str, Any]:
    """`ok` says that there is no fault; `advice` is null where there is nothing to do."""
    return {
        "ok": all(each.status is not Status.FAULT for each in findings),
        "checks": [
            {"name": f.name, "status": str(f.status), "found": f.found, "advice": f.advice}
            for f in findings
        ],
    }
