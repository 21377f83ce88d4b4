"""What a process manager hears, over a real datagram socket; the mark, on a real disk; the clock is the test's."""

import os
import socket
from types import SimpleNamespace

import pytest

from edge.beside import Beside
from edge.service import Health, Notifier, write_whole

RELEASE = "a" * 64


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    """systemd's end of the socket, and the environment it would set."""
    name = f"cutlayer-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.settimeout(5)
        if request.param == "path":
            heard.bind(str(tmp_path / "notify"))
            address = str(tmp_path / "notify")
        else:
            heard.bind(f"\0{name}")
            address = f"@{name}"
        yield heard, {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "77"}


def everything(heard):
    """What has been said so far."""
    heard.setblocking(False)
    found = []
    try:
        while True:
            found.append(heard.recv(4096).decode())
    except BlockingIOError:
        return found


def test_what_systemd_is_told(manager):
    heard, environ = manager
    notifier = Notifier(environ, 77)
    assert notifier.present
    notifier.ready()
    notifier.status("local of round 3")
    notifier.status("local of round 3")
    notifier.status("two\nlines")
    notifier.stopping()
    assert everything(heard) == ["READY=1", "STATUS=local of round 3", "STATUS=two lines", "STOPPING=1"]
    notifier.close()


def test_the_watchdog_hears_of_us_four_times_in_its_time(manager):
    heard, environ = manager
    notifier = Notifier(environ, 77)
    said = []
    for tenth in range(1000):
        notifier.alive(tenth / 10)
        said += [tenth / 10] * len(everything(heard))
    assert said == [5.0 * number for number in range(20)]
    notifier.close()


@pytest.mark.parametrize(("name", "value"), [("WATCHDOG_PID", "78"), ("WATCHDOG_USEC", "x"), ("WATCHDOG_USEC", "0")])
def test_a_watchdog_that_is_not_ours_hears_nothing(manager, name, value):
    heard, environ = manager
    notifier = Notifier({**environ, name: value}, 77)
    notifier.alive(0.0)
    notifier.ready()
    assert everything(heard) == ["READY=1"]
    notifier.close()


def test_without_a_manager_nothing_is_said():
    notifier = Notifier({}, 1)
    assert not notifier.present
    notifier.ready()
    notifier.alive(0.0)
    notifier.status("x")
    notifier.close()


def test_a_manager_that_has_gone_or_does_not_read_stops_nobody(tmp_path):
    alone = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, 1)
    alone.ready()
    alone.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 1)
        for number in range(2000):
            notifier.status(f"{number}")
        assert 0 < len(everything(heard)) < 2000
        notifier.close()


def test_a_start_that_nobody_could_hear_of_is_said_again(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 1)
        for number in range(2000):
            notifier.status(f"{number}")
        notifier.ready()
        assert "READY=1" not in everything(heard)
        notifier.alive(0.0)
        notifier.alive(1.0)
        assert everything(heard) == ["READY=1"]
        notifier.close()


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "healthy"


def test_a_release_is_well_when_the_loop_has_turned_for_a_while(mark):
    health = Health(mark, RELEASE, 30.0)
    health.turned(100.0, worked=False)
    health.turned(129.9, worked=False)
    assert not health.proven
    assert not mark.exists()
    health.turned(130.0, worked=False)
    assert health.proven
    assert mark.read_text() == f"{RELEASE}\n"


def test_it_is_well_at_once_when_a_step_is_done_for_the_hub(mark):
    health = Health(mark, RELEASE, 30.0)
    health.turned(0.0, worked=True)
    assert mark.read_text().strip() == RELEASE


@pytest.mark.parametrize(("hears", "works", "well"), [(True, False, False), (False, True, False), (True, True, True)])
def test_an_answer_alone_is_not_enough_since_the_first_step_may_end_the_process(mark, hears, works, well):
    link = SimpleNamespace(answered=hears, connected=True)
    work = SimpleNamespace(order=SimpleNamespace(kind="evaluate"), seconds=[0.1] if works else [], metrics={})
    updater = SimpleNamespace(turn=lambda _now: None)
    beside = Beside(link, Notifier({}, 1), Health(mark, RELEASE, 30.0), updater, lambda: 0.0)
    beside.turn(SimpleNamespace(work=work))
    assert mark.exists() == well


def test_a_refusal_is_an_answer(mark):
    Health(mark, RELEASE, 30.0).answered()
    assert mark.read_text().strip() == RELEASE


def test_the_mark_of_another_release_proves_nothing(mark):
    mark.write_text("b" * 64)
    health = Health(mark, RELEASE, 30.0)
    assert not health.proven
    mark.write_text(f"{RELEASE}\n")
    assert Health(mark, RELEASE, 30.0).proven


def test_where_no_mark_is_wanted_nothing_is_on_trial(tmp_path):
    assert Health(None, RELEASE, 30.0).proven
    assert Health(tmp_path / "healthy", "", 30.0).proven


def test_a_mark_that_cannot_be_written_is_tried_again(tmp_path):
    folder = tmp_path / "later"
    health = Health(folder / "healthy", RELEASE, 0.0)
    health.turned(0.0, worked=True)
    assert not health.proven
    folder.mkdir()
    health.turned(9.0, worked=True)
    assert not health.proven
    health.turned(10.0, worked=True)
    assert health.proven


def test_a_power_cut_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def cut(_fresh, _path):
        raise OSError("power cut")

    with pytest.raises(OSError, match="power cut"):
        write_whole(path, b"new", cut)
    assert path.read_bytes() == b"old"
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]
