"""Fixtures of the tests that run programs in boxes."""

import pytest

from haloforge.verify.sandbox import Sandbox
from tests import boxes


@pytest.fixture(params=boxes.HELD)
def box(request: pytest.FixtureRequest) -> Sandbox:
    """A sandbox of each tier that holds hostile programs."""
    return boxes.sandbox(request.param)
