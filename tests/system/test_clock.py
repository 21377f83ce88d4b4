"""A board without a battery for its clock: it wakes up in 1970, and learns what day it is some time later.

The device is a process whose wall clock libfaketime answers for (Debian's package `faketime`); the hub's is right. Its
log shows that the clock was what the test says; the end of the run, that nothing hung on it.
"""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from edge.flight import ring, trace
from edge.flight.recording import read
from edge.outbox import Outbox
from hub.broker import start_broker
from tests.hub.test_hub_killed import outcome
from tests.system.processes import Children
from tests.system.trial import Material, Trial

ROUNDS = 6
BIRTH, TODAY = "@1970-01-02 00:00:00", "+0"

pytestmark = pytest.mark.timeout(300)  # the first test waits for the undisturbed run as well

# Without this, libfaketime fakes the monotonic clock too, which no board's battery has a say in.
MONOTONIC = {"DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

# And with it, it takes the monotonic time until which python sleeps for a wall clock's, and refuses (seen in 0.9.10).
SLEEP = """
import threading, time
time.sleep = lambda seconds: threading.Event().wait(seconds)
"""


def libfaketime():
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("the package faketime is not installed")
    return found[0]


@pytest.fixture
def clock(tmp_path):
    """The environment of a process whose wall clock is what stands in a file, and a way to write it."""
    library, file = libfaketime(), tmp_path / "clock"
    (tmp_path / "sleep").mkdir()
    (tmp_path / "sleep" / "sitecustomize.py").write_text(SLEEP, "utf-8")

    def strike(time):
        beside = tmp_path / "clock.new"
        beside.write_text(time + "\n", "utf-8")
        beside.replace(file)  # at once: half a line would be no time

    strike(BIRTH)
    paths = [str(tmp_path / "sleep"), *filter(None, [os.environ.get("PYTHONPATH")])]
    told = {"LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1"}
    return {**MONOTONIC, **told, "PYTHONPATH": os.pathsep.join(paths)}, strike


@pytest.fixture(scope="module")
def bundle(make_bundle):
    return make_bundle()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, bundle, digits):
    """What the run comes to with clocks that are right."""
    root = tmp_path_factory.mktemp("undisturbed")
    (root / "processes").mkdir()
    children = Children(root / "processes")
    try:
        with start_broker("embedded", root / "broker") as broker:
            trial = Trial(root, children, Material(bundle.id, bundle.device, bundle.hub, digits), "right", broker.url)
            begin(trial)
            devices = {name: trial.start_device(name) for name in trial.names}
            return the_end(trial, devices)
    finally:
        children.end()


def begin(trial):
    trial.write_hub(run={"order": "fixed", "evaluate_every": 3}, strategy={"kappa": 0.34})
    trial.start_hub()
    for name in trial.names:
        trial.write_device(name, run={"threads": 1})


def the_end(trial, devices):
    """All that was learned, on the hub and on every device; how often a device's step counted is in it."""
    trial.finish(100)
    for name, device in devices.items():
        assert device.wait(30) == 0, f"{name}:\n{device.said()}"
        assert "Traceback" not in device.stderr(), device.said()
    assert trial.rounds() == list(range(1, ROUNDS + 1))
    return outcome(trial.folder), {name: state(trial.root / name / "state") for name in trial.names}


def state(directory):
    outbox = Outbox.look(directory)
    try:
        return {name: array.tobytes() for name, array in outbox.state().items()}
    finally:
        outbox.close()


def years(device):
    """Of the lines of its log."""
    return {line[:4] for line in device.stderr().splitlines() if re.match(r"\d{4}-\d\d-\d\d ", line)}


def readings(recorder):
    """Of the clock that the device goes by."""
    entries = (entry for path in ring.segments(recorder) for entry in read(path).entries)
    return [entry.seconds for entry in entries if isinstance(entry, trace.Clock)]


def test_a_device_whose_clock_says_1970_takes_part_as_every_other_also_when_it_was_killed(trial, clock, undisturbed):
    environ, _ = clock
    begin(trial)
    devices = {name: trial.start_device(name, environ if name == "device-02" else None) for name in trial.names}
    trial.wait_round(2)
    devices["device-02"].kill()
    first, devices["device-02"] = devices["device-02"], trial.start_device("device-02", environ)
    assert the_end(trial, devices) == undisturbed
    assert years(first) == years(devices["device-02"]) == {"1970"}
    assert "1970" not in years(devices["device-01"])


@pytest.mark.parametrize(("before", "after"), [(BIRTH, TODAY), (TODAY, BIRTH)], ids=["to today", "to 1970"])
def test_a_clock_that_jumps_in_an_outage_changes_nothing(trial, broker, tmp_path, clock, undisturbed, before, after):
    environ, strike = clock
    strike(before)
    begin(trial)
    devices = {name: trial.start_device(name, environ if name == "device-02" else None) for name in trial.names}
    trial.wait_round(2)
    with devices["device-01"].paused():  # with a fixed order the others wait for it, so the run is not over
        began = years(devices["device-02"])
        broker.stop()
        strike(after)
    with start_broker("embedded", tmp_path / "second", port=urlsplit(broker.url).port):
        assert the_end(trial, devices) == undisturbed
    assert len(began) == 1
    assert began < years(devices["device-02"])
    assert "1970" in years(devices["device-02"])
    steady = readings(trial.root / "device-02" / "state" / "recorder")
    assert steady == sorted(steady)
    assert steady[-1] - steady[0] < 3600
