import re
from xml.etree import ElementTree as ET

import pytest

from edge.memory_link import SOURCE
from hub.drawing import LIGHT, WIDE
from hub.plots import PLOTS, draw
from hub.runlog import read_run
from tests.hub.records import REFERENCE, RUN, device, fleet_round, tiny_run, write

FIRST, SECOND, THIRD, FOURTH = (LIGHT[f"--series-{i}"] for i in (1, 2, 3, 4))
LOCAL = {**REFERENCE, "method": "local only", "accuracy_last": 0.4, "sent_bytes": 0, "received_bytes": 0}


class Plot:
    """A plot as a reader sees it: its words, and where lines and bars lie on its x axis."""

    def __init__(self, drawing):
        root = ET.fromstring(drawing.alone())  # noqa: S314  our own text
        texts = [e for e in root.iter("{http://www.w3.org/2000/svg}text") if e.text]
        self.words = [e.text for e in texts]
        self.paths = [(e.get("d"), e.get("style")) for e in root.iter("{http://www.w3.org/2000/svg}path")]
        bottom = max(float(e.get("y")) for e in texts if re.fullmatch(r"[\d.]+", e.text))
        ticks = [(float(e.get("x")), float(e.text)) for e in texts if e.get("y") and float(e.get("y")) == bottom]
        (self.left, self.first), (right, last) = ticks[0], ticks[-1]
        self.unit = (last - self.first) / (right - self.left)

    def x(self, pixels):
        return self.first + (pixels - self.left) * self.unit

    def line(self, colour=FIRST):
        """Where the points of the first line of this colour lie."""
        path = next(d for d, style in self.paths if f"fill: none; stroke: {colour}" in (style or ""))
        return [self.x(float(x)) for x in re.findall(r"[ML] (\S+)", path)]

    def lines_across(self, colour):
        """How many dashed lines of this colour go through the plot; the one in the key is too short to count."""
        dashed = [d for d, style in self.paths if colour in (style or "") and "dasharray" in style]
        ends = [[float(x) for x in re.findall(r"[ML] (\S+)", d)] for d in dashed]
        return sum(max(xs) - min(xs) > 100 for xs in ends)

    def bars(self, colour, count):
        """Lengths of the first bars of this colour."""
        found = [d for d, style in self.paths if f"fill: {colour}" in (style or "")][:count]
        ends = [[self.x(float(x)) for x in re.findall(r"[ML] (\S+)", d)] for d in found]
        return [max(xs) - min(xs) for xs in ends]


def log_of(folder, records):
    return read_run(write(folder, records))


def drawn(folder, records, name):
    return Plot(PLOTS[name](log_of(folder, records), WIDE))


def timed(seconds, training, **figures):
    """Two rounds, both evaluated."""
    records = [RUN]
    for number in (1, 2):
        records += [device("bed-1", number, **figures)]
        extra = {"training_seconds": training[number - 1]} if training else {}
        records.append(fleet_round(number, "global", 0.5, seconds=seconds[number - 1], **extra))
    return records


@pytest.mark.parametrize(
    ("training", "figures", "label", "expected"),
    [
        ((2.0, 3.0), {}, "training by wall clock, evaluation left out, s since the start", [2, 5]),
        (None, {}, "wall clock, evaluation included, s since the start", [4, 9]),
        (
            (0.0, 0.0),
            {"socket_source": SOURCE},
            "wall clock of the simulation, evaluation included, s since the start",
            [4, 9],
        ),
        (
            (20.0, 30.0),
            {"socket_source": SOURCE},
            "training by the simulation's clock, evaluation left out, s since the start",
            [20, 50],
        ),
    ],
    ids=["training", "before it was recorded", "simulated", "simulated on a stated link"],
)
def test_seconds_add_up_and_say_by_which_clock(tmp_path, training, figures, label, expected):
    plot = drawn(tmp_path, timed((4.0, 5.0), training, **figures), "accuracy-seconds")
    assert label in plot.words
    assert plot.line() == pytest.approx(expected, rel=0.01)


def sensed(joules, kind="sensor"):
    return {"joules": joules, "kind": kind, "source": "INA226", "reason": None}


GAP = {"joules": None, "kind": None, "source": None, "reason": "the sensor was gone"}


def energised(*fleet):
    """Two evaluated rounds; for each device its energy by the end of each."""
    records = [RUN]
    for number in (1, 2):
        records += [device(f"bed-{i}", number, energy=energies[number - 1]) for i, energies in enumerate(fleet)]
        records.append(fleet_round(number, "global", 0.5))
    return records


def test_joules_are_the_mean_of_the_devices_and_name_their_class(tmp_path):
    fleet = [(sensed(10.0), sensed(30.0)), (sensed(20.0), sensed(50.0))]
    plot = drawn(tmp_path, energised(*fleet), "accuracy-joules")
    assert "energy (sensor), J a device since the start" in plot.words
    assert plot.line() == pytest.approx([15, 40], rel=0.01)


def test_joules_of_different_classes_name_them_all(tmp_path):
    fleet = [(sensed(10.0), sensed(30.0)), (sensed(20.0, "modelled"), sensed(50.0, "modelled"))]
    assert (
        "energy (modelled and sensor), J a device since the start"
        in drawn(tmp_path, energised(*fleet), "accuracy-joules").words
    )


def test_a_device_whose_energy_has_a_gap_is_left_out_of_the_mean_and_counted(tmp_path):
    fleet = [(sensed(10.0), sensed(30.0)), (sensed(100.0), GAP), (GAP, GAP)]
    plot = drawn(tmp_path, energised(*fleet), "accuracy-joules")
    assert "mean of 1 of 3 devices" in plot.words
    assert plot.line() == pytest.approx([10, 30], rel=0.01)


def test_without_a_meter_there_are_no_joules(tmp_path):
    assert "accuracy-joules" not in draw(log_of(tmp_path, tiny_run()))
    assert "accuracy-joules" not in draw(log_of(tmp_path, energised((sensed(10.0), GAP))))


@pytest.mark.parametrize(("kind", "lines"), [("sensor", 0), ("modelled", 1)])
def test_joules_of_a_reference_are_compared_within_their_class_only(tmp_path, kind, lines):
    reference = {**REFERENCE, "joules": 40.0, "energy_class": kind}
    records = [*energised((sensed(10.0), sensed(30.0))), reference]
    plot = drawn(tmp_path, records, "accuracy-joules")
    assert plot.lines_across(SECOND) == lines
    assert "split learning (reference)" in plot.words


def test_a_reference_has_one_colour_in_all_plots(tmp_path):
    central = {"record": "reference", "method": "centralised", "accuracy_last": 0.9}
    log = log_of(tmp_path, [*tiny_run(), LOCAL, central, REFERENCE])
    plots = {name: Plot(PLOTS[name](log, WIDE)) for name in ("accuracy", "accuracy-bytes", "accuracy-seconds")}
    for plot in plots.values():
        assert [plot.lines_across(colour) for colour in (SECOND, THIRD)] == [1, 1]
    assert plots["accuracy-bytes"].lines_across(FOURTH) == 0, "what split learning moved is known"
    assert {"local only (reference, no bytes)", "centralised (reference, bytes not known)"} <= set(
        plots["accuracy-bytes"].words
    )


def test_c3_bars_are_the_score_and_what_bytes_and_operations_take(tmp_path):
    # adasplit: A 0.6, B 5.7 of 50 kB, C 3 of 6 MFLOP, C3 = 0.6 exp(-0.614/8) = 0.5557; split learning: 0.7 exp(-2/8).
    plot = drawn(tmp_path, [*tiny_run(), REFERENCE], "c3")
    assert plot.bars(FIRST, 2) == pytest.approx([0.5557, 0.5452], abs=1e-3)
    assert plot.bars(SECOND, 2) == pytest.approx([0.0443 * 0.114 / 0.614, 0.1548 / 2], abs=1e-3)
    assert plot.bars(FOURTH, 2) == pytest.approx([0.0443 * 0.5 / 0.614, 0.1548 / 2], abs=1e-3)
    assert [word for word in plot.words if re.fullmatch(r"(of accuracy )?0\.\d{3}", word)] == [
        "0.556",
        "of accuracy 0.600",
        "0.545",
        "of accuracy 0.700",
    ]


def test_only_rows_with_a_score_have_a_bar(tmp_path):
    central = {"record": "reference", "method": "centralised", "accuracy_last": 0.9}
    words = drawn(tmp_path, [*tiny_run(), LOCAL, central], "c3").words
    assert "local only" in words
    assert "centralised" not in words


@pytest.mark.parametrize("own", [tiny_run(), [RUN, fleet_round(1, "global", 0.5)]], ids=["alone", "without its own"])
def test_no_bars_where_there_is_nothing_to_compare(tmp_path, own):
    others = [] if len(own) > 2 else [REFERENCE, LOCAL]
    assert "c3" not in draw(log_of(tmp_path, [*own, *others]))


def test_a_simulated_run_has_bytes_though_no_tcp_could_send_again(tmp_path):
    records = [RUN]
    for number in (1, 2):
        records += [device("bed-1", number, socket_retransmitted=None, socket_source=SOURCE)]
        records.append(fleet_round(number, "global", 0.5))
    found = draw(log_of(tmp_path, records))
    for name in ("bytes-rounds", "bytes-devices"):
        assert "sent again by TCP" not in Plot(found[name]).words
    assert {"training, sent", "evaluation", "training, received"} <= set(Plot(found["bytes-rounds"]).words)
    # of 2000 sent 400 were evaluation's; the axis is in kB
    plot = Plot(found["bytes-devices"])
    assert plot.bars(FIRST, 1) == pytest.approx([1.6], rel=0.01)
    assert plot.bars(FOURTH, 1) == pytest.approx([0.2], rel=0.02)


def test_a_plot_without_its_neighbour_takes_the_whole_width(tmp_path):
    records = [RUN, device("bed-1", 1, peak_rss_bytes=None), fleet_round(1, "global", 0.5)]
    found = draw(log_of(tmp_path, records))
    assert found["step-time"].wide
    assert not found["bytes-rounds"].wide
    assert "memory" not in found


def test_a_large_fleet_is_drawn_as_a_range(tmp_path):
    names = [f"bed-{i:02}" for i in range(30)]
    records = [{**RUN, "devices": names}, *(device(name, 1) for name in names)]
    accuracies = dict.fromkeys(names, 0.5)
    records.append({**fleet_round(1, "global", 0.5), "accuracies": accuracies})
    words = drawn(tmp_path, records, "accuracy").words
    assert "lowest to highest device" in words
    assert "each device" not in words


def test_selections_are_one_cell_for_each_device_and_round(tmp_path):
    # bed-1 was selected twice in rounds 2 and 3, bed-2 never: two cells.
    svg = draw(log_of(tmp_path, tiny_run()))["selections"].svg
    cells = svg.partition('PatchCollection_1">')[2].partition("</g>")[0]
    assert cells.count("<path") == 2


@pytest.mark.parametrize("most", [1, 2, 3, 11, 12, 24, 120])
def test_any_number_of_selections_can_be_drawn(tmp_path, most):
    records = [RUN, device("bed-1", 1), {**fleet_round(1, "global", 0.5), "selected": {"bed-1": most}}]
    assert f"selected {most}x" in drawn(tmp_path, records, "selections").words


def test_a_run_that_died_at_once_has_nothing_to_draw(tmp_path):
    log = log_of(tmp_path, [RUN])
    assert draw(log) == {}
    assert all(plot(log, 10.0) is None for plot in PLOTS.values())


def test_what_was_spent_stands_against_the_budget(tmp_path):
    def spent(up):
        return {"up_per_run": 60_000.0, "up_spent": up, "down_spent": 0}

    records = [RUN]
    for number in (1, 2, 3):
        records += [device("bed-1", number, budget=spent(10_000 * number)), device("bed-2", number, budget=spent(500))]
        records.append(fleet_round(number, "global", 0.5))
    log = read_run(write(tmp_path, records))
    plot = Plot(PLOTS["budget"](log, WIDE))
    assert "budget, sent" in plot.words
    assert "kB of a device, with headers" in plot.words
    assert plot.line() == pytest.approx([1, 2, 3], abs=0.05)
    assert plot.lines_across(FIRST) == 1
    assert not [word for word in plot.words if "received" in word]


def test_without_a_budget_there_is_no_plot_of_it(tmp_path):
    assert "budget" not in draw(read_run(write(tmp_path, tiny_run())))
