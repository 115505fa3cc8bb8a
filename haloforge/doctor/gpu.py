"""Which GPUs the driver knows, and whether the torch that is installed can use them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from haloforge.doctor.finding import Finding, ok, warning

_ASK = ("--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
_TORCH = (
    "import torch; print(torch.__version__, torch.cuda.is_available(), torch.cuda.device_count())"
)
_PATIENCE_S = 60.0
_NONE = "none, so engines and trainers run on the CPU"


def check_gpu(program: str = "nvidia-smi", driver: Path = Path("/proc/driver/nvidia")) -> Finding:
    """The GPUs by `program`; torch, which is slow to ask, is asked only where there are any."""
    if shutil.which(program) is None:
        if driver.exists():
            told = f"a driver is loaded, but there is no {program}: GPUs are not looked at"
            return warning("gpu", told, "sudo apt-get install -y nvidia-utils-VERSION")
        return ok("gpu", f"{_NONE} (no {program}; other makers' GPUs are not looked for)")
    listed, why = _run([program, *_ASK])
    if listed is None:
        return warning("gpu", f"{program} fails: {why}; {_NONE}", f"{program}")
    try:
        gpus = [_named(line) for line in listed.splitlines() if line.strip()]
    except ValueError:
        return warning("gpu", f"{program} says what is not understood: {listed.splitlines()[0]}")
    if not gpus:
        return ok("gpu", f"{_NONE} ({program} lists none)")
    found = "; ".join(f"{gpus.count(gpu)} x {gpu}" for gpu in dict.fromkeys(gpus))
    return _usable(found)


def _named(line: str) -> str:
    name, memory, driver = (part.strip() for part in line.split(","))
    return f"{name}, {float(memory) / 1024:.0f} GB, driver {driver}"


def _usable(found: str) -> Finding:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        told = f"{found}; hidden by CUDA_VISIBLE_DEVICES={hidden}"
        return warning("gpu", told, "unset CUDA_VISIBLE_DEVICES")
    said, why = _run([sys.executable, "-c", _TORCH])
    words = (said or "").split()
    if len(words) != 3:
        return warning("gpu", f"{found}; torch cannot be asked: {why}")
    version, available, count = words
    if available == "True":
        return ok("gpu", f"{found}; torch {version} uses {count}")
    advice = (
        "Install the GPU build, or a driver as new as it asks for:\npip install 'haloforge[gpu]'"
    )
    return warning("gpu", f"{found}; torch {version} uses none of them", advice)


def _run(command: Sequence[str]) -> tuple[str | None, str]:
    """What the command prints, or None and why there is nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S)
    except (OSError, subprocess.SubprocessError) as error:
        return None, str(error)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return None, lines[-1] if lines else f"exit code {done.returncode}"
    return done.stdout, ""
