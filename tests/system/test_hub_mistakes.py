"""What users of a hub get wrong: a plain sentence on stderr that says what would be right, and exit code 2."""

import json
import socket

import pytest

from hub.__main__ import main

UNUSED = "mqtt://127.0.0.1:9"


@pytest.fixture
def serve(call, trial):
    return lambda *options: call(main, "serve", "--config", trial.root / "hub.toml", *options)


def test_a_mistake_of_a_real_process_is_one_line_and_no_traceback(trial):
    trial.write_hub(broker={"url": UNUSED})
    hub = trial.start_hub()
    assert hub.wait(30) == 2
    assert hub.stderr() == f"cutlayer-hub serve: no broker answers at {UNUSED}: connection refused\n"


def test_a_port_that_is_in_use(trial, serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        trial.write_hub(broker={"url": "embedded", "port": port})
        serve().mistake(f"port {port} is in use")


def test_every_wrong_key_of_a_configuration_is_named_at_once(trial, serve):
    trial.write_hub(run={"rounds": 0, "codec": "float8"}, fleet={"devises": 3}, strategy={"kappa": 1.5})
    said = serve().mistake("hub.toml")
    for words in (
        ("rounds = 0", "from 1 to"),
        ("codec", "float8", "quantised:K"),
        ("devises", "did you mean devices"),
        ("kappa = 1.5", "from 0 to 1"),
    ):
        assert any(all(word in line for word in words) for line in said.splitlines()), (words, said)


def test_strategies_and_options_that_are_not_there(trial, serve):
    trial.write_hub(run={"strategy": "adasplat"})
    serve().mistake("there is no strategy 'adasplat'; known are adasplit, fedavg, fednova, fedprox, ")
    trial.write_hub(strategy={"etta": 0.5})
    serve().mistake("hub.toml", "etta", "did you mean eta")
    trial.write_hub(strategy={"handover": True, "select_every": 2})
    serve().mistake("select_every = 2: must be 1")


def test_a_password_file_without_a_password(trial, serve):
    (trial.root / "password").touch()
    trial.write_hub(broker={"username": "me", "password_file": "password"})
    serve().mistake("password", "empty")
    trial.write_hub(broker={"username": "me", "password_file": "none"})
    serve().mistake("password_file", "none")


def test_a_bundle_that_is_missing_or_damaged(trial, serve):
    trial.write_hub(bundle={"path": "none.bundle"})
    serve().mistake("none.bundle")
    data = trial.material.hub_bundle.read_bytes()
    (trial.root / "damaged.bundle").write_bytes(data[: len(data) // 2])
    trial.write_hub(bundle={"path": "damaged.bundle"})
    serve().mistake("damaged.bundle")
    trial.write_hub(bundle={"path": trial.material.device_bundle})
    serve().mistake("device.bundle")


def test_a_bundle_that_was_built_for_other_methods(trial, serve):
    trial.write_hub(run={"strategy": "scaffold"}, strategy={"kappa": None, "masks": None})
    serve().mistake(
        "the strategy scaffold needs a bundle with the objective 'control_variates' and the optimizer 'sgd'",
        "this one has 'contrastive' and 'adam'",
        "cutlayer-export build --objective control_variates --optimizer sgd",
    )


def test_a_folder_that_holds_a_run_already_is_not_written_over(trial, serve):
    trial.write_hub()
    trial.folder.mkdir()
    kept = json.dumps({"record": "run"}) + "\n"
    (trial.folder / "metrics.jsonl").write_text(kept)
    serve().mistake(f"{trial.folder} already holds a run: resume it with --resume or name another folder")
    serve("--resume").mistake(f"{trial.folder} holds no checkpoint to resume from")
    assert (trial.folder / "metrics.jsonl").read_text() == kept


def test_a_damaged_checkpoint(trial, serve):
    trial.write_hub()
    trial.folder.mkdir()
    (trial.folder / "checkpoint.pt").write_bytes(b"PK\x03\x04 and then nothing")
    serve("--resume").mistake("checkpoint.pt cannot be read")


def test_a_folder_that_cannot_be(trial, serve):
    trial.write_hub(run={"folder": "/dev/null/run"})
    serve().mistake("the run's folder /dev/null/run cannot be used")
    trial.write_hub(run={"folder": "/dev/null/run"}, broker={"url": "embedded"})
    serve().mistake("/dev/null/run")


DEMO = {
    "unknown data set": ({"--dataset": "digit"}, "unknown data set 'digit'", "wearables, digits"),
    "too many devices": ({"--dataset": "wearables", "--devices": "11"}, "11", "10"),
    "own data without a model": ({"--dataset": "tests.own:source"}, "tests.own"),
    "no folder of files": ({"--dataset": "idx"}, "give their folder"),
    "unknown strategy": ({"--strategy": "adasplat"}, "there is no strategy 'adasplat'; known are adasplit"),
    "option out of range": ({"--set": "eta=2"}, "eta = 2", "from 0 to 1"),
    "unknown option": ({"--set": "etta=1"}, "etta", "did you mean eta"),
    "option of another type": ({"--set": "replay=often"}, "replay", "often", "a whole number"),
    "option without a value": ({"--set": "replay"}, "'replay' is not OPTION=VALUE"),
    "no rounds": ({"--rounds": "0"}, "0 is less than 1"),
    "unknown codec": ({"--codec": "float8"}, "float8", "quantised"),
    "unknown broker": ({"--broker": "rabbit"}, "rabbit", "embedded"),
    "broker that is not there": ({"--broker": UNUSED}, f"no broker answers at {UNUSED}"),
    "unknown model": ({"--model": "export.models:Nothing", "--cut": "a", "--bundle": None}, "Nothing"),
    "unknown cut": ({"--cut": "pool9", "--bundle": None}, "pool9"),
    "folder that cannot be": ({"--out": "/dev/null/run"}, "/dev/null/run"),
    "folder of a bundle without one": ({"--bundle": "/nowhere"}, "/nowhere"),
}


@pytest.mark.parametrize("case", DEMO)
def test_a_demo_that_cannot_be(call, tmp_path, monkeypatch, material, case):
    changes, *words = DEMO[case]
    monkeypatch.chdir(tmp_path)
    usual = {
        "--dataset": "digits",
        "--devices": "2",
        "--rounds": "1",
        "--out": tmp_path / "run",
        "--bundle": material.hub_bundle.parent,
    }
    options = {option: value for option, value in {**usual, **changes}.items() if value is not None}
    call(main, "demo", *(part for pair in options.items() for part in pair)).mistake(*words)


def test_a_demo_does_not_write_over_a_folder(call, tmp_path):
    (tmp_path / "mine").write_text("kept")
    call(main, "demo", "--out", tmp_path).mistake(f"{tmp_path} exists already: name another folder")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_demo_without_mosquitto(call, tmp_path, monkeypatch):
    monkeypatch.setattr("hub.broker.find_mosquitto", lambda: None)
    bundle = ["--bundle", "/nowhere"]
    call(main, "demo", "--dataset", "digits", "--broker", "mosquitto", *bundle, "--out", tmp_path / "run").mistake(
        "mosquitto is not installed: install the package mosquitto, or choose the embedded broker"
    )


def test_a_report_of_what_is_no_run(call, tmp_path):
    call(main, "report", tmp_path).mistake(str(tmp_path), "metrics.jsonl")
    (tmp_path / "metrics.jsonl").write_text('{"record": "round", "round": 1}\n')
    call(main, "report", tmp_path).mistake("no 'run' record")
