import re
from html.parser import HTMLParser

import pytest

from hub.plots import PLOTS
from hub.report import write_report
from hub.runlog import read_run
from hub.table import MISSING
from tests.hub.records import REFERENCE, RUN, device, fleet_round, tiny_run, write


class Page(HTMLParser):
    """Collects what a browser would fetch, the ids, and the texts of table rows."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.tags, self.rows = [], [], [], []
        self.open = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href", "srcset", "action", "poster", "data"}:
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in {"td", "th"} and self.open:
            self.open.pop()

    def handle_data(self, data):
        if self.open:
            self.rows[-1][-1] += data.strip()

    def row(self, start, length):
        return next(row for row in self.rows if row and row[0] == start and len(row) == length)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.toml").write_text('note = "<script>alert(1)</script>"\n')
    return write(tmp_path, [*tiny_run(), REFERENCE])


def page_of(folder):
    return write_report(folder).read_text("utf-8")


def test_nothing_is_fetched_from_outside(folder):
    text = page_of(folder)
    page = Page(text)
    assert page.links
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert not set(page.tags) & {"script", "link", "iframe", "object", "embed", "img"}
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []
    assert "http://" not in text
    assert "https://" not in text


def test_every_reference_in_the_page_has_its_one_target(folder):
    text = page_of(folder)
    ids = Page(text).ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:href=\"|url\()#([\w.-]+)", text)) <= set(ids)


def test_the_table_holds_the_figures_worked_by_hand(folder):
    page = Page(page_of(folder))
    own = page.row("adasplit", 14)
    assert own[1:8] == ["60.0", "80.0", "0.556", "5.40", "0.300", "0.600", "1.50"]
    assert own[8:] == ["3.00", f"{MISSING}²", "50.0", "4.50", f"{MISSING}³", "30.0"]


def test_c3_shows_the_numbers_put_into_the_formula(folder):
    page = Page(page_of(folder))
    # B = 5400 + 300 of 30000 + 20000; C = 3 of 6 MFLOP
    assert page.row("adasplit", 7)[1:] == ["0.600", "5.70 kB", "0.114", "3.00 MFLOP", "0.500", "0.556"]
    assert page.row("split learning", 7)[1:] == ["0.700", "50.0 kB", "1.000", "6.00 MFLOP", "1.000", "0.545"]


def test_the_table_of_devices_worked_by_hand(folder):
    bed = Page(page_of(folder)).row("bed-2", 14)
    assert bed[1:] == ["70.0", "12", "2.00", "8.40", "600", "300", "10.0", "1.50", "3.00", "50.0", "4.50", MISSING, "0"]


def test_missing_energy_is_a_dash_and_its_reason(folder):
    text = page_of(folder)
    assert f"Energy: {MISSING} (not known, and nothing was put in its place). The reason: no meter was found." in text


def test_the_summary_says_what_happened_in_plain_words(folder):
    text = page_of(folder).replace("\u00a0", " ")
    assert "2 devices trained one model together with adasplit for 3 rounds (1 of them local" in text
    assert "right on 60.0 %" in text
    assert "(from 50.0 % on bed-1 to 70.0 % on bed-2)" in text
    assert (
        "Split learning, for reference, reached 70.0 %: this run is 10.0 points below it and moved 8.8 times fewer bytes."
        in text
    )


def test_late_and_refused_are_counted(tmp_path):
    records = [
        *tiny_run(),
        fleet_round(4, "global", 0.7, late=["bed-2"]),
        {"record": "refusal", "device": "bed-1", "crc": 1},
        {"record": "refusal", "device": "bed-1", "crc": 3, "version": 0},
    ]
    page = Page(page_of(write(tmp_path, records)))
    assert ["bed-1", "0", "3 crc"] in page.rows
    assert ["bed-2", "1", "0"] in page.rows


def test_texts_from_a_run_are_escaped(tmp_path):
    evil = "<img src=x>$1$"
    records = [{**RUN, "dataset": evil}, device(evil, 1), {**fleet_round(1, "global", 0.5), "selected": {evil: 1}}]
    text = page_of(write(tmp_path, records))
    assert "<img" not in text
    assert "&lt;img src=x&gt;$1$" in text


def test_the_configuration_is_shown_and_escaped(folder):
    text = page_of(folder)
    assert "<summary>config.toml</summary>" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_same_folder_gives_the_same_bytes(folder):
    assert page_of(folder) == page_of(folder)


def test_every_plot_is_there_and_takes_its_colours_from_the_page(folder):
    log = read_run(folder)
    for name, plot in PLOTS.items():
        svg = plot(log)
        assert svg is not None, name
        assert "var(--" in svg
        assert "DejaVu" not in svg
    assert page_of(folder).count("<svg") == len(PLOTS)


def test_selections_are_one_cell_for_each_device_and_round(folder):
    # bed-1 was selected twice in rounds 2 and 3, bed-2 never: two cells.
    svg = PLOTS["selections"](read_run(folder))
    cells = svg.partition('PatchCollection_1">')[2].partition("</g>")[0]
    assert cells.count("<path") == 2


def test_a_run_that_died_at_once_still_has_a_report(tmp_path):
    text = page_of(write(tmp_path, [RUN]))
    assert text.count("The run recorded nothing to draw here.") == len(PLOTS)
    assert "no device reported" in text


def test_a_cut_line_is_left_out_and_counted(tmp_path):
    write(tmp_path, tiny_run())
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"record":"round","rou')
    text = page_of(tmp_path)
    assert "1 damaged line of metrics.jsonl could not be read and is left out." in text
    assert Page(text).row("adasplit", 14)[1] == "60.0"


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no metrics\.jsonl: it is not the folder of a run"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="no 'run' record"):
        write_report(write(tmp_path, tiny_run()[1:]))
    assert not (tmp_path / "report.html").exists()


def test_refusals_in_a_devices_own_record_count_too(tmp_path):
    records = [
        {**RUN, "devices": ["bed-1"]},
        device("bed-1", 1, refused={"late activation": 2}),
        fleet_round(1, "local", None),
    ]
    text = page_of(write(tmp_path, records))
    assert ["bed-1", "0", "2 late activation"] in Page(text).rows
    assert "adasplit on wearables, 1 device<" in text


@pytest.mark.parametrize("most", [1, 2, 3, 11, 12, 24, 120])
def test_any_number_of_selections_can_be_drawn(tmp_path, most):
    records = [RUN, device("bed-1", 1), {**fleet_round(1, "global", 0.5), "selected": {"bed-1": most}}]
    write(tmp_path, records)
    assert f"selected {most}x" in page_of(tmp_path)
