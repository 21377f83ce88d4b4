"""The hub's cache of samples: what it serves, what it gives up, and what it has after a kill."""

from dataclasses import replace

import numpy as np
import pytest

import hub.known
from edge.wire.messages import FORGET_LIMIT, Activation
from edge.wire.repeats import Repeats
from hub.known import BESIDE_BYTES, KnownSamples

SAMPLE = 2 * 4 + BESIDE_BYTES
"""Bytes of a sample of two values."""
ROWS = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)


def upload(number, sends=(), known=(), uploads=(), round_number=0, rows=ROWS):
    smashed, labels = rows[list(sends)], np.array(sends, np.int64) % 2
    parts = (np.array(part, np.int64) for part in (sends, known, uploads))
    return Activation(b"abcd", 1, round_number, 0, "train", smashed, labels, repeats=Repeats(number, *parts))


def served(cache, device, message):
    whole = cache.complete(device, message)
    assert whole.repeats is None
    assert len(whole.smashed) == len(whole.labels)
    return whole.smashed.tolist(), whole.labels.tolist()


@pytest.fixture
def caches(tmp_path):
    made = []

    def make(saved=None, limit=100 * SAMPLE, path=tmp_path / "known.db", refresh_rounds=5):
        for cache in made:
            cache.close()  # as a killed process does
        made.append(KnownSamples(path, limit, refresh_rounds))
        made[-1].restore(saved or {})
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def checkpoint(cache):
    saved = cache.save()
    cache.settle()
    return saved


def test_an_activation_that_names_no_sample_is_what_it_is(caches, tmp_path):
    cache = caches()
    message = replace(upload(1, (0, 1)), repeats=None)
    assert cache.complete("a", message) is message
    assert checkpoint(cache)["count"] == 0
    assert not (tmp_path / "known.db").exists()


def test_what_was_sent_is_served_again_with_its_label_behind_what_comes(caches):
    cache = caches()
    assert served(cache, "a", upload(1, (0, 1))) == ([[1, 2], [3, 4]], [0, 1])
    assert served(cache, "a", upload(2, (2,), (1, 0), (1, 1))) == ([[5, 6], [3, 4], [1, 2]], [0, 1, 0])
    assert (cache.served, cache.missed) == (2, {})


def test_it_is_served_from_the_file_too(caches, monkeypatch):
    monkeypatch.setattr(hub.known, "MEMORY_BYTES", 0)
    cache = caches(path=None)
    served(cache, "a", upload(1, (0, 1)))
    served(cache, "a", upload(2, (0,), rows=10 * ROWS))
    assert served(cache, "a", upload(3, (), (0, 1), (2, 1))) == ([[10, 20], [3, 4]], [0, 1])


def test_never_another_sample_than_the_one_that_was_meant(caches):
    cache = caches()
    served(cache, "a", upload(1, (0,)))
    served(cache, "a", upload(2, (1,)))
    served(cache, "b", upload(1, (2,)))
    # One that never came, one of another device, one of an upload that never came, one of an upload before the last.
    served(cache, "a", upload(3, (0,), rows=10 * ROWS))
    assert served(cache, "a", upload(7, (3,), (9, 2, 1, 0), (1, 1, 5, 1))) == ([[7, 8]], [1])
    assert cache.missed == {"a": 4}
    assert cache.owed("a") == (0, 1, 2, 9)
    assert (cache.owed("a"), cache.owed("b")) == ((), ())


def test_what_was_sent_again_need_not_be_forgotten(caches):
    cache = caches()
    served(cache, "a", upload(2, (), (0, 1), (1, 1)))
    served(cache, "a", upload(3, (0,)))
    assert cache.owed("a") == (1,)


def test_samples_of_another_shape_are_not_served(caches):
    cache = caches()
    served(cache, "a", upload(1, (0,)))
    other = upload(2, (1,), (0,), (1,), rows=np.ones((4, 3), np.float32))
    assert served(cache, "a", other) == ([[1, 1, 1]], [1])


def test_a_full_cache_gives_up_the_oldest_and_its_device_is_told(caches):
    cache = caches(limit=3 * SAMPLE)
    served(cache, "a", upload(1, (0, 1)))
    served(cache, "b", upload(1, (0, 1)))
    assert (cache.owed("a"), cache.owed("b")) == ((0,), ())
    assert served(cache, "a", upload(2, (), (0, 1), (1, 1))) == ([[3, 4]], [1])
    assert checkpoint(cache)["count"] == 3


def test_nobody_is_told_of_a_sample_too_old_to_be_named(caches):
    cache = caches(limit=2 * SAMPLE, refresh_rounds=5)
    served(cache, "a", upload(1, (0, 1), round_number=0))
    served(cache, "a", upload(2, (2,), round_number=5))
    assert cache.owed("a") == ()
    served(cache, "a", upload(3, (3, 0), round_number=9))
    assert cache.owed("a") == (2,)


def test_too_many_samples_to_name_are_all_of_them(caches):
    cache = caches()
    many = tuple(range(FORGET_LIMIT + 1))
    cache.complete("a", upload(2, (), many, (1,) * len(many)))
    assert cache.owed("a") is None
    assert cache.owed("a") == ()


def play(cache, story):
    """What comes of uploads, one after the other."""
    return [served(cache, device, message) for device, message in story]


STORY = [
    ("a", upload(1, (0, 1), round_number=1)),
    ("b", upload(1, (0, 1, 2), round_number=1)),
    ("a", upload(2, (0,), (1,), (1,), round_number=1, rows=10 * ROWS)),
    ("a", upload(3, (2,), (0, 1), (2, 1), round_number=2)),
    ("b", upload(2, (3,), (0, 2), (1, 1), round_number=2)),
    ("b", upload(3, (0,), (1, 3), (1, 2), round_number=2, rows=10 * ROWS)),
    ("a", upload(4, (1,), (2, 0), (3, 2), round_number=3, rows=10 * ROWS)),
]


@pytest.mark.parametrize(("memory", "limit"), [(0, 100), (2 * SAMPLE, 4), (1 << 20, 2)])
@pytest.mark.parametrize("kept", [0, 2, 4])
def test_a_hub_that_does_its_journal_again_finds_everything_as_it_was(caches, monkeypatch, memory, limit, kept):
    """The checkpoint is made after `kept` uploads; the hub is killed later, and does the others again."""
    monkeypatch.setattr(hub.known, "MEMORY_BYTES", memory)
    undisturbed = caches(limit=limit * SAMPLE, path=None)
    wanted = play(undisturbed, STORY)
    for killed in (kept, 5, len(STORY)):
        for saving in (False, True):  # also between the cache's own words and the checkpoint that says so
            cache = caches(limit=limit * SAMPLE)
            play(cache, STORY[:kept])
            saved = checkpoint(cache)
            play(cache, STORY[kept:killed])
            if saving:
                cache.save()
            cache = caches(saved, limit=limit * SAMPLE)
            assert play(cache, STORY[kept:]) == wanted[kept:]
            assert [cache.owed(name) for name in "ab"] == [undisturbed_owed(limit, name) for name in "ab"]
            assert cache.save()["count"] == undisturbed.save()["count"]


def undisturbed_owed(limit, name):
    cache = KnownSamples(None, limit * SAMPLE, 5)
    play(cache, STORY)
    try:
        return cache.owed(name)
    finally:
        cache.close()


def test_a_run_that_begins_has_an_empty_cache_whatever_lies_there(caches):
    cache = caches()
    served(cache, "a", upload(1, (0, 1)))
    checkpoint(cache)
    assert served(caches(), "a", upload(2, (), (0, 1), (1, 1))) == ([], [])


@pytest.mark.parametrize("damage", ["gone", "no database", "other rows"])
def test_a_cache_that_is_lost_serves_nothing_and_every_device_is_told_once(caches, tmp_path, damage):
    cache = caches()
    served(cache, "a", upload(1, (0, 1)))
    saved = checkpoint(cache)
    if damage == "other rows":
        cache._database.execute("DELETE FROM samples WHERE number = 0")
    cache.close()
    if damage == "gone":
        (tmp_path / "known.db").unlink()
    elif damage == "no database":
        (tmp_path / "known.db").write_bytes(b"half a page of something" * 100)
    cache = caches(saved)
    assert served(cache, "a", upload(2, (2,), (0, 1), (1, 1))) == ([[5, 6]], [0])
    assert cache.owed("a") is None
    saved = checkpoint(cache)
    cache = caches(saved)
    assert (cache.owed("a"), cache.owed("b"), cache.owed("b")) == ((), None, ())
    assert served(cache, "a", upload(3, (), (2,), (2,))) == ([[5, 6]], [0])


def test_the_file_keeps_no_more_than_the_limit_from_checkpoint_to_checkpoint(caches):
    cache = caches(limit=3 * SAMPLE)
    for number in range(1, 30):
        served(cache, "a", upload(number, (0, 1, 2, 3), rows=number * ROWS))
        checkpoint(cache)
        assert cache._database.execute("SELECT COUNT(*) FROM samples").fetchone() == (3,)
