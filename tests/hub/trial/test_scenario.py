import math
import re
from pathlib import Path

import pytest

from edge.wire.toml_fields import ConfigError
from hub.trial.outages import Outages
from hub.trial.scenario import Course, Link, Scenario, describe, library, load, read
from hub.trial.traces import PacketTrace, RateTrace

ABOUT = '[scenario]\nname = "s"\nsource = "ours"\n'
FILE = Path("s.toml")


def of(text):
    return read(ABOUT + text, FILE)


def problems(text, about=ABOUT):
    with pytest.raises(ConfigError) as caught:
        read(about + text, FILE)
    return list(caught.value.problems)


@pytest.mark.parametrize("name", sorted(library()))
def test_each_scenario_of_the_library_loads_and_says_where_its_numbers_come_from(name):
    scenario = load(name)
    assert scenario.name == name
    assert len(scenario.source) > 5
    for course in (scenario.links.up, scenario.links.down):
        course.pace()


def test_the_library_has_what_the_documentation_names():
    names = {"wifi-far", "lte-drive", "lora-gateway", "satellite", "basement", "flapping", "perfect"}
    assert set(library()) == names


def test_the_trace_of_the_drive_does_not_pass_for_a_recording():
    scenario = load("lte-drive")
    assert "not a recording" in scenario.source
    assert isinstance(scenario.links.down.trace, RateTrace)
    assert scenario.links.down.trace.seconds == 180
    for path in library()["lte-drive"].parent.glob("*.csv"):
        assert path.read_text().startswith("# Ours: generated, not a recording.")


def test_the_annotated_example_is_a_scenario():
    scenario = read(describe(), FILE)
    assert scenario.links.up.at(0) == Link()


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ('"256kbit"', 256e3), ('"10mbit"', 10e6), ('"1.5 Mbit/s"', 1.5e6), ('"2gbit"', 2e9), ('"9600bit"', 9600.0),
        ("64000", 64e3), ("0.5e6", 5e5),
    ],
)  # fmt: skip
def test_a_rate_is_a_text_with_a_unit_or_a_number(text, rate):
    assert of(f"[link]\nrate = {text}").links.up.at(0).rate == rate


def test_both_directions_are_alike_but_for_what_one_says():
    links = of('[link]\nrate = "1mbit"\ndelay_seconds = 0.1\n[up]\nrate = "64kbit"').links
    assert links.up.at(0) == Link(rate=64e3, delay_seconds=0.1)
    assert links.down.at(0) == Link(rate=1e6, delay_seconds=0.1)


def test_a_schedule_changes_what_it_names_and_leaves_the_rest():
    links = of("""
[link]
rate = "1mbit"
loss = 0.1
[[schedule]]
at_seconds = 10
rate = "2mbit"
[[schedule]]
at_seconds = 20
loss = 0.2
[schedule.down]
rate = "3mbit"
""").links
    assert [links.up.at(s) for s in (0, 9.9)] == [Link(rate=1e6, loss=0.1)] * 2
    assert [links.up.at(s) for s in (10, 19.9)] == [Link(rate=2e6, loss=0.1)] * 2
    assert links.up.at(20) == Link(rate=2e6, loss=0.2)
    assert links.down.at(1000) == Link(rate=3e6, loss=0.2)


def test_a_change_at_the_start_replaces_it():
    assert of("[[schedule]]\nat_seconds = 0\nloss = 0.5").links.up.steps == ((0.0, Link(loss=0.5)),)


def test_a_device_has_links_of_its_own():
    scenario = of("""
[link]
rate = "1mbit"
loss = 0.1
[up]
delay_seconds = 0.2
[outages]
times = [[10, 5]]
[devices.pi-1.link]
rate = "2mbit"
[devices.pi-1.up]
loss = 0
[devices.pi-2.outages]
every_seconds = 60
for_seconds = 1
""")
    assert scenario.of("pi-1").up.at(0) == Link(rate=2e6, loss=0.0, delay_seconds=0.2)
    assert scenario.of("pi-1").down.at(0) == Link(rate=2e6, loss=0.1)
    assert scenario.of("pi-1").outages == Outages(times=((10.0, 5.0),))
    assert scenario.of("pi-2").outages == Outages(every_seconds=60.0, for_seconds=1.0)
    assert scenario.of("pi-2").up == scenario.links.up
    assert scenario.of("another") == scenario.links


def test_traces_are_read_from_the_scenarios_folder(tmp_path):
    (tmp_path / "a.up").write_text("5\n10\n")
    (tmp_path / "a.csv").write_text("time,rate,loss\n0,1000,0.5\n")
    (tmp_path / "s.toml").write_text(ABOUT + '[trace]\nup = "a.up"\ndown = "a.csv"')
    links = load(tmp_path / "s.toml").links
    assert links.up.trace == PacketTrace((5, 10))
    assert links.down.trace == RateTrace((0.0,), (1000.0,), (0.5,), math.inf)
    assert links.down.at(7).loss == 0.5


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[link]\nrate = "fast"',
         's.toml: [link] rate = "fast": must be a rate such as 256kbit or 10mbit, or a number of bit/s'),
        ("[link]\nrate = -1", "s.toml: [link] rate = -1: must be a rate such as 256kbit or 10mbit, or a number of bit/s"),
        ("[up]\nloss = 2", "s.toml: [up] loss = 2: must be a number from 0 to 1"),
        ("[up]\nloss = true", "s.toml: [up] loss = true: must be a number from 0 to 1"),
        ("[link]\nqueue_bytes = 1499", "s.toml: [link] queue_bytes = 1499: must be a whole number from 1500 to 1000000000"),
        ("[link]\nqueue_bytes = 2e3", "s.toml: [link] queue_bytes = 2000.0: must be a whole number from 1500 to 1000000000"),
        ("[link]\njitter_seconds = 0.1",
         "s.toml: [link] jitter_seconds = 0.1 must not be above delay_seconds = 0: nothing arrives before it is sent"),
        ("[down]\np_enter = 0.1",
         "s.toml: [down] p_enter = 0.1 needs p_leave, a chance above 0: else the bad state never ends"),
        ("[link]\nreorder = 0.1",
         "s.toml: [link] reorder = 0.1 needs delay_seconds above 0: there is nothing to overtake"),
        ("[outages]\ntimes = [3]", "s.toml: [outages] times = [3]: must be a list of [start, length] in seconds"),
        ("[outages]\ntimes = [[3, 0]]",
         "s.toml: [outages] times has [3, 0]: must be a start of at least 0 and a length above 0"),
        ("[outages]\ntimes = [[3, 4], [5, 1]]",
         "s.toml: [outages] times has [3, 4] before one that starts at 5: must be sorted and apart"),
        ("[outages]\nevery_seconds = 5",
         "s.toml: [outages] every_seconds and for_seconds go together: give both or neither"),
        ("[outages]\nevery_seconds = 5\nfor_seconds = 3\njitter_seconds = 1",
         "s.toml: [outages] for_seconds = 3 with jitter_seconds = 1 must fit into every_seconds = 5, the jitter counted twice"),
        ("[[schedule]]\nloss = 0.1",
         "s.toml: [schedule] at_seconds is missing: must be a number from 0 to 1000000000, such as 60.0"),
        ("[[schedule]]\nat_seconds = 5\n[[schedule]]\nat_seconds = 5",
         "s.toml: [[schedule]] at_seconds = 5 comes after 5: must be above the one before"),
        ("[schedule]\nat_seconds = 5", "s.toml: [schedule]: must be written [[schedule]], once for each change"),
        ("[devices.pi.link]\nloss = 7", "s.toml: [devices.pi.link] loss = 7: must be a number from 0 to 1"),
        ("[devices.pi]\nlink = 3", "s.toml: devices.pi.link = 3: must be a table, written [devices.pi.link]"),
        ('[devices."a b"]', 's.toml: [devices] "a b": must be a name of letters, digits, points, dashes'),
        ("[lnk]",
         "s.toml: [lnk] is not a table of a scenario; known: scenario, link, up, down, outages, trace, schedule, devices"),
        ('[trace]\nup = "none.csv"',
         's.toml: [trace] up = "none.csv": none.csv cannot be read: [Errno 2] No such file or directory: \'none.csv\''),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_a_sentence(text, sentence):
    assert problems(text) == [sentence]


def test_an_unknown_key_comes_with_the_known_ones():
    (sentence,) = problems("[link]\ndelay = 1")
    assert sentence.startswith("s.toml: [link] has no key delay; known: rate, delay_seconds, jitter_seconds, loss,")


def test_all_mistakes_are_told_at_once():
    told = problems("[link]\nloss = 2\n[up]\nrate = 'x'\n", about="[scenario]\nname = 'a b'\n")
    assert [re.match(r"s.toml: \[\w+\] \w+", sentence)[0] for sentence in told] == [
        "s.toml: [scenario] name", "s.toml: [scenario] source", "s.toml: [link] loss", "s.toml: [up] rate",
    ]  # fmt: skip


def test_a_trace_leaves_no_place_for_a_rate(tmp_path):
    (tmp_path / "a.csv").write_text("time,rate,loss\n0,1000,0\n")
    (tmp_path / "s.toml").write_text(ABOUT + '[link]\nrate = "1mbit"\nloss = 0.1\n[trace]\nup = "a.csv"')
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "s.toml")
    assert [problem.partition(": ")[2] for problem in caught.value.problems] == [
        "[link] rate = 1000000.0: must be left out, for the trace gives it",
        "[link] loss = 0.1: must be left out, for the trace gives it",
    ]


def test_what_is_no_toml_or_no_file_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"^s.toml is not valid TOML: "):
        read("[", FILE)
    with pytest.raises(ConfigError, match=r"^scenario wify: must be a file, or one of basement, flapping, "):
        load("wify")
    with pytest.raises(ConfigError, match=r"none.toml cannot be read"):
        load(tmp_path / "none.toml")


def test_a_scenario_may_not_speak_of_devices_that_are_not_there():
    scenario = Scenario("s", "ours", devices={"pi-9": of("").links})
    scenario.check(["pi-8", "pi-9"])
    with pytest.raises(ConfigError, match=r"^scenario s: \[devices.pi-9\] must be one of pi-1, pi-2$"):
        scenario.check(["pi-1", "pi-2"])


def test_a_course_without_steps_of_its_own_limits_nothing():
    assert Course().pace().carry(10**9, 5.0) == (5.0, 5.0)
