"""Ties a process to the life of its parent, so that no engine outlives the run that owns it.

vLLM starts an engine core and workers as processes of their own, which survive a SIGKILL of their
owner with gigabytes of memory. vLLM loads `bind_to_parent` in each of them as a plugin (the
`vllm.general_plugins` entry point in pyproject.toml).
"""

import ctypes
import multiprocessing
import os
import signal

# Set by the engine actor, so that the plugin leaves other users of vLLM alone.
BIND_VARIABLE = "HALOFORGE_BIND_ENGINE"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def bind_to_parent() -> None:
    """Asks the kernel to kill this process when its parent ends; does nothing outside our engines.

    In the process that owns the engine it does nothing either: that one ends with its Ray worker.
    """
    parent = multiprocessing.parent_process()
    if os.environ.get(BIND_VARIABLE) is None or parent is None:
        return
    die_with_parent(parent.pid)


def die_with_parent(parent_pid: int | None) -> None:
    """This process is killed when process `parent_pid`, its parent, ends. Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:  # it ended before the request was in place
        os.kill(os.getpid(), signal.SIGKILL)
