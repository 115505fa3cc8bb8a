"""MultiPL-E (Cassano et al. 2023): HumanEval in other languages, as code to be completed."""

from collections.abc import Iterable, Iterator

from haloforge.data.rows import Row
from haloforge.data.suites.style import Style
from haloforge.errors import InputError
from haloforge.schema import Problem

LANGUAGES = {
    "cpp": "cpp",
    "rs": "rust",
    "go": "go",
    "go_test.go": "go",
    "js": "javascript",
    "java": "java",
}
"""By its name in the data."""
LIMITS = {"wall_s": 15}


def multipl_e(rows: Iterable[Row], style: Style) -> Iterator[Problem]:
    """The problems, whose tests are appended to the completion; it ends at the row's own stops."""
    for row in rows:
        language = LANGUAGES.get(row["language"])
        if language is None:
            known = ", ".join(LANGUAGES)
            raise InputError(f"{row.place}: language '{row['language']}'; known: {known}")
        yield Problem.model_validate(
            {
                "problem_id": f"multipl-e/{language}/{row['name']}",
                "prefix": row["prompt"],
                "stop": list(row["stop_tokens"]),
                "language": language,
                "judge": "program",
                "test_code": row["tests"],
                "limits": LIMITS,
            }
        )
