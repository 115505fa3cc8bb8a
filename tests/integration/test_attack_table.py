"""The table of attacks in the verifier's README is that of the suites."""

from pathlib import Path

from haloforge.verify import sandbox
from tests.attacking import Row
from tests.integration import (
    test_attacks,
    test_compile_attacks,
    test_function_attacks,
    test_grading_attacks,
    test_resource_attacks,
    test_warning_attacks,
)

SUITES = (
    test_attacks,
    test_resource_attacks,
    test_compile_attacks,
    test_warning_attacks,
    test_grading_attacks,
    test_function_attacks,
)
"""Each has its rows as `TABLE`."""
HEADER = Row("Kind", "Attack", "First line", "Second line")


def rows(text: str) -> list[Row]:
    """The rows of the table that begins with HEADER."""
    lines = [
        Row(*(cell.strip() for cell in line.strip("|").split("|")))
        for line in text.splitlines()
        if line.count("|") == len(HEADER) + 1
    ]
    return lines[lines.index(HEADER) + 2 :]


def test_the_table_names_every_attack() -> None:
    attacks = [row for suite in SUITES for row in suite.TABLE]
    readme = Path(sandbox.__file__).with_name("README.md").read_text()
    assert rows(readme) == attacks
    assert len({row.name for row in attacks}) == len(attacks)
    assert all(row.first and row.second for row in attacks)
