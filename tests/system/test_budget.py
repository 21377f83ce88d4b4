"""A budget is never exceeded: counted from outside, by nftables in each device's own network namespace."""

import json
import os
import shutil
import sys

import pytest

from hub.demo import Wish
from hub.trial import run as trial
from hub.trial.net import open_net
from hub.trial.scenario import load
from tests.system.trial import read_records

pytestmark = pytest.mark.long

if sys.platform != "linux":
    pytest.skip("nftables are Linux's", allow_module_level=True)

NFT = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
RULES = """
add table inet budget
add counter inet budget up
add counter inet budget down
add chain inet budget leaves { type filter hook output priority 0; }
add chain inet budget comes { type filter hook input priority 0; }
add rule inet budget leaves oifname != "lo" counter name up
add rule inet budget comes iifname != "lo" counter name down
"""
LINK = """
[scenario]
name = "counted"
source = "ours, for this test"
seed = 3

[link]
rate = "10mbit"
delay_seconds = 0.01
loss = {loss}
"""


class Counted:
    """The links of a trial, with a counter at each device."""

    def __init__(self):
        self.bytes = {}

    def open(self, *arguments, **options):
        net = open_net(*arguments, **options)
        close, self.net = net.close, net
        for name in net.devices:
            self.nft(name, "-f", "-", rules=RULES)

        def counted_and_closed():
            self.bytes = {name: self.read(name) for name in net.devices}
            close()

        net.close = counted_and_closed
        return net

    def nft(self, name, *arguments, rules=""):
        log = self.folder / f"nft-{name}.log"
        file = self.folder / "rules.nft"
        file.write_text(rules, "utf-8")
        given = [str(file) if argument == "-" else argument for argument in arguments]
        process = self.net.popen(name, [NFT, *given], log=log, environ={})
        assert process.wait(10) == 0, log.read_text("utf-8")
        said = log.read_text("utf-8")
        log.unlink()
        return said

    def read(self, name):
        found = json.loads(self.nft(name, "-j", "list", "counters"))["nftables"]
        return {item["counter"]["name"]: item["counter"]["bytes"] for item in found if "counter" in item}


@pytest.fixture
def counted(tmp_path, monkeypatch):
    with open_net(load("perfect"), [], tmp_path / "probe", prefer="emulator") as net:
        how = net.how
    if NFT is None or not how.startswith("emulator in network namespaces"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no nftables, or no network namespaces: {how}")
    found = Counted()
    found.folder = tmp_path
    monkeypatch.setattr(trial, "open_net", found.open)
    return found


@pytest.mark.parametrize("loss", [0.0, 0.1])
@pytest.mark.parametrize("strategy", ["adasplit", "split_learning"])
def test_no_byte_beyond_the_budget_leaves_or_reaches_a_device(counted, tmp_path, strategy, loss):
    scenario = tmp_path / "link.toml"
    scenario.write_text(LINK.format(loss=loss), "utf-8")
    budget = {"up_per_run": "60 kB", "down_per_run": "60 kB"}
    options = {"kappa": 0.3} if strategy == "adasplit" else {}
    wish = Wish(
        tmp_path / "run",
        devices=3,
        rounds=6,
        strategy=strategy,
        options=options,
        windows="scarce",
        references=False,
        budget=budget,
    )
    trial.run(
        trial.Trial(str(scenario), means="emulator", codec="quantised:1.5", turn_seconds=8.0, grace_seconds=2.0), wish
    )
    assert len(read_records(tmp_path / "run", "round")) == 6
    assert len(counted.bytes) == 3
    for name, found in counted.bytes.items():
        assert 2_000 < found["up"] <= 60_000, (name, found)
        assert 1_000 < found["down"] <= 60_000, (name, found)
    told = [record["budget"] for record in read_records(tmp_path / "run", "device")]
    assert all(0 <= one["up_spent"] <= 60_000 for one in told)
