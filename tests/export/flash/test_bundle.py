"""From a bundle, wheels and a key to a release: what is in it, that it is the same again, and what is refused."""

import io
import json
import re
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.release.archive import Accepts, open_release
from edge.release.manifest import ReleaseError, environment_of
from edge.release.signatures import fingerprint
from export.__main__ import main
from export.errors import ExportError
from export.flash import agent, bundle_command, history, wheels
from export.flash.boards import BOARDS
from export.flash.errors import FlashError
from export.flash.history import Wish, read
from tests.export.flash.make import NOW, write_key, write_wheel
from tests.export.flash.make import workshop as workshop  # noqa: PLC0414  a fixture
from tests.tiny import write_bundle

OURS = Accepts(fleet="fleet", board="pi5", architecture="aarch64", python="3.13")


def contents(path, public, now=NOW):
    """The verified contents of a release by path, and its manifest."""
    with open_release(path, [public], now=now, accepts=OURS) as release:
        found = {}
        for name, file in release.manifest.files.items():
            to = io.BytesIO()
            if file.sha256 in release.present:
                release.copy(file.sha256, to)
                found[name] = to.getvalue()
        return found, release.manifest


def test_a_release_has_all_that_a_board_runs(workshop):
    written = workshop.build()
    found, manifest = contents(written.path, workshop.public)
    assert manifest == written.manifest
    assert found["device.bundle"] == workshop.bundle.read_bytes()
    with zipfile.ZipFile(workshop.bundle) as archive:
        assert manifest.bundle == sha256(archive.read("manifest.json")).hexdigest()
    assert {name for name in found if name.startswith("wheels/")} == {
        "wheels/numbers-1.0-py3-none-any.whl", "wheels/board-1.0-cp313-cp313-manylinux_2_28_aarch64.whl"
    }  # fmt: skip
    assert manifest.environment == environment_of(manifest.files)
    own = sum(len(data) for name, data in found.items() if not name.startswith("wheels/"))
    assert own < 1_300_000
    assert {name.partition("/")[0] for name in found} <= {
        "device.bundle",
        "agent.zip",
        "installer.pyz",
        "wheels",
        "units",
    }
    assert (manifest.version, manifest.issued, manifest.expires) == (1, NOW, NOW + timedelta(days=180))
    assert written.signers == (fingerprint(workshop.public),)


def test_the_same_inputs_give_the_same_bytes(workshop):
    first = workshop.build()
    again = workshop.build(NOW + timedelta(days=9), out=workshop.root / "again.release")
    assert first.path.read_bytes() == again.path.read_bytes()
    dates = Wish(issued=NOW, expires=NOW + timedelta(days=180), version=1)
    (workshop.fleet / "releases.json").unlink()
    elsewhere = workshop.build(NOW + timedelta(days=3), out=workshop.root / "elsewhere.release", wish=dates)
    assert first.path.read_bytes() == elsewhere.path.read_bytes()


def test_versions_count_up_and_stay_with_their_contents(workshop):
    assert workshop.build().manifest.version == 1
    first = workshop.bundle.read_bytes()
    workshop.bundle.unlink()
    write_bundle(workshop.bundle, weights=(7.0, 8.0))
    second = workshop.build(NOW + timedelta(hours=1)).manifest
    assert (second.version, second.issued) == (2, NOW + timedelta(hours=1))
    assert workshop.build(NOW + timedelta(hours=2)).manifest == second
    workshop.bundle.write_bytes(first)
    assert workshop.build(NOW + timedelta(hours=3)).manifest.version == 1
    assert workshop.build(NOW, fleet="other").manifest.version == 1
    assert workshop.build(NOW, wish=Wish(version=9)).manifest.version == 9
    assert workshop.build(NOW, board="pi4").manifest.version == 10
    assert [row.version for row in read(workshop.fleet)] == [1, 2, 1, 9, 10]
    with pytest.raises(FlashError, match=r"version 2 of fleet fleet is the release .* already"):
        workshop.build(NOW, wish=Wish(version=2))


def test_what_has_expired_gets_a_new_version(workshop):
    first = workshop.build().manifest
    later = workshop.build(first.expires).manifest
    assert (later.version, later.issued) == (2, first.expires)
    with pytest.raises(ReleaseError, match="would be refused everywhere"):
        workshop.build(wish=Wish(version=5, expires=NOW, issued=NOW - timedelta(days=2)))
    with pytest.raises(ReleaseError, match="before it was issued"):
        workshop.build(wish=Wish(version=5, expires=NOW - timedelta(days=3), issued=NOW))


def test_an_update_of_the_graphs_has_the_graphs_only(workshop):
    old = workshop.build(out=workshop.root / "old.release").path
    workshop.bundle.unlink()
    write_bundle(workshop.bundle, weights=(7.0, 8.0))
    written = workshop.build(since=old)
    found, manifest = contents(written.path, workshop.public)
    assert list(found) == ["device.bundle"]
    assert written.left_out == tuple(sorted(set(manifest.files) - {"device.bundle"}))
    assert written.path.stat().st_size < workshop.bundle.stat().st_size + 5_000
    assert workshop.build(out=workshop.root / "whole.release").manifest == manifest
    # What the old one lacks itself, its boards have.
    assert workshop.build(since=written.path).left_out == tuple(sorted(manifest.files))
    with pytest.raises(FlashError, match=r"old\.release is for the board pi5, this release for pi4"):
        workshop.build(since=old, board="pi4")


def test_two_keys_sign_side_by_side(workshop):
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    second = write_key(workshop.root / "new.key", other)
    path = workshop.build(keys=(workshop.key, second)).path
    for public in (workshop.public, other.public_key().public_bytes_raw()):
        assert contents(path, public)[1].version == 1


def test_the_installer_runs_on_a_bare_python(workshop, tmp_path):
    now = datetime.now(UTC)
    found, _ = contents(workshop.build(now).path, workshop.public, now)
    installer = tmp_path / "installer.pyz"
    installer.write_bytes(found["installer.pyz"])
    assert found["installer.pyz"].startswith(b"#!/usr/bin/env python3\n")
    # -I -S: no folder of packages, no PYTHONPATH; what is not in the standard library is not there.
    command = [sys.executable, "-I", "-S", installer, "check", workshop.root / "pi5.release", "--keys"]
    done = subprocess.run([*command, workshop.fleet / "release.pub"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "for pi5, aarch64, Python 3.13" in done.stdout
    (tmp_path / "strange").write_text("00" * 32)
    done = subprocess.run([*command, tmp_path / "strange"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"installer\.pyz: .*pi5\.release: it is signed by the key .*\n", done.stderr)


def test_two_at_once_do_not_get_the_same_version(workshop, monkeypatch):
    note = history.note

    def slow(*arguments):
        time.sleep(0.2)
        note(*arguments)

    monkeypatch.setattr(history, "note", slow)
    wishes = [{"out": workshop.root / f"{text}.release", "minimum_agent": text} for text in ("0.1.0", "0.2.0", "0.3.0")]
    with ThreadPoolExecutor(3) as pool:
        written = list(pool.map(lambda changes: workshop.build(**changes), wishes))
    assert sorted(one.manifest.version for one in written) == [1, 2, 3]
    assert [row.version for row in history.read(workshop.fleet)] == [1, 2, 3]


def test_the_agent_knows_its_version_and_has_no_tests(workshop, tmp_path):
    found, manifest = contents(workshop.build().path, workshop.public)
    with zipfile.ZipFile(io.BytesIO(found["agent.zip"])) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "agent")
    assert {name.partition("/")[0] for name in names} == {"edge", f"cutlayer-{manifest.cutlayer}.dist-info"}
    assert "edge/agent.py" in names
    for name in ("agent.zip", "installer.pyz"):  # or other machines' zlib would make other bytes of it
        with zipfile.ZipFile(io.BytesIO(found[name])) as archive:
            assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    assert not [name for name in names if name.endswith((".pyc", ".md")) or "__pycache__" in name or "test" in name]
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'agent')!r}); import importlib.metadata as m, edge.wire.topics as t; print(m.version('cutlayer'), t.__file__)"  # fmt: skip
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [manifest.cutlayer, str(tmp_path / "agent/edge/wire/topics.py")]


def test_units_come_from_the_package(tmp_path):
    (tmp_path / "release" / "units").mkdir(parents=True)
    for name in ("cutlayer.service", "cutlayer-install.path", "README.md"):
        (tmp_path / "release" / "units" / name).write_text(name)
    assert agent.units(tmp_path) == {"cutlayer.service": b"cutlayer.service", "cutlayer-install.path": b"cutlayer-install.path"}  # fmt: skip


def test_a_key_that_cannot_be_used_is_a_sentence(workshop, tmp_path):
    cases = {
        "none": (lambda _: None, "cannot be read: No such file or directory; cutlayer-hub keys makes one"),
        "open": (lambda path: write_key(path, mode=0o640), r"can be used by others \(mode 0640\): chmod 600 it"),
        "other": (lambda path: write_key(path, ec.generate_private_key(ec.SECP256R1())), "is no Ed25519 key"),
        "text": (lambda path: (path.write_text("key"), path.chmod(0o600)), "is no private key in PEM"),
    }
    for name, (make, sentence) in cases.items():
        make(tmp_path / name)
        with pytest.raises(FlashError, match=sentence):
            workshop.build(keys=(tmp_path / name,))
    assert not (workshop.root / "pi5.release").exists()
    assert read(workshop.fleet) == ()


def test_a_bundle_that_cannot_be_used_is_a_sentence(workshop):
    with pytest.raises(ExportError, match="there is no bundle"):
        workshop.build(bundle=workshop.root / "none")
    with pytest.raises(ExportError, match=r"there is no bundle .*locks/device\.bundle"):
        workshop.build(bundle=workshop.locks)
    with pytest.raises(FlashError, match=r"is no device.bundle.*has no manifest.json"):
        workshop.build(bundle=workshop.wheels / workshop.lines[0].file)
    with zipfile.ZipFile(workshop.bundle) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith(".onnx"))
    with zipfile.ZipFile(workshop.bundle, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data + b"x" if member == name else data)
    with pytest.raises(FlashError, match=f"is damaged: {name} is missing or does not have its hash"):
        workshop.build()


def test_a_damaged_history_is_not_guessed_at(workshop):
    workshop.build()
    path = workshop.fleet / "releases.json"
    for text in ("", "{}", '{"releases":[{"version":1}]}', path.read_text().replace('"version": 1', '"version": "1"')):
        path.write_text(text)
        with pytest.raises(FlashError, match=r"releases\.json"):
            workshop.build(board="pi4")
        assert path.read_text() == text


def test_an_old_release_of_a_stranger_is_refused(workshop):
    old = workshop.build(out=workshop.root / "old.release").path
    stranger = write_key(workshop.root / "stranger.key", Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(ReleaseError, match="it is signed by the key"):
        workshop.build(keys=(stranger,), since=old)


@pytest.mark.parametrize("architecture", sorted({board.architecture for board in BOARDS.values()}))
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_there_is_a_lock_for_every_board_in_the_tested_versions(architecture, python):
    pins = dict(re.findall(r"^(\S+)==(\S+)$", (wheels.LOCKS.parents[2] / "constraints.txt").read_text(), re.MULTILINE))
    lock = wheels.read_lock(architecture, python)
    assert {wheel.name: wheel.version for wheel in lock} == {
        name: pins[name]
        for name in ("flatbuffers", "numpy", "onnxruntime", "packaging", "paho-mqtt", "protobuf", "psutil")
    }
    for wheel in lock:
        _, _, interpreters, abi, platforms = wheel.file.removesuffix(".whl").split("-")
        assert platforms == "any" or all(platform.endswith(f"_{architecture}") for platform in platforms.split("."))
        assert abi in {"none", "abi3"} or interpreters == abi == "cp" + python.replace(".", "")
    # A release is to be below 45 MB; agent, installer, units and graphs have what the wheels leave.
    assert sum(wheel.bytes for wheel in lock) < 43_500_000


def test_a_lock_that_is_missing_or_broken_is_a_sentence(workshop):
    with pytest.raises(FlashError, match=r"there is no lock of wheels for aarch64 and Python 3\.12"):
        workshop.build(python="3.12")
    (workshop.locks / "aarch64-3.13.txt").write_text("# fine\nnumpy==2.4.6\n")
    with pytest.raises(FlashError, match="line 2 is not a wheel with its hash"):
        workshop.build()
    (workshop.locks / "aarch64-3.13.txt").write_text(workshop.lines[0].line().replace("# numbers", "# ../numbers"))
    with pytest.raises(FlashError, match="line 1 is not a wheel with its hash"):
        workshop.build()


@pytest.fixture
def index(workshop, monkeypatch):
    """A folder that pip takes wheels from, and nothing else; the workshop's own is empty."""
    folder = workshop.wheels.rename(workshop.root / "index")
    (workshop.root / "pins").write_text("numbers==1.0\n")  # as `make` sets it
    monkeypatch.setenv("PIP_CONSTRAINT", str(workshop.root / "pins"))
    for name, value in (("CONFIG_FILE", "/dev/null"), ("NO_INDEX", "1"), ("FIND_LINKS", str(folder))):
        monkeypatch.setenv(f"PIP_{name}", value)
    for name in ("EXTRA_INDEX_URL", "INDEX_URL"):
        monkeypatch.delenv(f"PIP_{name}", raising=False)
    return folder


def test_wheels_for_another_machine_come_by_pip_and_are_kept(workshop, index):
    written = workshop.build()
    assert sorted(path.name for path in workshop.wheels.iterdir()) == sorted(path.name for path in index.iterdir())
    for path in index.iterdir():
        path.unlink()
    damaged = workshop.wheels / workshop.lines[0].file
    assert workshop.build() == written
    damaged.write_bytes(b"damaged")
    with pytest.raises(FlashError, match=r"cannot be downloaded: No matching distribution found for numbers==1\.0"):
        workshop.build()
    assert [path.name for path in workshop.wheels.iterdir() if path.is_dir()] == []


def test_a_wheel_of_another_hash_is_not_used(workshop, index):
    write_wheel(index, "numbers", needs=("more",))
    with pytest.raises(FlashError, match="cannot be downloaded: a wheel came with another hash than the lock has"):
        workshop.build()
    assert not (workshop.root / "pi5.release").exists()


def test_no_network_is_a_sentence(workshop, index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(FlashError, match="cannot be downloaded: the network is not there"):
        workshop.build()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("/usr/bin/python3: No module named pip\n", "has no pip"),
        ("WARNING: Retrying after connection broken by 'NewConnectionError'\nERROR: No matching distribution found for x", "network is not there"),
        ("ERROR: one\nERROR: two\n", "two"),
        ("", "it did not say why"),
    ],
)  # fmt: skip
def test_what_pip_says_is_put_shortly(said, sentence):
    assert sentence in wheels.reason(said)


def test_a_lock_is_made_of_what_the_device_asks_for(workshop, index, tmp_path, monkeypatch):
    monkeypatch.setattr(wheels, "OF_THE_DEVICE", ("numbers",))
    write_wheel(index, "numbers", needs=("paho_mqtt",))
    write_wheel(index, "paho_mqtt", "2.0", "cp310-abi3-manylinux2014_aarch64")
    write_wheel(index, "paho_mqtt", "3.0")
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("# versions\nnumbers==1.0\npaho-mqtt==2.0\n")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    text = wheels.make_lock("aarch64", "3.13", constraints, tmp_path / "one")
    (workshop.locks / "aarch64-3.13.txt").write_text(text)
    assert [(wheel.name, wheel.version, wheel.file) for wheel in wheels.read_lock("aarch64", "3.13", workshop.locks)] == [
        ("numbers", "1.0", "numbers-1.0-py3-none-any.whl"), ("paho-mqtt", "2.0", "paho_mqtt-2.0-cp310-abi3-manylinux2014_aarch64.whl")
    ]  # fmt: skip
    constraints.write_text("numbers==1.0\n")
    with pytest.raises(FlashError, match=r"does not name paho_mqtt==3\.0, which the device would get"):
        wheels.make_lock("aarch64", "3.13", constraints, tmp_path / "two")


def test_the_command_writes_a_release_and_says_which(workshop, monkeypatch, capsys):
    monkeypatch.setattr(wheels, "read_lock", lambda *_: tuple(workshop.lines))
    out = workshop.root / "out.release"
    command = ["flash", "bundle", str(workshop.root), "--board", "pi5", "--key", str(workshop.key), "--wheels", str(workshop.wheels)]  # fmt: skip
    assert main([*command, "--out", str(out), "--expires", "2126-01-01"]) == 0
    shown = capsys.readouterr().out
    assert "version 1 of fleet fleet, to be taken up until 2126-01-01T00:00:00Z; noted in" in shown
    assert f"signed by {fingerprint(workshop.public)}" in shown
    assert json.loads((workshop.fleet / "releases.json").read_text())["releases"][0]["id"] in shown
    assert "measured" not in shown
    workshop.bundle.unlink()
    tuning = {"choices": [], "measured": {"machine": {"architecture": "x86_64"}}}
    write_bundle(workshop.bundle, weights=(7.0, 8.0), tuning=tuning)
    assert main([*command, "--out", str(out), "--since", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "a board that runs it has them\nrelease " in shown
    assert "formulations were measured on x86_64: on aarch64 results are the same, steps may be slower" in shown
    for more, sentence in (
        (["--version", "0"], "version is 0, not a whole number"),
        (["--version", "1"], "version 1 of fleet fleet is the release"),
        (["--since", str(workshop.key)], "it is no release"),
        (["--fleet", "a/b"], "fleet is 'a/b'"),
        (["--out", str(workshop.root / "no" / "folder")], "No such file or directory"),
    ):
        assert main([*command, *more]) == 2
        said = capsys.readouterr().err
        assert sentence in said
        assert said.count("\n") == 1
    for more in (["--board", "toaster"], ["--python", "2.7"], ["--issued", "yesterday"]):
        with pytest.raises(SystemExit):
            main([*command, *more])
    assert "yesterday" in capsys.readouterr().err


def test_a_date_may_be_a_day():
    assert bundle_command._date("2026-11-22") == NOW.replace(hour=0)
    assert bundle_command._date("2026-11-22T12:00:00Z") == NOW
