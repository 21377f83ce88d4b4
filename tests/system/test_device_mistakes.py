"""What users of a device get wrong: a plain sentence on stderr that says what would be right, and exit code 2."""

import io
import zipfile

import numpy as np
import pytest

from edge.__main__ import main
from tests.tiny import write_bundle

UNUSED = "mqtt://127.0.0.1:9"


@pytest.fixture
def run(call):
    return lambda path: call(main, "run", "--config", path)


def test_a_mistake_of_a_real_process_is_one_line_and_no_traceback(trial):
    path = trial.write_device("device-01", bundle={"path": "none.bundle"})
    device = trial.children.python("-m", "edge", "run", "--config", path)
    assert device.wait(20) == 2
    assert device.stderr() == f"cutlayer run: there is no bundle at {path.parent / 'none.bundle'}\n"
    assert device.stdout() == ""


# The configuration ----------------------------------------------------------------------------------------------


def test_a_configuration_that_is_not_there(trial, run):
    run(trial.root / "nowhere.toml").mistake("nowhere.toml", "No such file")


def test_every_wrong_key_of_a_configuration_is_named_at_once(trial, run):
    path = trial.write_device(
        "device-01",
        broker={"url": "http://example.org", "keepalive_second": 20},
        run={"threads": 0, "checkpoint_steps": "many"},
    )
    said = run(path).mistake("device.toml")
    for words in (
        ("http://example.org", "mqtt://"),
        ("keepalive_second", "did you mean keepalive_seconds"),
        ("threads = 0", "from 1 to 64"),
        ("checkpoint_steps", "many", "a whole number"),
    ):
        assert any(all(word in line for word in words) for line in said.splitlines()), (words, said)


def test_a_configuration_that_is_no_toml(trial, run):
    path = trial.write_device("device-01")
    path.write_text("[device\nname = 1")
    run(path).mistake("device.toml is not valid TOML", "line 1")


def test_a_wrong_value_in_the_environment(trial, run, monkeypatch):
    monkeypatch.setenv("CUTLAYER_RUN_THREADS", "none")
    run(trial.write_device("device-01")).mistake("CUTLAYER_RUN_THREADS", "none", "from 1 to 64")


def test_a_password_file_without_a_password(trial, run):
    secret = trial.root / "password"
    secret.touch()
    run(trial.write_device("device-01", broker={"username": "me", "password_file": secret})).mistake(
        "password", "empty"
    )


def test_a_state_directory_that_is_a_file(trial, run):
    path = trial.write_device("device-01")
    (trial.root / "device-01" / "state").touch()
    run(path).mistake("the state directory", "cannot be used")


def test_a_state_directory_with_a_damaged_outbox(trial, run):
    path = trial.write_device("device-01")
    state = trial.root / "device-01" / "state"
    state.mkdir()
    (state / "outbox.sqlite").write_bytes(b"no database" * 1000)
    run(path).mistake("outbox.sqlite cannot be used", "not a database")


# The bundle -----------------------------------------------------------------------------------------------------


def cut_short(data):
    return data[: len(data) // 2]


def emptied(_data):
    return b""


def one_bit_turned(data):
    """In a graph, with the archive's own checksums put right: only the manifest's hash can tell."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for info in source.infolist():
            member = bytearray(source.read(info))
            if info.filename == "graphs/local.onnx":
                member[len(member) // 2] ^= 1
            target.writestr(info.filename, bytes(member))
    return out.getvalue()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut_short, "is not a bundle this release can read"),
        (emptied, "is not a bundle this release can read"),
        (one_bit_turned, "graphs/local.onnx has SHA-256"),
    ],
)
def test_a_damaged_bundle(trial, run, damage, words):
    (trial.root / "damaged.bundle").write_bytes(damage(trial.material.device_bundle.read_bytes()))
    run(trial.write_device("device-01", bundle={"path": trial.root / "damaged.bundle"})).mistake(
        "damaged.bundle", words
    )


def test_a_bundle_too_large_for_this_board(trial, run, call):
    needs = {"local": {"fixed_bytes": 1 << 50, "sample_bytes": 1 << 20}}
    write_bundle(trial.root / "large.bundle", memory=needs)
    path = trial.write_device("device-01", bundle={"path": trial.root / "large.bundle"})
    run(path).mistake("the local graph with a batch of 1 needs about 1073741896 MiB", "not even a batch of 1 fits")
    checked = call(main, "check", "--config", path)
    assert checked.code == 1
    assert "wrong memory    the local graph with a batch of 1 needs about" in checked.stdout


# The data -------------------------------------------------------------------------------------------------------

X, Y = np.zeros((40, 1, 8, 8), np.float32), np.arange(40) % 10
DATA = {
    "no samples": ({"x": X[:0], "y": Y[:0]}, "holds no samples"),
    "another shape": ({"x": X[:, 0], "y": Y}, "x is (40, 8, 8), the bundle wants (n, 1, 8, 8)"),
    "a label out of range": ({"x": X, "y": Y + 1}, "label 10 at row 9", "10 classes: 0..9"),
    "not a number": ({"x": np.full_like(X, np.nan), "y": Y}, "not finite", "row 0"),
    "no labels": ({"x": X}, "has no y"),
    "python objects": ({"x": X.astype(object), "y": Y}, "Python objects, which are never loaded"),
}


@pytest.mark.parametrize("case", DATA)
def test_data_that_cannot_be_trained_on(trial, run, case):
    arrays, *words = DATA[case]
    np.savez(trial.root / "data.npz", **arrays)
    run(trial.write_device("device-01", data={"source": trial.root / "data.npz"})).mistake("data.npz", *words)


def test_an_empty_data_file_and_one_that_is_not_there(trial, run):
    path = trial.write_device("device-01", data={"source": trial.root / "data.npz"})
    run(path).mistake("data.npz", "No such file")
    (trial.root / "data.npz").touch()
    run(path).mistake("data.npz is empty (0 bytes)")


def test_check_goes_on_and_says_all_that_is_wrong(trial, call):
    path = trial.write_device("device-01", data={"source": "none.npz"})
    answer = call(main, "check", "--config", path)
    assert (answer.code, answer.stderr) == (1, "")
    lines = [line.split(maxsplit=2) for line in answer.stdout.splitlines()]
    assert [(verdict, subject) for verdict, subject, _ in lines] == [
        ("ok", "processor"),
        ("ok", "packages"),
        ("ok", "bundle"),
        *[("ok", "memory")] * 5,
        ("wrong", "data"),
        ("ok", "budget"),
        ("ok", "energy"),
        ("wrong", "steps"),
    ]
    assert "MiB by" in lines[3][2]
    assert "local: about" in lines[7][2]
    assert "none.npz" in lines[8][2]


# The broker and the hub -----------------------------------------------------------------------------------------


def test_a_broker_that_is_not_there(trial, run):
    run(trial.write_device("device-01", broker={"url": UNUSED})).mistake(
        f"no broker answers at {UNUSED}: connection refused"
    )


def test_a_device_with_another_bundle_than_the_hubs_is_told_the_hubs_sentence(trial, make_bundle):
    trial.write_hub(fleet={"devices": 1, "gather_seconds": 3.0})
    trial.write_device("device-01", bundle={"path": make_bundle(seed=1).device})
    device = trial.start_device("device-01")
    hub = trial.start_hub()

    assert device.wait(30) == 2, device.said()
    last = device.stderr().splitlines()[-1].removeprefix("cutlayer run: ")
    ours, theirs = make_bundle().id[:8], make_bundle(seed=1).id[:8]
    assert last == f"device 'device-01' has bundle {theirs}, this run uses {ours}: install the bundle of this run"
    assert last in hub.stderr()
    assert hub.wait(30) == 2
    assert "0 of 1 devices came within 3 s; at least 1 are needed" in hub.stderr()
