"""A run in one process: what it leaves, that it is the run of real processes, and what it does not claim to know."""

import json
import time
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch

from edge.memory_link import SOURCE, MemoryBroker
from export.bundle import BuildSpec, build
from hub import demo, simulate
from hub.__main__ import main
from hub.datasets import DeviceData, Federation
from hub.demo import DemoError, Wish
from hub.orchestrator import FleetError
from hub.outcome import read, rows
from hub.simulate import Clock, HubLink

ADASPLIT = {"kappa": 0.5, "replay": 2, "masks": True}


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """Unchecked: the exporter has tests of its own."""
    made = {}

    def make(objective):
        if objective not in made:
            made[objective] = tmp_path_factory.mktemp(objective)
            spec = BuildSpec("export.models:Digits", "pool1", objective, arguments={"classes": 10})
            build(spec, made[objective], checked=False)
        return made[objective]

    return make


@pytest.fixture
def wish(tmp_path, bundles):
    def make(name="run", strategy="split_learning", **changes):
        objective = "contrastive" if strategy == "adasplit" else "gradient"
        values = {"devices": 3, "rounds": 2, "dataset": "digits", "references": False, "bundle": bundles(objective)}
        return Wish(folder=tmp_path / name, strategy=strategy, **values | changes)

    return make


def of(folder, kind):
    return [record for record in read(folder) if record["record"] == kind]


def learned(folder):
    """Everything that was learned: losses and accuracies of all rounds and devices, and all tensors at the end."""
    rounds = [(record["loss"], record["accuracies"], record["selected"]) for record in of(folder, "round")]
    devices = [(record["device"], record["loss"], record["steps"]) for record in of(folder, "device")]
    return rounds, devices, tensors(torch.load(folder / "checkpoint.pt", weights_only=True)["strategy"])


def tensors(saved, name=""):
    if isinstance(saved, torch.Tensor):
        return {name: saved.numpy().tobytes()}
    parts = saved.items() if isinstance(saved, dict) else enumerate(saved) if isinstance(saved, (list, tuple)) else ()
    return {key: value for part, inside in parts for key, value in tensors(inside, f"{name}.{part}").items()}


@pytest.mark.parametrize(("strategy", "options"), [("split_learning", {}), ("adasplit", ADASPLIT)])
def test_the_same_seed_is_the_same_run_bit_by_bit(wish, strategy, options):
    first, second, other = (
        wish(name, strategy, options=options, rounds=4, windows="scarce", seed=seed)
        for name, seed in (("first", 1), ("second", 1), ("other", 2))
    )
    for run in (first, second, other):
        simulate.run(run)
    assert learned(first.folder) == learned(second.folder)
    assert learned(first.folder) != learned(other.folder)
    assert len(learned(first.folder)[2]) > 3


@pytest.mark.system
@pytest.mark.parametrize(
    ("strategy", "options", "known"),
    [
        ("split_learning", {}, {}),
        ("adasplit", ADASPLIT, {}),
        ("adasplit", ADASPLIT | {"kappa": 0, "eta": 1}, {"skip_below": 0.5}),
    ],
)
def test_it_is_the_run_of_real_processes_number_by_number(wish, strategy, options, known):
    simulated, real = (
        wish(name, strategy, options=options, windows="scarce", known=known) for name in ("simulated", "real")
    )
    simulate.run(simulated)
    demo.run(real)
    assert learned(simulated.folder) == learned(real.folder)
    assert of(simulated.folder, "round")[-1]["accuracies"]
    for mine, theirs in zip(of(simulated.folder, "device"), of(real.folder, "device"), strict=True):
        for name in ("steps", "flops", "paper_flops", "paper_bytes", "elements", "restarts", "refused"):
            assert mine[name] == theirs[name], name
        assert ("known" in mine) == bool(known)
        assert mine.get("known") == theirs.get("known")
        if mine["round"] == 2:  # the socket carries the same frames, and MQTT around them
            assert 0.9 * theirs["socket_sent"] < mine["socket_sent"] < theirs["socket_sent"]


def test_what_one_process_cannot_tell_is_missing_with_a_reason(wish):
    simulate.run(wish())
    folder = wish().folder
    for record in of(folder, "device"):
        assert record["peak_rss_bytes"] is None
        assert record["socket_retransmitted"] is None
        assert record["energy"]["joules"] is None
        assert record["energy"]["reason"] == simulate.SHARED
        assert record["socket_source"] == SOURCE
        assert 4 * record["elements"] < record["socket_sent"] - record["evaluation_sent"]
        assert 0 < record["cpu_seconds"] < 60
        assert record["refused"] == {}
    (row,) = rows(folder)
    assert row.peak_rss_bytes is None
    assert row.missing["peak_rss_bytes"] == simulate.SHARED
    assert row.energy_reason == simulate.SHARED
    assert row.note == simulate.NOTE


def test_the_command_leaves_what_the_demo_leaves(tmp_path, bundles, capsys):
    folder = tmp_path / "run"
    told = ["--devices", "2", "--rounds", "2", "--dataset", "digits", "--strategy", "split_learning", "--seed", "3"]
    arguments = ["simulate", *told, "--set", "lr=0.002", "--bundle", str(bundles("gradient")), "--out", str(folder)]
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "round 2/2" in said.out
    table = " ".join(said.out.split())
    assert f"sent {SOURCE}: a device's frames, without MQTT and TCP" in table
    assert "CPU measured: the thread's processor time in a device's turns" in table
    assert simulate.NOTE in table
    assert "TCP_INFO" not in table
    assert "</html>" in (folder / "report.html").read_text("utf-8")
    hub = tomllib.loads((folder / "hub.toml").read_text("utf-8"))
    assert (hub["run"]["seed"], hub["run"]["rounds"], hub["strategy"]["lr"]) == (3, 2, 0.002)
    assert hub["broker"]["url"] == "embedded", "so that a hub for real devices can read it"
    assert not (folder / "devices").exists()


def test_a_run_that_is_there_is_not_written_over(wish, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(DemoError, match="exists already"):
        simulate.run(wish())


def test_a_bundle_that_is_not_there_or_does_not_fit_is_a_plain_sentence(wish, tmp_path, bundles):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "hub.bundle").write_bytes((bundles("gradient") / "hub.bundle").read_bytes())
    with pytest.raises(DemoError, match=r"there is no bundle at .*half/device.bundle"):
        simulate.run(wish("without", bundle=tmp_path / "half"))
    (tmp_path / "half" / "device.bundle").write_bytes((bundles("contrastive") / "device.bundle").read_bytes())
    with pytest.raises(DemoError, match="install the bundle of this run"):
        simulate.run(wish("mixed", bundle=tmp_path / "half"))


def strangers(request):
    """A data set of the user's own: two devices that train, and one that is only tested."""
    rng = np.random.default_rng(request.seed)
    x, y = rng.standard_normal((12, 1, 8, 8), np.float32), np.arange(12) % 10
    share, tested = DeviceData(x[:8], y[:8], x[8:], y[8:]), DeviceData(x[:0], y[:0], x[8:], y[8:])
    return Federation({"a": share, "b": share}, tuple("0123456789"), "made up", unseen={"new": tested})


def test_a_device_that_is_only_tested_takes_part(wish):
    mine = f"{__name__}:strangers"
    settings = {"model": "export.models:Digits", "cut": "pool1"}
    simulate.run(wish("run", "adasplit", options=ADASPLIT, dataset=mine, devices=2, **settings))
    last = of(wish().folder, "round")[-1]
    assert sorted(last["accuracies"]) == ["a", "b", "new"]
    assert last["selected"].keys() <= {"a", "b"}


def test_patience_costs_no_time():
    clock, broker = Clock(), MemoryBroker()
    link = HubLink(clock, {}, broker, "hub", ("x/hub/status", b"off"), ())
    began = time.monotonic()
    assert link.poll(3600.0) == []
    assert clock.now() == 3600.0
    assert time.monotonic() - began < 1
    assert link.poll(0.0) == []
    assert clock.now() == 3600.0


def test_a_fleet_that_never_comes_is_not_waited_for_by_the_clock(wish):
    late = replace(
        wish(), environ={"CUTLAYER_HUB_FLEET_GATHER_SECONDS": "5000", "CUTLAYER_HUB_FLEET_MINIMUM_DEVICES": "4"}
    )
    began = time.monotonic()
    with pytest.raises(FleetError, match="3 of 3 devices came within 5000 s; at least 4 are needed"):
        simulate.run(late)
    assert time.monotonic() - began < 30


def test_a_device_that_hangs_is_late_and_the_others_go_on(wish, monkeypatch):
    turn = simulate.Board.turn

    def hang(board):
        board.turns = getattr(board, "turns", 0) + 1
        if board.link.client_id == "device-02" and board.turns > 6:
            board.link.poll(1e6)  # reads and does nothing, for ever
        else:
            turn(board)

    monkeypatch.setattr(simulate.Board, "turn", hang)
    began = time.monotonic()
    simulate.run(wish())
    assert time.monotonic() - began < 60
    assert [record["late"] for record in of(wish().folder, "round")] == [["device-02"], []]
    assert sorted(of(wish().folder, "round")[-1]["accuracies"]) == ["device-01", "device-03"]


def test_metrics_are_plain_json(wish):
    simulate.run(wish())
    for line in (wish().folder / "metrics.jsonl").read_text("utf-8").splitlines():
        json.loads(line, parse_constant=pytest.fail)
