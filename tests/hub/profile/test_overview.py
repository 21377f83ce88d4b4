"""The table of a fleet's boards, to the letter."""

from dataclasses import replace

from edge.wire.profile import Missing, Profile, Stage
from hub.profile.overview import render

MIB = 2**20
ROOM = {"total_bytes": 1024 * MIB, "available_bytes": 700 * MIB, "limit_bytes": 512 * MIB, "limit_source": "memory.max"}
FORWARD = Stage(
    "forward", 32, 1, "", 100, 0.010, 0.009, 0.011, 0.012, 0.009, 0.01, peak_bytes=90 * MIB, joules_why="no meter here"
)
LOCAL = replace(FORWARD, stage="local", median_seconds=0.0312, peak_bytes=100 * MIB)
METERED = replace(LOCAL, joules=0.1234, joules_why="", joules_kind="sensor", joules_source="ina226 VDD_IN")
ENCODE = replace(FORWARD, stage="encode", codec="entropy:1", median_seconds=0.002, peak_bytes=101 * MIB)


def board(name, *stages, missing=(), room=ROOM):
    return Profile({"model": name}, (), stages=stages, missing=missing, conditions={"room": room} if room else {})


def test_the_table_of_a_fleet():
    found = {
        "kitchen": board("Raspberry Pi 5 Model B Rev 1.0", FORWARD, METERED, ENCODE, replace(METERED, batch=1)),
        "a-board-with-a-long-name": board("QEMU", LOCAL, room=None),
    }
    assert render(found, {"attic": "no answer within 60 s"}).splitlines() == EXPECTED


EXPECTED = """\
device       board           batch thr step ms        joules peak MiB headroom
a-board-with QEMU               32   1    31.2            –¹      100       –²
-a-long-name
kitchen      Raspberry Pi 5…     1   1    31.2 0.123 sensor³      100  412 MiB
                                32   1    31.2 0.123 sensor³      101  411 MiB
¹ no meter here
² the memory of the board is not known
³ sensor: ina226 VDD_IN
no profile of attic: no answer within 60 s
""".splitlines()  # noqa: RUF001  the dash of tables


def test_a_step_may_be_two_halves():
    backward = replace(FORWARD, stage="backward", median_seconds=0.020, joules=0.2, joules_kind="metered")
    text = render({"a": board("b", replace(FORWARD, joules=0.1, joules_kind="metered"), backward)}, {})
    assert "30.0" in text
    assert "0.300 metered" in text
    assert "no meter here" in render({"a": board("b", FORWARD, backward)}, {})


def test_what_was_not_measured_has_its_reason():
    lacks = Missing("local", 32, 1, "the graph does not fit in memory")
    text = render({"a": board("b", missing=[lacks])}, {})
    assert text.count("–¹") == 2  # noqa: RUF001  the dash of tables
    assert "¹ the graph does not fit in memory" in text
    assert "the profile has no stages" in render({"a": board("b")}, {})


def test_nobody_is_no_table():
    assert render({}, {"a": "it did not come within 5 s"}) == "no profile of a: it did not come within 5 s\n"


def test_words_of_strangers_stay_on_their_line():
    text = render({"a": board("[bold]ev\x1b[31mil\nboard", LOCAL)}, {"b": "one\ntwo\x1b[2J" + "x" * 100})
    assert "\x1b" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
