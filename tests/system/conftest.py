"""Real brokers, bundles, data and processes for the tests of this folder, which all carry the mark `system`."""

import logging
import os
import secrets
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from export.bundle import BuildSpec, build
from hub.broker import find_mosquitto, start_broker
from hub.datasets import DeviceData, split, write_device_file
from tests.system.processes import Children
from tests.system.trial import Material, Trial

HERE = Path(__file__).parent

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts background commands deaf to Ctrl-C, and whatever they start would be deaf too.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            item.add_marker(pytest.mark.timeout(120))


def need_mosquitto():
    if find_mosquitto() is None:
        # CI installs it: there its absence is a fault, on a developer's machine it is not.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("mosquitto is not installed")


@pytest.fixture(params=["embedded", "mosquitto"])
def broker_kind(request):
    if request.param == "mosquitto":
        need_mosquitto()
    return request.param


@pytest.fixture
def children(tmp_path):
    folder = tmp_path / "processes"
    folder.mkdir()
    started = Children(folder)
    yield started
    started.end()


@pytest.fixture(scope="session")
def make_bundle(tmp_path_factory):
    """Builds each kind of bundle once; unchecked, since the exporter has tests of its own."""
    built = {}

    logging.getLogger("torch").setLevel(logging.WARNING)  # pytest would keep thousands of its debug lines

    def make(*, model="Digits", objective="contrastive", optimizer="adam", seed=0, classes=10):
        key = (model, objective, optimizer, seed, classes)
        if key not in built:
            arguments = {"classes": classes}
            spec = BuildSpec(f"export.models:{model}", "pool1", objective, optimizer, arguments=arguments, seed=seed)
            built[key] = build(spec, tmp_path_factory.mktemp("bundle"), checked=False)
        return built[key]

    return make


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Three devices' files, of six batches each: a round takes long enough to be interrupted, and not longer."""
    folder = tmp_path_factory.mktemp("digits")
    for name, data in split("digits", 3, "all", 0, None).items():
        some = DeviceData(data.x_train[:192], data.y_train[:192], data.x_test[:64], data.y_test[:64])
        write_device_file(folder / f"{name}.npz", some)
    return {path.stem: path for path in sorted(folder.iterdir())}


@pytest.fixture
def material(make_bundle, digits):
    bundle = make_bundle()
    return Material(bundle.id, bundle.device, bundle.hub, digits)


@pytest.fixture
def broker(tmp_path):
    """A broker for the length of a test, in this test's own process tree."""
    with start_broker("embedded", tmp_path / "broker") as started:
        yield started


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    stdout: str
    stderr: str

    def mistake(self, *words):
        """It ended as for a user's mistake, and every one of the words is in what it said; returns that."""
        assert self.code == 2, self
        assert self.stderr.startswith(("cutlayer", "usage: cutlayer")), self
        for word in words:
            assert word in self.stderr, f"{word!r} is not in:\n{self.stderr}"
        return self.stderr


@pytest.fixture
def call(capsys):
    """Runs commands in this process, where torch is imported already; a traceback would fail the test here."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threads = torch.get_num_threads()

    def run(main, *arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse's way
            code = error.code
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    yield run
    torch.set_num_threads(threads)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def fleet():
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def trial(tmp_path, children, material, fleet, broker):
    return Trial(tmp_path, children, material, fleet, broker.url)
