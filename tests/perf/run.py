"""`make perf`: measures each speed claim as a ratio in one run, and writes perf.json."""

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

MEASURES = ("generation_vs_vllm",)


def main() -> None:
    """Runs each measure in a process of its own, one after the other."""
    entries = []
    for name in MEASURES:
        command = [sys.executable, "-m", f"tests.perf.{name}"]
        print(f"{name} ...", file=sys.stderr, flush=True)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        entry = json.loads(done.stdout.splitlines()[-1])
        entries.append({"name": name, **entry, "command": f"python -m tests.perf.{name}"})
    Path("perf.json").write_text(json.dumps(entries, indent=2) + "\n")
    table = Table("name", "ours", "reference", "ratio", "unit", "note")
    for entry in entries:
        numbers = (f"{entry[key]:.3g}" for key in ("ours", "reference", "ratio"))
        table.add_row(entry["name"], *numbers, entry["unit"], entry["note"])
    Console().print(table)


if __name__ == "__main__":
    main()
