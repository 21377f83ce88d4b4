"""`cutlayer profile calibrate`: loads whose CPU time is written into a /proc of the test's own, and a meter that knows the law."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge import config
from edge.__main__ import main
from edge.energy.calibrate import Load
from edge.profile import calibrate

LINE_SECONDS = 0.05
AT = datetime(2026, 11, 21, tzinfo=UTC)


class Board:
    """A board of 2 W and 3 J a CPU second: its /proc, and the pipe of its meter."""

    def __init__(self, root):
        self.root = root
        self.meter = root / "power"
        self.meter.touch()
        self.ticks = 0.0
        (root / "proc/net").mkdir(parents=True)
        self.put_ticks()
        (root / "proc/net/dev").write_text("Inter-|\n face |bytes\n  eth0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")
        self.run(0, 0.0)

    def run(self, cores, seconds):
        """So many cores are busy for so long."""
        began = last = time.monotonic()
        self.say(last, 2 + 3 * cores)
        while last < began + seconds:
            time.sleep(LINE_SECONDS)
            now = time.monotonic()
            # However late this comes on a busy machine: so long were the cores busy.
            self.ticks += 100 * cores * (now - last)
            self.put_ticks()
            self.say(now, 2 + 3 * cores)
            last = now

    def put_ticks(self):
        new = self.root / "proc/stat.new"
        new.write_text(f"cpu {round(self.ticks)} 0 0 0 0 0 0 0 0 0\n")
        new.replace(self.root / "proc/stat")  # whoever reads it meanwhile finds the whole of one

    def say(self, now, watts):
        with self.meter.open("a") as file:
            file.write(f"{now:.6f} {watts:.3f}\n")

    def loads(self):
        return [Load(f"{cores} busy", lambda seconds, cores=cores: self.run(cores, seconds)) for cores in (0, 1, 2)]


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


def test_the_model_finds_the_law_of_the_meter(tmp_path):
    board = Board(tmp_path)
    settings = config.load(Path(configure(tmp_path, f'source = "meter"\nmeter = "pipe:{board.meter}"')), {})
    feeder = threading.Thread(target=board.run, args=(0, 1.0))  # somebody has to speak while the meter is opened
    feeder.start()
    told = []
    model = calibrate.run(
        settings, seconds=1.0, repeats=2, send=False, told=told.append, at=AT, root=tmp_path, loads=board.loads()
    )
    feeder.join()
    assert model.joules_per_cpu_second == pytest.approx(3, rel=0.15)
    assert model.idle_watts == pytest.approx(2, rel=0.15)
    assert model.joules_per_byte_sent is None
    assert model.meter == f"meter at pipe:{board.meter} (metered)"
    assert sum("busy" in line for line in told) == 6
    words = "\n".join(calibrate.words(model, tmp_path / "m.json"))
    assert "a byte sent           could not be told" in words


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


def test_a_broker_that_is_not_there_is_named_before_minutes_of_measuring(tmp_path, capsys):
    board = Board(tmp_path)
    feeder = threading.Thread(target=board.run, args=(0, 2.0))
    feeder.start()
    assert run(tmp_path, f'source = "meter"\nmeter = "pipe:{board.meter}"', "--seconds", "1") == 2
    feeder.join()
    assert "no broker answers at mqtt://127.0.0.1:9" in capsys.readouterr().err
