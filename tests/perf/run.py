"""`make perf`: measures each speed claim as a ratio in one run, and writes perf.json.

Exits with 1 where a ratio is below its bar.
"""

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

BARS = {
    "generation_vs_vllm": 0.9,
    "benchmark_vs_plain": 0.95,
    "verify_cpp_vs_naive": 1.8,
    "verify_python_vs_cold": 2.0,
    "verify_two_actors": 1.8,
    "train_vs_trl_packed": 1.0,
    "train_vs_trl_default": 1.5,
    "train_vs_bare": 0.85,
    "train_two_workers": 1.6,
    "raft_overlap": 0.87,
    "raft_vs_plain": 2.0,
    "data_validate_scaling": 0.8,
    "generate_in_flight": 0.8,
    "report_time": 1.0,
    "view_million": 1.0,
    "observe_overhead": 0.97,
}
"""The measures, and the least ratio that each must reach."""


def main() -> None:
    """Runs each measure in a process of its own, one after the other."""
    entries = []
    for name, bar in BARS.items():
        command = [sys.executable, "-m", f"tests.perf.{name}"]
        print(f"{name} ...", file=sys.stderr, flush=True)
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        entry = json.loads(done.stdout.splitlines()[-1])
        again = {"bar": bar, "command": f"python -m tests.perf.{name}"}
        entries.append({"name": name, **entry, **again})
    Path("perf.json").write_text(json.dumps(entries, indent=2) + "\n")
    table = Table("name", "ours", "reference", "ratio", "bar", "", "unit", "note")
    for entry in entries:
        numbers = (f"{entry[key]:.3g}" for key in ("ours", "reference", "ratio", "bar"))
        met = "met" if entry["ratio"] >= entry["bar"] else "missed"
        table.add_row(entry["name"], *numbers, met, entry["unit"], entry["note"])
    Console().print(table)
    sys.exit(any(entry["ratio"] < entry["bar"] for entry in entries))


if __name__ == "__main__":
    main()
