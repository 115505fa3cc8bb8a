"""Fixtures of the tests that run programs in boxes, and of those that need several nodes."""

from collections.abc import Iterator

import pytest

from haloforge.verify.sandbox import Sandbox
from tests import boxes
from tests.local_cluster import LocalCluster, local_cluster


@pytest.fixture(params=boxes.HELD)
def box(request: pytest.FixtureRequest) -> Sandbox:
    """A sandbox of each tier that holds hostile programs."""
    return boxes.sandbox(request.param)


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """A cluster of `cluster/local.sh`, which is yet to be started."""
    with local_cluster() as found:
        yield found
