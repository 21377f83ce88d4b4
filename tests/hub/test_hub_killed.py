"""A hub that is killed at any word it says or hears, and started again: the run ends as if nothing had been."""

import numpy as np
import pytest
import torch

from edge import bundle
from hub import demo
from hub.datasets import split
from hub.outcome import read
from hub.progress import NoProgress
from hub.server import serve
from hub.simulate import Fleet, HubLink
from hub.store import Store
from hub.strategies import STRATEGIES

METHODS = {
    "adasplit": {"kappa": 0.34, "replay": 1, "eta": 0.5, "select_every": 2},
    "adasplit, the gradient comes down": {"kappa": 0.0, "server_gradient": True, "masks": False},
    "adasplit, its tables named": {"kappa": 0.0, "replay": 1},
    "adasplit, several rounds an order": {"kappa": 0.67, "schedule": "constant"},
    "adasplit, known samples are skipped": {"kappa": 0.34, "replay": 1, "eta": 1.0},
    "locsplitfed, the cache is too small": {"replay": 1},
    "split_learning": {},
    "parallel_split_learning": {},
    "splitfed": {},
    "locsplitfed": {"replay": 1},
    "locfedmix": {},
    "one_shot": {"hub_epochs": 1},
    "fedavg": {},
    "scaffold": {},
    "fednova": {},
    "fedavg, weights are coded": {},
    "scaffold, weights are coded": {},
    "splitfed, weights are coded": {},
    "split_learning, weights are coded": {},
}

KNOWN = {
    "adasplit, known samples are skipped": {"skip_below": 0.3, "refresh_rounds": 2},
    "locsplitfed, the cache is too small": {"skip_below": 0.5, "refresh_rounds": 9, "megabytes": 0.02},
}
"""[known] of the hub."""


CODECS = {"adasplit, its tables named": "entropy:1"}


class Killed(BaseException):
    """As nothing catches it."""


class Mortal(HubLink):
    """A hub's link at whose so-many-th word the hub is killed."""

    left = None

    def publish(self, *arguments, **options):
        self.count()
        super().publish(*arguments, **options)

    def poll(self, timeout):
        self.count()
        return super().poll(timeout)

    def close(self):
        self.left = None
        super().close()

    def count(self):
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


@pytest.fixture
def play(tmp_path, bundles):
    federation = split("digits", 3, "scarce", 0, None)

    def run(method, lives, **environ):
        """A run whose hubs live for so many words each, and the last one to the end; what it came to, and how many died."""
        name = method.partition(",")[0]
        strategy = STRATEGIES[name](STRATEGIES[name].options(**METHODS[method]))
        folder = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        wish = demo.Wish(
            folder,
            devices=3,
            rounds=3,
            batch=16,
            strategy=name,
            options=METHODS[method],
            codec=CODECS.get(method, "float32"),
            weights_codec="entropy:1" if method.endswith("coded") else "float32",
            known=KNOWN.get(method, {}),
            environ={"CUTLAYER_HUB_RUN_ORDER": "fixed", **environ},
        )
        settings = demo.write_config(wish, "embedded", 3, bundles(strategy).resolve())
        fleet = Fleet(settings.fleet.name, dict(federation), bundle.load(bundles(strategy) / "device.bundle"))
        deaths = 0
        for life in (*lives, None):
            try:
                serve(
                    settings,
                    "memory://",
                    NoProgress(),
                    resume=Store.known(folder),
                    started=lambda: None if fleet.boards else fleet.start(),
                    connect=lambda *told, life=life: mortal(fleet, life, told),
                    now=fleet.clock.now,
                )
            except Killed:
                deaths += 1
            else:
                break
        return outcome(folder), deaths

    return run


@pytest.mark.parametrize("method", KNOWN)
def test_samples_are_skipped_in_it_and_served(play, method, tmp_path):
    play(method, [])
    records = read(next(tmp_path.glob("run-*")))
    last = [record for record in records if record["record"] == "device" and record["round"] == 3]
    assert sum(record["known"]["skipped"] for record in last) > 20
    served = sum(record.get("served", 0) for record in records if record["record"] == "round")
    skipped = sum(record["known"]["skipped"] for record in last)
    assert 0 < served <= skipped
    assert (served < skipped) == ("too small" in method)


def mortal(fleet, life, told):
    link = Mortal(fleet.clock, fleet.boards, fleet.broker, *told)
    link.left = life
    return link


def outcome(folder):
    """All that was learned: losses and accuracies of all rounds, and all tensors at the end."""
    rounds = [
        (record["round"], record["loss"], record["accuracies"], record["selected"], record["late"])
        for record in read(folder)
        if record["record"] == "round"
    ]
    return rounds, tensors(torch.load(folder / "checkpoint.pt", weights_only=True)["strategy"])


def tensors(saved, name=""):
    if isinstance(saved, torch.Tensor):
        return {name: saved.numpy().tobytes()}
    parts = saved.items() if isinstance(saved, dict) else enumerate(saved) if isinstance(saved, (list, tuple)) else ()
    return {key: value for part, inside in parts for key, value in tensors(inside, f"{name}.{part}").items()}


@pytest.mark.parametrize("method", METHODS)
def test_killed_many_times_it_learns_the_same_to_the_last_bit(play, method):
    environ = {"CUTLAYER_HUB_RUN_ROUNDS_PER_ORDER": "2"} if method.endswith("several rounds an order") else {}
    undisturbed, _ = play(method, [], **environ)
    lives = np.random.default_rng(7).integers(3, 40, size=12).tolist()
    killed, deaths = play(method, lives, **environ)
    assert deaths >= 5
    assert killed == undisturbed
    assert [record[0] for record in undisturbed[0]] == [1, 2, 3]


def test_several_rounds_in_one_order_teach_the_same_to_the_last_bit(play):
    method = "adasplit, several rounds an order"
    one, _ = play(method, [], CUTLAYER_HUB_RUN_ROUNDS_PER_ORDER="1")
    two, _ = play(method, [], CUTLAYER_HUB_RUN_ROUNDS_PER_ORDER="2")
    assert two == one
