"""Time that is counted, on links slow enough that the processor's own share does not matter."""

import json

import numpy as np
import pytest

from export.bundle import BuildSpec, build
from hub.datasets import DeviceData, Federation
from hub.demo import Wish
from hub.virtual_time import Network, run

RATE = 2000.0
"""Bytes a second."""


def one_batch(request):
    """Every device has one batch of eight digits' size."""
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 1, 8, 8), np.float32), np.arange(8)
    names = [f"device-{number}" for number in range(request.devices)]
    return Federation({name: DeviceData(x, y, x[:1], y[:1]) for name in names}, tuple(map(str, range(10))), "made up")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    build(BuildSpec("export.models:Digits", "pool1", "gradient"), folder, checked=False)
    return folder


def simulated(tmp_path, bundle, strategy, devices, network):
    wish = Wish(
        tmp_path / f"{strategy}-{devices}-{network.delay}",
        devices=devices,
        rounds=2,
        strategy=strategy,
        dataset="tests.hub.test_virtual_time:one_batch",
        windows="all",
        bundle=bundle,
        references=False,
    )
    run(wish, network)
    records = [json.loads(line) for line in (wish.folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    rounds = [record for record in records if record["record"] == "round"]
    devices = [record for record in records if record["record"] == "device" and record["round"] == 2]
    return [record["training_seconds"] for record in rounds], devices


SMASHED = 8 * 16 * 4 * 4 * 4
"""Bytes of one batch's smashed data in float32, and of their gradient."""


def test_a_step_takes_what_the_link_makes_of_its_bytes(tmp_path, bundle):
    seconds, (device,) = simulated(tmp_path, bundle, "parallel_split_learning", 1, Network(RATE, 4 * RATE, 0.0))
    least = SMASHED / RATE + SMASHED / (4 * RATE)
    assert all(least < taken < 1.25 * least for taken in seconds)
    moved = device["socket_sent"] - device["evaluation_sent"]
    assert 2 * SMASHED < moved < 1.25 * 2 * SMASHED


def test_a_delay_counts_for_each_way(tmp_path, bundle):
    network = Network(1e9, 1e9, 5.0)
    seconds, _ = simulated(tmp_path, bundle, "parallel_split_learning", 1, network)
    # Order down, activation up, gradient down, report up.
    assert all(4 * 5.0 <= taken < 4 * 5.0 + 2 for taken in seconds)


def test_devices_at_once_cost_the_time_of_one_and_in_turn_the_sum(tmp_path, bundle):
    network = Network(RATE, RATE, 0.0)
    alone, _ = simulated(tmp_path, bundle, "parallel_split_learning", 1, network)
    together, _ = simulated(tmp_path, bundle, "parallel_split_learning", 4, network)
    in_turn, _ = simulated(tmp_path, bundle, "split_learning", 4, network)
    assert together[0] == pytest.approx(alone[0], rel=0.05)
    assert in_turn[0] > 3.9 * alone[0]
