"""Observers for tests."""

from haloforge.observe.observer import Observer
from haloforge.observe.settings import ObserveSettings
from haloforge.report.progress import Report


def unobserved() -> Observer:
    """One that is off, for a session that a test stands in for."""
    return Observer(ObserveSettings(enabled=False), Report())
