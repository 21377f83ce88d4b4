import math

import pytest

from export.cuts.link import on_the_wire, parse_budget, parse_link
from export.errors import ExportError


@pytest.mark.parametrize(
    ("text", "speed"), [("256kbit", 32_000), ("1.5Mbit/s", 187_500), ("20kB/s", 20_000), ("8 bit", 1)]
)
def test_links(text, speed):
    assert parse_link(text).bytes_per_second == speed
    assert parse_link(text).seconds(2 * speed) == 2


@pytest.mark.parametrize("text", ["", "fast", "256", "256 kb", "20kB", "-1kbit", "0kbit"])
def test_wrong_links(text):
    with pytest.raises(ExportError, match=r"link"):
        parse_link(text)


def test_budgets():
    assert parse_budget("5MB/day").rounds_per_day(1000, 20) == 5000
    assert parse_budget("2 MB/run").rounds_per_day(100_000, 20) == math.inf
    assert parse_budget("2 MB/run").rounds_per_day(100_001, 20) == 0
    assert parse_budget("200 kB/round").rounds_per_day(200_001, 20) == 0


@pytest.mark.parametrize("text", ["5MB", "5/day", "5MB/week", "0MB/day", "5 apples/day"])
def test_wrong_budgets(text):
    with pytest.raises(ExportError, match=r"budget"):
        parse_budget(text)


def test_headers():
    # one packet of 100 bytes: 32 of MQTT and 40 of TCP and IP
    assert on_the_wire(100) == 172
    assert on_the_wire(0) == 0
    assert on_the_wire(2 * 8192) == pytest.approx((16384 + 64) * (1 + 40 / 1448))
