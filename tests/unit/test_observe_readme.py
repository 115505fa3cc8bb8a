"""What the README says of metrics is so."""

from pathlib import Path

from haloforge.observe import metrics as module
from haloforge.observe.metrics import METRICS


def test_the_readme_has_each_metric_and_no_other() -> None:
    text = (Path(module.__file__).parent / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `haloforge_")]
    expected = [
        f"| `{name}`{'*' if kind.now else ''} | {kind.kind} | "
        f"{', '.join(f'`{tag}`' for tag in kind.tags)} | {kind.says} |"
        for name, kind in METRICS.items()
    ]
    assert rows == expected
