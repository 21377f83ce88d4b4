"""A device on its stage."""

import pytest

from edge.memory_link import MemoryBroker
from tests.edge.stage import Stage


@pytest.fixture
def staged(tmp_path):
    stages = []

    def make(broker=None, **agent):
        stages.append(Stage(tmp_path, broker or MemoryBroker(), **agent))
        return stages[-1]

    yield make
    for stage in stages:
        stage.kill()


@pytest.fixture
def stage(staged):
    return staged()
