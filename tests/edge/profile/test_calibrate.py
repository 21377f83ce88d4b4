"""`cutlayer profile calibrate` against a meter whose law is known: 2 W and 3 J a CPU second, whoever uses it."""

import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from edge.__main__ import main
from edge.energy.activity import activity
from edge.files import Files

LINE_SECONDS = 0.05


@pytest.fixture
def meter():
    """Speaks the protocol of edge/energy/README.md on a TCP port; yields its URL."""
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)

    def talk():
        while not stop.is_set():
            with suppress(OSError):
                peer, _ = server.accept()
                with peer:
                    tell(peer)

    def tell(peer):
        files = Files(Path("/"))
        at, busy = time.monotonic(), activity(files).cpu_seconds
        while not stop.wait(LINE_SECONDS):
            now, then = time.monotonic(), activity(files).cpu_seconds
            peer.sendall(f"{now:.6f} {2 + 3 * (then - busy) / (now - at):.6f}\n".encode())
            at, busy = now, then

    thread = threading.Thread(target=talk)
    thread.start()
    yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
    stop.set()
    thread.join()
    server.close()


def configure(folder, energy):
    (folder / "device.bundle").touch()
    path = folder / "device.toml"
    path.write_text(
        '[device]\nname = "bench"\n[broker]\nurl = "mqtt://127.0.0.1:9"\n[bundle]\npath = "device.bundle"\n'
        f'[data]\nsource = "synthetic"\n[energy]\n{energy}\n'
    )
    return str(path)


def run(folder, energy, *more):
    config = configure(folder, energy)
    return main(["profile", "calibrate", "--config", config, "--out", str(folder / "model.json"), *more])


def test_the_model_finds_the_law_of_the_meter(meter, tmp_path, capsys):
    energy = f'source = "meter"\nmeter = "{meter}"'
    assert run(tmp_path, energy, "--no-send", "--seconds", "1", "--repeats", "2") == 0
    model = json.loads((tmp_path / "model.json").read_text())
    assert model["joules_per_cpu_second"] == pytest.approx(3, rel=0.2)
    assert model["idle_watts"] == pytest.approx(2, abs=0.6)
    assert model["joules_per_byte_sent"] is None
    assert model["meter"].endswith("(metered)")
    shown = capsys.readouterr().out
    assert "a byte sent           could not be told" in shown
    assert 'source = "model"' in shown


@pytest.mark.parametrize(
    ("energy", "more", "sentence"),
    [
        ('source = "none"', (), "a model is fitted against a meter, and there is none: not measured"),
        ('source = "none"', ("--seconds", "0.5"), "--seconds 0.5: it must be from 1 to 3600"),
        ('source = "none"', ("--repeats", "0"), "--repeats 0: it must be from 1 to 100"),
    ],
)
def test_without_a_meter_there_is_no_model(energy, more, sentence, tmp_path, capsys):
    assert run(tmp_path, energy, *more) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "model.json").exists()


def test_a_broker_that_is_not_there_is_named_before_minutes_of_measuring(meter, tmp_path, capsys):
    energy = f'source = "meter"\nmeter = "{meter}"'
    assert run(tmp_path, energy, "--seconds", "1") == 2
    assert "no broker answers at mqtt://127.0.0.1:9" in capsys.readouterr().err
