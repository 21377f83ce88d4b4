"""Two minutes of many small rounds: memory and files stay flat. Nothing is shared with other tests, so it may run beside them."""

import pytest

from benchmarks import soak

SECONDS = 120.0
ROUNDS = 60
"""Fewer would be no soak; two busy cores do several hundred."""


@pytest.mark.timeout(420)
def test_memory_and_files_stay_flat(tmp_path, make_bundle):
    samples = soak.soak(tmp_path / "soak", SECONDS, make_bundle())
    assert samples[-1].rounds > ROUNDS
    grown = [
        f"{thing.name}: {thing.after_quarter} bytes after a quarter, {thing.highest} since"
        for thing in (*soak.memory(samples), *soak.files(samples), *soak.each_round(samples))
        if not thing.flat
    ]
    assert not grown, "\n".join(grown)
    watched = {"hub", "broker", "device-01", "device-02"}
    assert set(samples[-1].rss) == watched
    files = set(samples[-1].files)
    assert {"device-01/state/outbox.sqlite", "run/journal.db", "run/metrics.jsonl", "broker/embedded.log"} <= files
