"""What users get wrong: a plain sentence on stderr that says what would be right, exit code 2, and no traceback."""

import json
import socket
import zipfile

import numpy as np
import pytest

from tests.system.trial import Material

UNUSED = "mqtt://127.0.0.1:9"


def sentence(child, *parts):
    """The command has ended with code 2; every part is in what it said."""
    assert child.wait(30) == 2, child.said()
    said = child.stderr()
    assert "Traceback" not in said, said
    for part in parts:
        assert part in said, f"{part!r} is not in:\n{said}"
    return said


def run(trial, path, environ=None):
    return trial.children.python("-m", "edge", "run", "--config", path, environ=environ)


def serve(trial, *options):
    return trial.children.python("-m", "hub", "serve", "--config", trial.root / "hub.toml", *options)


# The device's configuration -------------------------------------------------------------------------------------


def test_a_configuration_that_is_not_there(trial):
    sentence(run(trial, trial.root / "nowhere.toml"), "cutlayer run: ", "nowhere.toml", "No such file")


def test_every_wrong_key_of_a_configuration_is_named_at_once(trial):
    path = trial.write_device(
        "device-01",
        broker={"url": "http://example.org", "keepalive_second": 20},
        run={"threads": 0, "checkpoint_steps": "many"},
    )
    said = sentence(run(trial, path), "device.toml")
    assert "keepalive_second" in said
    assert "keepalive_seconds" in said, "what was probably meant"
    assert "http://example.org" in said
    assert "mqtt://" in said
    assert "threads" in said
    assert "from 1 to 64" in said
    assert "checkpoint_steps" in said
    assert "a whole number" in said


def test_a_configuration_that_is_no_toml(trial):
    path = trial.write_device("device-01")
    path.write_text("[device\nname = 1")
    sentence(run(trial, path), "device.toml is not valid TOML", "line 1")


def test_a_wrong_value_in_the_environment(trial):
    path = trial.write_device("device-01")
    sentence(run(trial, path, {"CUTLAYER_RUN_THREADS": "none"}), "CUTLAYER_RUN_THREADS", "none", "from 1 to 64")


def test_a_password_file_without_a_password(trial):
    (trial.root / "password").touch()
    path = trial.write_device("device-01", broker={"username": "me", "password_file": trial.root / "password"})
    sentence(run(trial, path), "password")


def test_a_state_directory_that_is_a_file(trial):
    path = trial.write_device("device-01")
    (trial.root / "device-01" / "state").touch()
    sentence(run(trial, path), "the state directory", "state")


# Bundle and data ------------------------------------------------------------------------------------------------


def test_a_bundle_that_is_not_there(trial):
    path = trial.write_device("device-01", bundle={"path": "none.bundle"})
    sentence(run(trial, path), "there is no bundle at", "none.bundle")


def cut_short(data):
    return data[: len(data) // 2]


def one_byte_changed(data):
    """In the middle of a graph, with the archive's own checksums put right: only the manifest's hash can tell."""
    import io

    source = zipfile.ZipFile(io.BytesIO(data))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            member = bytearray(source.read(info))
            if info.filename == "graphs/local.onnx":
                member[len(member) // 2] ^= 1
            target.writestr(info, bytes(member))
    return out.getvalue()


def empty(_data):
    return b""


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_short, "is not a bundle this release can read"),
        (one_byte_changed, "graphs/local.onnx has SHA-256"),
        (empty, "is not a bundle this release can read"),
    ],
)
def test_a_damaged_bundle(trial, damage, words):
    (trial.root / "damaged.bundle").write_bytes(damage(trial.material.device_bundle.read_bytes()))
    path = trial.write_device("device-01", bundle={"path": trial.root / "damaged.bundle"})
    sentence(run(trial, path), "damaged.bundle", words)


GOOD = {"x": np.zeros((40, 1, 8, 8), np.float32), "y": np.arange(40) % 10}
DATA = {
    "no samples": ({**GOOD, "x": GOOD["x"][:0], "y": GOOD["y"][:0]}, "holds no samples"),
    "another shape": ({**GOOD, "x": np.zeros((40, 8, 8), np.float32)}, "x is (40, 8, 8), the bundle wants (n, 1, 8, 8)"),
    "a label out of range": ({**GOOD, "y": GOOD["y"] + 1}, "label 10 at row 9", "0..9"),
    "not a number": ({**GOOD, "x": np.full_like(GOOD["x"], np.nan)}, "not finite", "row 0"),
    "no labels": ({"x": GOOD["x"]}, "has no y"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_trained_on(trial, case):
    arrays, *words = DATA[case]
    np.savez(trial.root / "data.npz", **arrays)
    path = trial.write_device("device-01", data={"source": trial.root / "data.npz"})
    sentence(run(trial, path), "data.npz", *words)


def test_an_empty_data_file_and_one_that_is_not_there(trial):
    (trial.root / "data.npz").touch()
    path = trial.write_device("device-01", data={"source": trial.root / "data.npz"})
    sentence(run(trial, path), "data.npz is empty (0 bytes)")
    (trial.root / "data.npz").unlink()
    sentence(run(trial, path), "data.npz", "No such file")


def test_check_says_what_is_wrong_without_a_hub(trial):
    path = trial.write_device("device-01", data={"source": "none.npz"})
    check = trial.children.python("-m", "edge", "check", "--config", path)
    assert check.wait(30) == 1
    assert check.stderr() == ""
    lines = check.stdout().splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["ok", "processor"], ["ok", "packages"], ["ok", "bundle"], ["wrong", "data"], ["wrong", "steps"],
    ]  # fmt: skip
    assert "none.npz" in lines[3]


# Broker and hub -------------------------------------------------------------------------------------------------


def test_a_broker_that_is_not_there(trial):
    path = trial.write_device("device-01", broker={"url": UNUSED})
    sentence(run(trial, path), f"no broker answers at {UNUSED}: connection refused")
    trial.write_hub(broker={"url": UNUSED})
    sentence(serve(trial), f"cutlayer-hub serve: no broker answers at {UNUSED}: connection refused")


def test_a_port_that_is_in_use(trial):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        trial.write_hub(broker={"url": "embedded", "port": port})
        sentence(serve(trial), f"port {port} is in use")


def test_a_device_with_another_bundle_than_the_hubs(trial, make_bundle):
    trial.write_hub(fleet={"devices": 1, "gather_seconds": 8.0})
    hub = trial.start_hub()
    path = trial.write_device("device-01", bundle={"path": make_bundle(seed=1).device})
    said = sentence(run(trial, path), "device 'device-01' has bundle", "install the bundle of this run")
    assert hub.wait(30) == 2
    assert "0 of 1 devices came within 8 s; at least 1 are needed" in hub.stderr()
    assert said.splitlines()[-1].removeprefix("cutlayer run: ") in hub.stderr(), "the hub says the same"


def test_wrong_strategies_and_options(trial):
    trial.write_hub(run={"strategy": "adasplat"})
    sentence(serve(trial), "there is no strategy 'adasplat'; known are adasplit, split_learning")
    trial.write_hub(strategy={"kappa": 1.5, "ets": 0.5})
    said = sentence(serve(trial), "hub.toml", "kappa", "1.5", "from 0 to 1")
    assert "did you mean eta" in said
    trial.write_hub(strategy={"handover": True, "select_every": 2})
    sentence(serve(trial), "select_every = 2: must be 1")


def test_a_hub_bundle_that_is_missing_or_damaged(trial, tmp_path):
    trial.write_hub(bundle={"path": "none.bundle"})
    sentence(serve(trial), "none.bundle")
    data = trial.material.hub_bundle.read_bytes()
    (tmp_path / "damaged.bundle").write_bytes(cut_short(data))
    trial.write_hub(bundle={"path": "damaged.bundle"})
    sentence(serve(trial), "damaged.bundle")


def test_a_folder_that_holds_a_run_already_is_not_written_over(trial):
    trial.write_hub()
    trial.folder.mkdir()
    (trial.folder / "metrics.jsonl").write_text(json.dumps({"record": "run"}) + "\n")
    sentence(serve(trial), f"{trial.folder} already holds a run: resume it with --resume or name another folder")
    sentence(serve(trial, "--resume"), f"{trial.folder} holds no checkpoint to resume from")
    assert (trial.folder / "metrics.jsonl").read_text() == '{"record": "run"}\n'


def test_a_checkpoint_that_is_damaged(trial):
    trial.write_hub()
    trial.folder.mkdir()
    (trial.folder / "checkpoint.pt").write_bytes(b"PK\x03\x04 and then nothing")
    sentence(serve(trial, "--resume"), "the checkpoint", "checkpoint.pt cannot be read")


# The demo -------------------------------------------------------------------------------------------------------

DEMO = {
    "unknown data set": (["--dataset", "digit"], "unknown data set 'digit'", "wearables, digits"),
    "too many devices": (["--devices", "11"], "11", "10"),
    "unknown strategy": (["--strategy", "adasplat"], "there is no strategy 'adasplat'; known are"),
    "option out of range": (["--set", "eta=2"], "eta", "2", "from 0 to 1"),
    "unknown option": (["--set", "etta=1"], "etta", "did you mean eta"),
    "option of another type": (["--set", "replay=often"], "replay", "often"),
    "unknown broker": (["--broker", "rabbit"], "rabbit", "embedded"),
    "broker not there": (["--broker", UNUSED], f"no broker answers at {UNUSED}"),
    "unknown codec": (["--codec", "float8"], "float8", "quantised"),
    "own data without a model": (["--dataset", "tests.own:source"], "tests.own"),
    "unknown model": (["--dataset", "digits", "--model", "export.models:Nothing", "--cut", "a"], "Nothing"),
    "unknown cut": (["--dataset", "digits", "--cut", "pool9"], "pool9"),
    "folder that cannot be": (["--out", "/dev/null/run"], "/dev/null/run"),
}


@pytest.mark.parametrize("case", DEMO)
def test_a_demo_that_cannot_be(children, tmp_path, case):
    options, *words = DEMO[case]
    out = [] if "--out" in options else ["--out", tmp_path / "run"]
    said = sentence(children.python("-m", "hub", "demo", *options, *out), "cutlayer-hub demo: ", *words)
    assert len(said.splitlines()) == 1


def test_a_demo_does_not_write_over_a_folder(children, tmp_path):
    (tmp_path / "mine").write_text("kept")
    said = sentence(children.python("-m", "hub", "demo", "--out", tmp_path), "exists already: name another folder")
    assert str(tmp_path) in said
    assert [path.name for path in tmp_path.iterdir() if path.name != "processes"] == ["mine"]


def test_a_report_of_what_is_no_run(children, tmp_path):
    sentence(children.python("-m", "hub", "report", tmp_path), "metrics.jsonl")
