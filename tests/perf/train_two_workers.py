"""Trained tokens/s of two gloo workers over one, a core each."""

from functools import partial

from tests.perf.training import measure, ours

if __name__ == "__main__":
    sides = {
        "ours": partial(ours, workers=2, threads_each=1),
        "reference": partial(ours, workers=1, threads_each=1),
    }
    measure("tests.perf.train_two_workers", sides, "two workers against one, a core each")
