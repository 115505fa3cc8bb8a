"""Where a benchmark ran: versions and hardware."""

import os
import platform

import ray

from haloforge.benchmark.results import Environment, Hardware
from haloforge.model.adapter import installed_versions
from haloforge.store.machine import cpu_name

_ACCELERATOR = "accelerator_type:"  # how Ray names the resource of a kind of GPU


def environment() -> Environment:
    """Of this process's machine and of the Ray that it is connected to."""
    total = ray.cluster_resources()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Environment(
        versions={"python": platform.python_version(), **installed_versions()},
        hardware=Hardware(
            cpu=cpu_name(),
            cores=os.cpu_count() or 1,
            memory_gb=round(memory / 2**30, 1),
            ray_nodes=sum(node["Alive"] for node in ray.nodes()),
            ray_cpus=total.get("CPU", 0.0),
            ray_gpus=total.get("GPU", 0.0),
            accelerators=sorted(
                name.removeprefix(_ACCELERATOR) for name in total if name.startswith(_ACCELERATOR)
            ),
        ),
    )
