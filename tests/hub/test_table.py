import io

import pytest
from rich.console import Console

from hub.table import MISSING, Row, budgets_of, figure, human, render, rich_table, score, summarise
from tests.hub.records import REFERENCE, tiny_run


@pytest.fixture
def rows():
    found = [summarise(tiny_run()), Row.from_record(REFERENCE)]
    return score(found, budgets_of(found, None))


def line_of(text, start, block=0):
    return [line for line in text.splitlines() if line.startswith(start)][block].removeprefix(start).split()


def test_figures_are_those_of_the_records(rows):
    text = render(rows, 80)
    # C3 = 0.6 exp(-((5400 + 300) / 50000 + 3 / 6) / 8)
    assert line_of(text, "adasplit") == ["60.0", "80.0", "0.556", "5.40", "0.300", "0.600", "1.50"]
    assert line_of(text, "adasplit", 1) == ["3.00", f"{MISSING}²", "50.0", "4.50", f"{MISSING}³", "30.0"]
    assert line_of(text, "split learning †")[:5] == ["70.0", "75.0", "0.545", "30.0", "20.0"]
    assert "kB" in text
    assert "MFLOP" in text


def test_missing_is_a_dash_with_a_footnote(rows):
    text = render(rows, 80)
    assert "² the hub's operations were not counted" in text
    assert "³ no meter was found" in text
    assert "¹ not recorded" in text
    assert line_of(text, "split learning †")[5:] == [f"{MISSING}¹"] * 2


def test_recorded_rows_are_marked_with_their_source(rows):
    text = " ".join(render(rows, 80).split())
    assert "† for reference, not from this run's devices: split learning (benchmarks/results/adasplit.jsonl)" in text
    assert "adasplit †" not in text


def test_the_legend_says_how_figures_were_obtained(rows):
    text = " ".join(render(rows, 80, budgets_of(rows, None)).split())
    assert "sent counted by the kernel (TCP_INFO)" in text
    assert (
        "B_max 50.0 kB, C_max 6.00 MFLOP (bytes: the largest in the table; compute: the largest in the table)" in text
    )
    metered = Row("a", joules=3.0, energy_class="sensor", energy_source="INA3221, rail VDD_IN")
    assert "energy  sensor, INA3221, rail VDD_IN: a device's energy" in render([metered])


@pytest.mark.parametrize("width", [60, 80, 100, 132])
def test_no_line_is_wider_than_asked_for(rows, width):
    many = [*rows, Row("a method with a name that is far too long for its column", 0.5, reference="x" * 30)]
    lines = render(many, width, budgets_of(many, {"bytes": 1e6})).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith("a method with a name… † ") for line in lines)


def test_wide_is_one_block(rows):
    assert render(rows, 132).count("method  ") == 1
    assert render(rows, 80).count("method  ") == 2


def test_a_terminal_shows_the_same_cells(rows):
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=False).print(rich_table(rows, 80))
    shown, plain = out.getvalue(), render(rows, 80)
    assert line_of(shown, "adasplit") == line_of(plain, "adasplit")
    assert line_of(shown, "adasplit", 1) == line_of(plain, "adasplit", 1)
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= 80


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0004, "<0.001"),
        (0.0312, "0.031"),
        (0.5, "0.500"),
        (2.154, "2.15"),
        (43.21, "43.2"),
        (999.4, "999"),
        (1234, "1234"),
    ],
)
def test_three_digits(value, text):
    assert figure(value) == text


def test_human_units():
    assert human(2_150_000, "bytes") == "2.15 MB"
    assert human(61 * 2**20, "memory") == "61.0 MiB"
    assert human(0, "bytes") == "0 B"
    assert human(None, "joules") == MISSING


def test_budgets_bring_the_scores_with_them():
    row = Row("a", 0.5, sent_bytes=10, received_bytes=0, client_flops=7)
    assert line_of(render([row], 80, budgets_of([row], None)), "a ")[2] == "0.389"  # 0.5 exp(-2/8)
    assert line_of(render([row], 80), "a ")[2] == f"{MISSING}¹"


def test_bytes_of_a_simulation_are_not_said_to_be_a_sockets():
    text = " ".join(
        render([Row("a", sent_bytes=1, received_bytes=2, bytes_source="counted on the memory link")]).split()
    )
    assert "sent counted on the memory link: a device's frames, without MQTT and TCP" in text
    assert "on the socket" not in text
