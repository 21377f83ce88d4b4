"""`python -m hub demo`, as a newcomer types it: what is on the screen, what is in the folder, who is left running."""

import re
import tomllib

from tests.system.processes import Family, wait_for
from tests.system.trial import read_records

DEVICES, ROUNDS = 4, 4


def test_a_demo_trains_and_leaves_its_records_and_no_process(children, tmp_path, make_bundle, broker_kind):
    folder = tmp_path / "run"
    # Once from nothing at all; once with a bundle that is there, which saves the test half a minute on a busy machine.
    builds = broker_kind == "embedded"
    bundle = [] if builds else ["--bundle", make_bundle().device.parent]
    demo = children.python(
        "-m", "hub", "demo", "--devices", str(DEVICES), "--rounds", str(ROUNDS), "--dataset", "digits",
        "--set", "kappa=0.5", "--broker", broker_kind, *bundle, "--out", folder,
    )  # fmt: skip
    family = Family(demo.pid)
    wait_for(lambda: family.look() > DEVICES and not demo.alive, "the demo has ended", seconds=90)

    assert demo.wait() == 0, demo.said()
    assert demo.stderr() == ""
    assert family.left() == []
    names = [f"device-{number:02}" for number in range(1, DEVICES + 1)]
    complete(folder, names)
    honest(folder, names)
    screen(demo.stdout(), folder, ["building the bundle"] if builds else [])
    configured(folder, names, broker_kind)


def complete(folder, names):
    rounds, devices = read_records(folder, "round"), read_records(folder, "device")
    assert [(record["round"], record["phase"]) for record in rounds] == [
        (1, "local"),
        (2, "local"),
        (3, "global"),
        (4, "global"),
    ]
    assert [(record["round"], record["device"]) for record in devices] == [
        (number, name) for number in range(1, ROUNDS + 1) for name in names
    ]
    assert [record["accuracy"] is None for record in rounds] == [True, True, False, False]
    assert sorted(rounds[-1]["accuracies"]) == names
    assert rounds[-1]["late"] == []
    assert rounds[-1]["accuracy"] > 0.2, "ten classes: chance is 0.1"


def honest(folder, names):
    last = {record["device"]: record for record in read_records(folder, "device")}
    for name in names:
        device = last[name]
        training = device["socket_sent"] - device["evaluation_sent"]
        assert device["socket_source"] == "kernel TCP_INFO"
        # 4 bytes an element were sent, the paper counts only those that are not zero, and the socket carries frames.
        assert 0 < device["paper_bytes"] <= 4 * device["elements"] < training < 4.5 * device["elements"] + 20_000
        assert device["peak_rss_bytes"] > 20e6
        assert device["cpu_seconds"] > 0
        assert device["energy"]["joules"] is not None or device["energy"]["reason"]
        assert device["refused"] == {}


def screen(text, folder, first):
    # The last line is a path, as long as the folder the run is in.
    assert max(map(len, text.splitlines()[:-1])) <= 80, max(text.splitlines()[:-1], key=len)
    assert "\x1b" not in text, "plain lines where there is no terminal"
    stages = [*first, "waiting for 4 devices", "round 1/4", "round 4/4", "each device alone"]
    places = [text.index(stage) for stage in stages]
    assert places == sorted(places)
    assert re.search(r"^adasplit +\d+\.\d", text, re.MULTILINE)
    assert re.search(r"^local only", text, re.MULTILINE)
    assert text.rstrip().endswith(f"report: {folder / 'report.html'}")


def configured(folder, names, broker_kind):
    report = (folder / "report.html").read_text("utf-8")
    assert "</html>" in report
    assert not re.search(r"""(src|href)=["']https?://""", report), "the report needs nothing from elsewhere"
    hub = tomllib.loads((folder / "hub.toml").read_text("utf-8"))
    assert (hub["run"]["rounds"], hub["strategy"]["kappa"]) == (ROUNDS, 0.5)
    assert read_records(folder, "run")[0]["broker"] == broker_kind
    for name in names:
        device = tomllib.loads((folder / "devices" / name / "device.toml").read_text("utf-8"))
        assert device["device"]["name"] == name
        assert [path.name for path in (folder / "devices" / name).glob("*.npz")] == ["data.npz"]
