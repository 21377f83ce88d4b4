import io
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn

from hub.segment import Replay, Tuning, UpperSegment
from hub.selection import History
from hub.strategies.base import Fleet, Member
from hub.strategies.checkpoint import BRIEF, pack, unpack

FLEET = Fleet((Member("a", 1, 1), Member("b", 1, 1)))


def upper(seed):
    torch.manual_seed(seed)
    return UpperSegment(nn.Linear(2, 2), 2, Tuning(), 0)


@dataclass
class State:
    fleet: Fleet
    upper: UpperSegment
    replay: Replay = field(default_factory=lambda: Replay(1000))
    history: History = field(default_factory=lambda: History.empty(2))
    lower: dict | None = None
    handed: dict = field(default_factory=dict)
    behind: set = field(default_factory=set)
    rounds: int = 0
    queue: list = field(default_factory=list, metadata=BRIEF)


def through_a_file(saved):
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def filled():
    state = State(FLEET, upper(1))
    state.upper.step(0, torch.ones(1, 2), torch.tensor([1]))
    state.replay.add(1, torch.ones(1, 2), torch.tensor([1]))
    state.history = state.history.after({1: 0.5})
    state.lower = {"w": np.float32([[1, 2]]), "steps": np.array(7)}
    state.lower["w"].flags.writeable = False  # as it comes off the wire
    state.handed = {"a": {"w": np.int64([3])}}
    state.behind, state.rounds, state.queue = {"b", "a"}, 7, [object()]
    return state


def test_every_field_comes_back_but_what_is_brief():
    state, fresh = filled(), State(FLEET, upper(2))
    unpack(through_a_file(pack(state)), fresh)
    assert torch.equal(fresh.upper.weights, state.upper.weights)
    assert fresh.upper.steps == 1
    assert len(fresh.replay) == 1
    np.testing.assert_array_equal(fresh.history.losses, [[100, 100], [100, 100], [100, 0.5]])
    assert (fresh.lower["w"].dtype, fresh.lower["w"].tolist()) == (np.float32, [[1, 2]])
    assert (fresh.handed["a"]["w"].dtype, fresh.handed["a"]["w"].tolist()) == (np.int64, [3])
    assert (fresh.behind, fresh.rounds, fresh.queue) == ({"a", "b"}, 7, [])


def test_what_is_saved_is_not_changed_by_steps_that_follow():
    state = filled()
    saved = pack(state)
    state.lower["steps"][...] = 9
    state.upper.step(0, torch.ones(1, 2), torch.tensor([0]))
    fresh = State(FLEET, upper(2))
    unpack(saved, fresh)
    assert fresh.lower["steps"].tolist() == 7
    assert fresh.upper.steps == 1


def test_another_fleet_is_named():
    fresh = replace(filled(), fleet=Fleet((Member("a", 1, 1), Member("c", 1, 1))))
    with pytest.raises(ValueError, match="was made for the devices a, b; these are a, c"):
        unpack(pack(filled()), fresh)
