import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from edge.outbox import MemoryOutbox, Outbox, OutboxError, Unsent, holder


def test_what_was_committed_is_there_after_a_restart(tmp_path):
    outbox = Outbox.open(tmp_path)
    outbox.put_fact("position", 3)
    outbox.put_state({"weights": np.arange(4, dtype=np.float32)})
    outbox.put_received("order", b"order")
    outbox.put_unsent(Unsent(1, b"first", urgent=False))
    outbox.put_unsent(Unsent(2, b"second", urgent=True))
    outbox.commit()
    outbox.close()

    again = Outbox.open(tmp_path)
    assert again.fact("position") == 3
    np.testing.assert_array_equal(again.state()["weights"], [0, 1, 2, 3])
    assert again.received("order") == b"order"
    assert again.unsent() == [Unsent(1, b"first", urgent=False), Unsent(2, b"second", urgent=True)]
    again.close()


def test_what_was_not_committed_is_not(tmp_path):
    outbox = Outbox.open(tmp_path)
    outbox.put_fact("position", 3)
    outbox.commit()
    outbox.put_fact("position", 4)
    outbox.put_unsent(Unsent(1, b"never", urgent=False))
    outbox.close()

    again = Outbox.open(tmp_path)
    assert again.fact("position") == 3
    assert again.unsent() == []
    again.close()


def test_a_look_at_an_outbox_that_is_in_use(tmp_path):
    assert holder(tmp_path) is None
    with pytest.raises(OutboxError, match="holds no outbox yet"):
        Outbox.look(tmp_path)
    outbox = Outbox.open(tmp_path)
    outbox.put_fact("position", 3)
    outbox.commit()
    outbox.put_fact("position", 4)

    beside = Outbox.look(tmp_path)
    assert holder(tmp_path) == str(os.getpid())
    assert beside.fact("position") == 3
    beside.put_fact("position", 5)
    with pytest.raises(OutboxError, match="readonly"):
        beside.commit()
    beside.close()

    outbox.commit()
    outbox.close()
    assert holder(tmp_path) is None
    after = Outbox.look(tmp_path)
    assert after.fact("position") == 4
    after.close()


def test_acknowledged_messages_go(tmp_path):
    outbox = Outbox.open(tmp_path)
    for number in (1, 2, 3):
        outbox.put_unsent(Unsent(number, b"x", urgent=False))
    outbox.drop_unsent([1, 3])
    outbox.commit()
    assert [item.number for item in outbox.unsent()] == [2]
    outbox.close()


def test_another_bundle_keeps_who_we_are(tmp_path):
    outbox = Outbox.open(tmp_path)
    outbox.put_fact("outbox", "me")
    outbox.put_fact("stream", {"epoch": 7, "next": 9})
    outbox.put_fact("position", 3)
    outbox.put_state({"weights": np.zeros(1, np.float32)})
    outbox.forget_bundle()
    outbox.commit()
    assert outbox.fact("outbox") == "me"
    assert outbox.fact("stream") == {"epoch": 7, "next": 9}
    assert outbox.fact("position") is None
    assert outbox.state() == {}
    outbox.close()


def test_one_process_at_a_time(tmp_path):
    outbox = Outbox.open(tmp_path)
    with pytest.raises(OutboxError, match=f"in use by process {os.getpid()}"):
        Outbox.open(tmp_path)
    outbox.close()
    Outbox.open(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutboxError, match=r"state directory .*file/state cannot be used"):
        Outbox.open(tmp_path / "file" / "state")


def test_a_damaged_file_is_a_plain_sentence(tmp_path):
    (tmp_path / "outbox.sqlite").write_bytes(b"this is no database, and it is long enough to be looked at" * 20)
    with pytest.raises(OutboxError, match=r"outbox.sqlite cannot be used: file is not a database"):
        Outbox.open(tmp_path)


def test_a_full_disk_keeps_what_was_put_for_a_later_try(tmp_path):
    outbox = Outbox.open(tmp_path)
    outbox._database.execute("PRAGMA max_page_count=12")
    outbox.put_unsent(Unsent(1, b"x" * 200_000, urgent=False))
    with pytest.raises(OutboxError, match="database or disk is full"):
        outbox.commit()
    outbox._database.execute("PRAGMA max_page_count=10000")
    outbox.commit()
    assert [item.number for item in outbox.unsent()] == [1]
    outbox.close()


_WRITER = """
import sys
from pathlib import Path
from edge.outbox import Outbox, Unsent
outbox = Outbox.open(Path(sys.argv[1]))
for number in range(1, 100000):
    outbox.put_fact("position", number)
    outbox.put_unsent(Unsent(number, b"m" * 1000, False))
    outbox.commit()
    print(number, flush=True)
"""


def test_a_kill_loses_nothing_that_was_committed_and_halves_nothing(tmp_path):
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    for line in writer.stdout:
        if int(line) >= 25:
            break
    writer.send_signal(signal.SIGKILL)
    told = int(([line, *writer.stdout])[-1])
    writer.wait()
    writer.stdout.close()

    outbox = Outbox.open(tmp_path)
    position = outbox.fact("position")
    assert position >= told
    assert [item.number for item in outbox.unsent()] == list(range(1, position + 1))
    outbox.close()


def test_in_memory_too_what_is_read_is_what_was_committed():
    outbox = MemoryOutbox()
    totals = {"sent": 1}
    outbox.put_fact("totals", totals)
    outbox.put_state({"weights": np.arange(2)})
    assert outbox.fact("totals", "none") == "none"
    assert outbox.state() == {}
    outbox.commit()
    totals["sent"] = 2
    outbox.put_fact("position", 3)
    assert outbox.fact("totals") == {"sent": 1}
    assert outbox.state()["weights"].tolist() == [0, 1]
    assert outbox.fact("position") is None


def test_in_memory_no_message_is_kept_for_a_process_that_never_comes():
    outbox = MemoryOutbox()
    outbox.put_unsent(Unsent(1, b"first", urgent=False))
    outbox.put_received("order", b"order")
    outbox.commit()
    outbox.drop_unsent([1])
    assert outbox.unsent() == []
    assert outbox.received("order") is None
