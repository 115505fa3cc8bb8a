"""Trained tokens/s of ours over a bare forward and backward pass on rows that are all full."""

from tests.perf.training import bare, measure, ours

if __name__ == "__main__":
    measure("tests.perf.train_vs_bare", {"ours": ours, "reference": bare}, "bare on full rows")
