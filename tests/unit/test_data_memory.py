"""The measure of `data` commands' memory, without them: when it fails."""

import json
from pathlib import Path

import pytest

from tests.perf import data_memory


@pytest.mark.parametrize(
    ("failing", "peak", "wrong", "said"),
    [
        (None, 6000.0, 1, None),
        ("prepare", 6000.0, 1, "prepare ended with exit code 2"),
        ("split", 6000.0, 1, "split ended with exit code 2"),
        (None, 6200.0, 1, "prepare took 6200 MiB, more than 6144; validate took"),
        (None, 6000.0, 2, "unexpected findings"),
        (None, 6000.0, 0, "unexpected findings"),
    ],
)
def test_a_measure_that_misses_its_bar_fails(
    monkeypatch: pytest.MonkeyPatch, failing: str | None, peak: float, wrong: int, said: str | None
) -> None:
    run: list[str] = []

    def watched(*command: str) -> tuple[float, float, int]:
        run.append(command[1])
        if command[1] == "validate":
            report = {"rows": 9, "wrong": wrong, "faults": {"duplicate": {"rows": wrong and 1}}}
            Path(command[-1]).parent.mkdir(exist_ok=True)
            Path(command[-1]).write_text(json.dumps(report))
        return 1.0, peak, 2 if command[1] == failing else int(command[1] == "validate")

    monkeypatch.setattr(data_memory, "watched", watched)
    if said is None:
        data_memory.main(9)
        assert run == ["prepare", "validate", "split"]
        return
    with pytest.raises(RuntimeError, match=said):
        data_memory.main(9)
    assert failing is None or run[-1] == failing
