"""The command itself, on a bundle of a few operators."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.__main__ import main
from edge.outbox import Outbox
from edge.wire.profile import STAGES, Profile
from hub.broker import start_broker
from tests.tiny import write_bundle

QUICK = ["--seconds", "0.05"]


@pytest.fixture
def bundle(tmp_path):
    write_bundle(tmp_path / "device.bundle")
    return tmp_path / "device.bundle"


@pytest.fixture
def broker(tmp_path):
    running = start_broker("embedded", tmp_path / "broker")
    yield running
    running.stop()


def configure(folder, url="mqtt://127.0.0.1:9", more=""):
    path = folder / "device.toml"
    path.write_text(
        f'[device]\nname = "bench"\n[broker]\nurl = "{url}"\n[bundle]\npath = "device.bundle"\n'
        f'[data]\nsource = "synthetic:64"\n{more}'
    )
    return path


def profile(*options, name="p.json", folder):
    code = main(["profile", *map(str, options), *QUICK, "--json", str(folder / name)])
    return code, Profile.parse((folder / name).read_text())


def test_every_stage_is_measured_with_an_interval_and_a_peak(bundle, broker, tmp_path, capsys):
    config = configure(tmp_path, broker.url)
    code, found = profile("--config", config, "--batch", "4,8", "--codec", "float32", folder=tmp_path)
    assert code == 0
    assert [(row.batch, row.stage) for row in found.stages] == [(batch, stage) for batch in (4, 8) for stage in STAGES]
    for row in found.stages:
        assert 0 < row.low_seconds <= row.median_seconds <= row.high_seconds
        assert row.quiet_seconds <= row.median_seconds <= row.p95_seconds
        assert row.repeats >= 10
        assert row.peak_bytes > 20 << 20  # an interpreter with numpy and onnxruntime
    # Float32 of (8, 2) is 64 bytes of a message, and of what goes over the socket, which has headers besides.
    sizes = {row.stage: row.bytes for row in found.stages if row.batch == 8}
    assert 64 < sizes["encode"] == sizes["outbox"] < sizes["send"] < 1000
    assert sizes["local"] is None
    assert {row.kind for row in found.steps} == {"forward", "local", "backward"}
    assert {row.stage for row in found.shares} == {"forward", "local", "backward"}
    assert sum(row.share for row in found.shares if (row.stage, row.batch) == ("local", 8)) == pytest.approx(1)
    assert found.operators
    assert found.conditions["data"] == "synthetic"
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "batch 8, 1 thread" in shown
    assert "local step" in shown


def test_nothing_is_left_behind(bundle, tmp_path):
    profile("--config", configure(tmp_path), "--stages", "outbox,sensor", folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"device.bundle", "device.toml", "p.json"}


def test_without_a_broker_all_but_sending_is_measured(bundle, tmp_path):
    code, found = profile("--config", configure(tmp_path), "--codec", "float32", folder=tmp_path)
    assert code == 0
    assert [row.stage for row in found.stages] == [stage for stage in STAGES if stage != "send"]
    assert [(row.stage, row.why) for row in found.missing] == [
        ("send", "no broker answers at mqtt://127.0.0.1:9: connection refused")
    ]


def test_a_budget_of_bytes_is_not_spent_behind_its_back(bundle, broker, tmp_path):
    config = configure(tmp_path, broker.url, '[budget]\nup_per_day = "1 MB"\n')
    _, found = profile("--config", config, "--stages", "send", folder=tmp_path)
    assert not found.stages
    assert "not counted in it: --send-beyond-budget" in found.missing[0].why
    _, found = profile("--config", config, "--stages", "send", "--send-beyond-budget", folder=tmp_path)
    assert found.stages


def test_joules_come_with_class_source_and_baseline(bundle, tmp_path, capsys):
    """A model of 2 W and 3 J a CPU second: a step that keeps a core busy takes close to 5 J a second, never more."""
    model = {
        "format": 1,
        "idle_watts": 2.0,
        "joules_per_cpu_second": 3.0,
        "joules_per_byte_sent": None,
        "joules_per_byte_received": None,
        "rms_watts": 0.05,
        "residual_percent": 1.0,
        "windows": 9,
        "meter": "a meter (metered)",
        "date": "2026-11-21T00:00:00+00:00",
        "board": {},
    }
    (tmp_path / "model.json").write_text(json.dumps(model))
    config = configure(tmp_path, more='[energy]\nsource = "model"\nmodel = "model.json"\n')
    code = main(
        ["profile", "--config", str(config), "--stages", "local", "--seconds", "1", "--json", str(tmp_path / "p")]
    )
    found = Profile.parse((tmp_path / "p").read_text())
    assert code == 0
    [row] = found.stages
    cores = os.cpu_count()
    assert row.joules_kind == "modelled"
    assert row.idle_watts >= 2.0
    watts = row.joules * row.repeats / 1.0  # the window lasted a second
    assert 2.0 <= watts <= 2.0 + 3.0 * cores * 1.2
    assert "joules:" in capsys.readouterr().out


def test_without_a_meter_there_are_no_joules_and_a_reason(bundle, tmp_path, capsys):
    config = configure(tmp_path, more='[energy]\nsource = "none"\n')
    _, found = profile("--config", config, "--stages", "local", folder=tmp_path)
    assert found.stages[0].joules is None
    assert found.stages[0].joules_why == 'not measured: [energy] source = "none"'
    assert 'no joules: not measured: [energy] source = "none"' in capsys.readouterr().out


def test_a_bundle_alone_is_enough_and_may_come_through_a_pipe(bundle, tmp_path):
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "edge", "profile", "--bundle", "-", "--stages", "local", *QUICK, "--json", "-"]
    done = subprocess.run(
        command,
        input=bundle.read_bytes(),
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    found = Profile.parse(done.stdout.decode())  # nothing else is on standard output
    assert [row.stage for row in found.stages] == ["local"]
    assert b"local step" in done.stderr


def test_a_stage_that_fails_is_missing_and_the_others_go_on(tmp_path):
    write_bundle(tmp_path / "device.bundle", weights=(float("inf"), 1.0))
    _, found = profile("--bundle", tmp_path / "device.bundle", "--stages", "local,sensor", folder=tmp_path)
    assert [row.stage for row in found.stages] == ["sensor"]
    assert "diverged" in found.missing[0].why


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "there is nothing to measure: give --config device.toml or --bundle FILE"),
        (["--bundle", "nowhere.bundle"], "there is no bundle at "),
        (["--bundle", "device.bundle", "--batch", "0"], "--batch 0: it must be from 1 to 65536"),
        (["--bundle", "device.bundle", "--json", "no/where.json"], "is no folder"),
        (["--config", "device.toml", "--batch", "1,65"], "the device has 64 samples, a batch of 65 is asked for"),
    ],
)
def test_mistakes_are_sentences(options, sentence, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.normal(size=(64, 2)).astype(np.float32), y=np.arange(64) % 2)
    config = configure(tmp_path)
    config.write_text(config.read_text().replace("synthetic:64", "own.npz"))
    assert main(["profile", *options, *QUICK, "--stages", "sensor"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_device_with_a_certificate_is_not_thrown_off_by_its_own_profile(bundle, tmp_path):
    """The broker lets one connection in for a certificate: while the agent runs the stage is missing, with the reason."""
    for name in ("ca.pem", "id.pem", "id.key"):
        (tmp_path / name).touch()
    path = configure(tmp_path, 'mqtts://127.0.0.1:9"\nca = "ca.pem"\ncertificate = "id.pem"\nkey = "id.key')
    outbox = Outbox.open(tmp_path / "state")
    try:
        _, found = profile("--config", path, "--stages", "send", folder=tmp_path)
    finally:
        outbox.close()
    assert not found.stages
    why = f"runs as process {os.getpid()}, and the broker lets one connection in for its certificate: stop the agent"
    assert why in found.missing[0].why
