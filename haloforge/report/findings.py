"""What `halo-forge doctor` found, for a reader."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from haloforge.doctor.finding import Finding, Status
from haloforge.report.rows import one_line

_WORDS = {Status.OK: "ok", Status.WARNING: "warning", Status.FAULT: "FAULT"}
_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.FAULT: "bold red"}
_LEAST_WIDTH = 40


def print_findings(console: Console, findings: Sequence[Finding]) -> None:
    """A line a finding, what to do below it; words say what colours do. Commands are not broken, so
    that they can be copied."""
    status_width = max(map(len, _WORDS.values()))
    name_width = max(len(each.name) for each in findings)
    indent = " " * (status_width + name_width + 4)
    for each in findings:
        width = max(_LEAST_WIDTH, console.width - len(indent))
        first, *rest = textwrap.wrap(
            one_line(each.found), width, break_long_words=False, break_on_hyphens=False
        ) or [""]
        line = Text(_WORDS[each.status].ljust(status_width), style=_STYLES[each.status])
        line.append(f"  {each.name.ljust(name_width)}  ", style="default not bold")
        line.append(first, style="default not bold")
        _print(console, line)
        for more in rest:
            _print(console, Text(f"{indent}{more}"))
        for advice in (each.advice or "").splitlines():
            _print(console, Text(f"{indent}-> {one_line(advice)}", style="cyan"))
    counts = Counter(each.status for each in findings)
    parts = [f"{counts[status]} {word}" for status, word in _WORDS.items() if counts[status]]
    _print(console, Text(f"\n{len(findings)} checks: {', '.join(parts)}"))


def _print(console: Console, line: Text) -> None:
    console.print(line, soft_wrap=True)
