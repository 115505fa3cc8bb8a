"""RAFT killed at work, part after part: each sample is committed once, and the run ends."""

import random
from pathlib import Path

import pytest

from tests.chaos import Chaos, Ledger, two_nodes


@pytest.mark.slow
def test_every_part_is_killed_and_nothing_is_lost_or_repeated(
    tiny_model: Path, tmp_path: Path
) -> None:
    draw = random.Random(0)
    with two_nodes() as cluster:
        chaos = Chaos(tmp_path / "chaos", tiny_model, "transformers")
        with Ledger(chaos.run, tmp_path / "ledger.jsonl") as ledger:
            chaos.start(cluster.address)
            kills = []
            for part, cycle in (
                *(("verifier", 1), ("engine", 1), ("trainer", 1)),
                # The proxies first: they end when all is drawn, which is long before all is judged.
                *(("proxy", 2), ("node", 2), ("driver", 2)),
            ):
                kills.append(chaos.kill(part, cycle, draw, cluster, within_s=4))
                assert kills[-1].done < kills[-1].total, f"it was not at work: {kills[-1]}"
            again = chaos.finish(cluster.address)
    assert again >= 1, "a driver that is killed does not go on by itself"
    chaos.check(ledger)
