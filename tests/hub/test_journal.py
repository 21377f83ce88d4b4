import sqlite3
from dataclasses import replace

import numpy as np
import pytest

from edge.wire import messages
from edge.wire.coder import Coder
from edge.wire.messages import Activation, Report, State
from edge.wire.tables import Tables
from hub.devices import Arrived
from hub.journal import GaveUp, Journal, Learned, NoJournal, Opened, Put, Recorded, done_in
from hub.store import StoreError, patiently
from hub.strategies.base import Outlook


def arrived(device="a", number=1, epoch=5, message=None):
    message = message or Report(1, 0, {"steps": 2})
    return Arrived(device, number, epoch, message, messages.pack(message))


@pytest.fixture
def opened(tmp_path):
    journals = []

    def again():
        journals.append(Journal(tmp_path / "journal.db"))
        return journals[-1]

    yield again
    for journal in journals:
        journal.close()


ENTRIES = [
    Opened(3, 0, ("a", "b"), {"a": 17, "b": 18}, {"b": (1, 3)}, Outlook(("b",), 0.25, 0.125)),
    Learned((arrived("a", 4), arrived("b", 9, 6))),
    Put(arrived("b", 10, 6, State(b"\1\2\3\4", 18, {"w": np.float32([1, 2])}))),
    GaveUp("a", "no report within 20 s"),
]


def plain(entries):
    """Entries without the arrays of their messages, which do not compare."""
    return [
        repr([(one.device, one.number, one.epoch, one.data) for one in messages_of(entry)])
        if messages_of(entry)
        else entry
        for entry in entries
    ]


def messages_of(entry):
    return (
        getattr(entry, "arrived", ())
        if isinstance(entry, Learned)
        else [entry.arrived]
        if isinstance(entry, Put)
        else []
    )


def test_what_was_committed_is_there_after_a_restart_and_nothing_else(opened):
    journal = opened()
    for entry in ENTRIES:
        journal.append(entry)
    journal.commit()
    journal.append(GaveUp("b", "never committed"))
    assert journal.last == 4
    assert plain(opened().entries(0)) == plain(ENTRIES)
    assert plain(opened().entries(2)) == plain(ENTRIES[2:])


def test_what_a_checkpoint_covers_is_forgotten_and_numbers_go_on(opened):
    journal = opened()
    journal.append(ENTRIES[0])
    journal.append(ENTRIES[1])
    journal.commit()
    journal.forget(journal.last)
    journal = opened()
    assert list(journal.entries(2)) == []
    journal.append(ENTRIES[3])
    journal.commit()
    assert journal.last == 3
    assert list(opened().entries(2)) == [ENTRIES[3]]


def test_its_file_does_not_grow_with_the_rounds(opened, tmp_path):
    journal, sizes = opened(), []
    big = arrived(message=State(b"\1\2\3\4", 1, {"w": np.zeros(50_000, np.float32)}))
    for _ in range(6):
        journal.append(Put(big))
        journal.commit()
        journal.forget(journal.last)
        sizes.append(sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert sizes[-1] <= sizes[1] <= 500_000


def test_a_full_disk_loses_nothing_and_is_a_sentence(opened, tmp_path):
    journal = opened()
    journal.append(ENTRIES[0])
    other = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    journal._database.execute("PRAGMA busy_timeout = 0")
    with pytest.raises(StoreError, match=r"journal\.db cannot be written"):
        journal.commit()
    assert journal.last == 0
    other.execute("ROLLBACK")
    other.close()
    journal.commit()
    assert list(opened().entries(0)) == [ENTRIES[0]]


def test_a_full_disk_is_tried_again_until_there_is_room():
    waited, tries = [], iter([StoreError("full"), StoreError("full"), None])

    def write():
        error = next(tries)
        if error:
            raise error

    patiently(write, waited.append)
    assert waited == [5.0, 5.0]


def test_entries_are_read_turn_by_turn():
    recorded = Recorded([ENTRIES[0], ENTRIES[3], Opened(3, 1, ("b",), {"b": 19})])
    assert recorded.opened() is ENTRIES[0]
    assert recorded.opened() is None
    assert recorded.in_turn() is ENTRIES[3]
    assert recorded.in_turn() is None
    assert recorded
    assert recorded.opened().turn == 1
    assert recorded.in_turn() is None
    assert not recorded


def test_numbers_of_the_entries_are_done_in_the_ledgers():
    before = {"a": {"epoch": 5, "floor": 3, "done": []}, "b": {"epoch": 5, "floor": 8, "done": []}}
    after = done_in([*ENTRIES, Put(arrived("c", 2, 1)), Put(arrived("a", 9, 4))], before)
    assert after["a"] == {"epoch": 5, "floor": 4, "done": []}  # 9 was of a stream that is over
    assert after["b"] == {"epoch": 6, "floor": 0, "done": [[9, 10]]}  # a new stream
    assert after["c"] == {"epoch": 1, "floor": 0, "done": [[2, 2]]}


def test_a_simulation_keeps_nothing():
    journal = NoJournal()
    journal.append(ENTRIES[0])
    journal.commit()
    assert list(journal.entries(0)) == []


def named(coder, step):
    """A packed activation whose table is only named, of a coder that has been told that the hub has it."""
    smashed = np.random.default_rng(step).standard_normal((32, 4, 8)).astype(np.float32)
    return messages.pack(Activation(b"\1\2\3\4", 17, 3, step, "train", smashed, np.arange(32) % 4, coder))


def test_an_activation_whose_table_is_only_named_is_read_again_after_a_restart(opened):
    coder, tables = Coder(), Tables()
    whole = messages.unpack(named(coder, 0), tables=tables)
    (table,) = tables.take_fresh()
    coder.known(table.id)
    data = named(coder, 1)
    assert len(data) < len(messages.pack(replace(whole, codec=Coder())))
    told = messages.unpack(data, tables=tables)
    journal = opened()
    journal.keep_table("a", table.data)
    journal.append(Learned((Arrived("a", 2, 5, told, data),)))
    journal.commit()
    (entry,) = opened().entries(0)
    np.testing.assert_array_equal(entry.arrived[0].message.smashed, told.smashed)


def test_only_the_latest_tables_of_each_device_stay(opened):
    journal = opened()
    for number in range(11):
        journal.keep_table("a", b"table %d" % number)
    journal.keep_table("b", b"its own")
    journal.keep_table("a", b"table 4")  # comes again: it is in use
    journal.commit()
    journal.forget(journal.last)
    kept = opened().tables()
    assert kept["b"] == [b"its own"]
    assert kept["a"] == [b"table %d" % number for number in (3, 5, 6, 7, 8, 9, 10, 4)]
