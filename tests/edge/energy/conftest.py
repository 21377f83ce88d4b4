import pytest

from tests.edge.energy.trees import Board


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path)
