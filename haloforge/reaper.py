"""Ends what a private Ray leaves behind when its driver is killed.

Ray's own agents live on for minutes after a SIGKILL of the driver: they try to report the loss to a
head that is gone. This process, small and apart, notes every second Ray's processes and all that
descends from them; when the driver ends, in whatever way, it gives them a moment and kills those
that are still there.

Run as a script, with only the standard library: `python -S -E reaper.py PID ...` with the processes
that Ray started first, its standard input a pipe that the driver holds open for as long as it
lives. Linux only (/proc).
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_NOTE_EVERY_S = 1.0
_GRACE_S = 3.0

# A process and the clock tick it started at: a pid that is used again is another process.
Processes = dict[int, int]


def start_reaper(heads: Iterable[int]) -> "subprocess.Popen[bytes]":
    """Watches over the processes `heads` and their descendants; closing the result's `stdin`
    dismisses the watch once all of them have ended, or have been killed."""
    return subprocess.Popen(
        [sys.executable, "-S", "-E", __file__, *map(str, heads)],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C on the terminal is for the driver
    )


def watch(heads: list[int]) -> None:
    """Notes `heads` and their descendants until standard input ends, then ends them."""
    table = _process_table()
    noted = {pid: table[pid][1] for pid in heads if pid in table}
    while True:
        noted = _alive(noted, table) | _descendants(noted, table)
        if select.select([sys.stdin], [], [], _NOTE_EVERY_S)[0]:
            break
        table = _process_table()
    deadline = time.monotonic() + _GRACE_S
    while noted := _alive(noted, _process_table()):
        if time.monotonic() > deadline:
            table = _process_table()
            for pid in noted | _descendants(noted, table):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it has ended by itself
        time.sleep(0.1)


def _process_table() -> dict[int, tuple[int, int, str]]:
    """Parent, start tick and state of every process."""
    table = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            stat = (folder / "stat").read_text()
        except OSError:
            continue  # it ended while the folder was read
        fields = stat.rpartition(")")[2].split()  # the name before it may hold anything
        table[int(folder.name)] = (int(fields[1]), int(fields[19]), fields[0])
    return table


def _alive(noted: Processes, table: dict[int, tuple[int, int, str]]) -> Processes:
    return {
        pid: start
        for pid, start in noted.items()
        if pid in table and table[pid][1] == start and table[pid][2] != "Z"
    }


def _descendants(heads: Iterable[int], table: dict[int, tuple[int, int, str]]) -> Processes:
    found: Processes = {}
    layer = set(heads)
    while layer:
        layer = {pid for pid, row in table.items() if row[0] in layer and pid not in found}
        found |= {pid: table[pid][1] for pid in layer}
    return found


if __name__ == "__main__":
    watch([int(pid) for pid in sys.argv[1:]])
