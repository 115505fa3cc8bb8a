"""Trained tokens/s of ours over TRL's SFTTrainer, its packing on."""

from collections.abc import Callable
from functools import partial

from tests.perf.training import install_peer, measure, ours, peer

if __name__ == "__main__":
    install_peer()
    sides: dict[str, Callable[[], float]] = {"ours": ours, "reference": partial(peer, packing=True)}
    measure("tests.perf.train_vs_trl_packed", sides, "TRL's packing on")
