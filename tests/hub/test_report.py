import re
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from hub.report import write_report
from hub.table import MISSING
from tests.hub.records import REFERENCE, RUN, device, fleet_round, tiny_run, write


class Page(HTMLParser):
    """Collects what a browser would fetch, the ids, and the texts of table rows."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.tags, self.rows, self.headings = [], [], [], [], []
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
        if tag in {"h2", "h3"}:
            self.open.append(tag)
            self.headings.append("")

    def handle_endtag(self, tag):
        if tag in {"td", "th", "h2", "h3"} and self.open:
            self.open.pop()

    def handle_data(self, data):
        if not self.open:
            return
        if self.open[-1] in {"h2", "h3"}:
            self.headings[-1] += data
        else:
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
    first = {path.name: path.read_bytes() for path in (page_path(folder), *plots_of(folder))}
    assert {path.name: path.read_bytes() for path in (page_path(folder), *plots_of(folder))} == first


def page_path(folder):
    return write_report(folder)


def plots_of(folder):
    return sorted((folder / "plots").iterdir())


ALL = [
    "Result",
    "Learning",
    "Accuracy, round by round",
    "Accuracy against bytes",
    "Accuracy against seconds",
    "Loss on the hub",
    "Loss on the devices",
    "Who was selected",
    "Selections by device and round",
    "Network",
    "Bytes of a device, mean",
    "Bytes of each device",
    "On the devices",
    "Time of a training step",
    "Memory",
    "The C3-Score",
    "C3-Score beside the references",
    "How it was run",
]


def test_the_page_has_a_heading_for_every_figure_there_is(folder):
    assert Page(page_of(folder)).headings == ALL


def test_what_averaging_does_not_have_leaves_no_heading(tmp_path):
    text = page_of(write(tmp_path, [*averaging(), REFERENCE]))
    lacking = {"Loss on the hub", "Who was selected", "Selections by device and round"}
    assert Page(text).headings == [heading for heading in ALL if heading not in lacking]
    assert "On the grey ground" not in text


def averaging():
    records = [{**RUN, "strategy": "fedavg"}]
    for number in (1, 2):
        records += [device(name, number) for name in ("bed-1", "bed-2")]
        records.append(fleet_round(number, "global", 0.5, loss=None, selected={}))
    return records


def test_half_a_figure_stands_beside_its_neighbour_or_takes_the_whole_width(folder, tmp_path):
    assert widths(page_of(folder)) == {"hub-loss": "half", "device-loss": "half", "accuracy-seconds": "wide"}
    assert widths(page_of(write(tmp_path / "averaging", averaging()))) == {
        "device-loss": "wide",
        "accuracy-seconds": "wide",
    }


def widths(text):
    """How wide the figures of the section on learning are, but for those that always take the whole width."""
    section = text.partition("<h2>Learning</h2>")[2].partition("</section>")[0]
    found = re.findall(r'<svg [^>]*class="(wide|half)".*?<g id="([a-z-]+)-figure_1"', section, re.DOTALL)
    return {name: width for width, name in found if name not in {"accuracy", "accuracy-bytes"}}


def test_joules_have_a_figure_where_there_is_a_meter(tmp_path):
    metered = {"joules": 12.0, "kind": "metered", "source": "a meter"}
    records = [RUN, device("bed-1", 1, energy=metered), fleet_round(1, "global", 0.5)]
    page = page_of(write(tmp_path, records))
    headings = Page(page).headings
    assert headings[headings.index("Accuracy against seconds") + 1] == "Accuracy against joules"
    assert "energy (metered), J a device since the start" in page
    assert (tmp_path / "plots" / "accuracy-joules.svg").is_file()


def test_a_score_alone_has_no_bars(tmp_path):
    headings = Page(page_of(write(tmp_path, tiny_run()))).headings
    assert "C3-Score beside the references" not in headings
    assert "The C3-Score" in headings


def test_every_figure_of_the_page_is_a_file_that_can_be_read_alone(folder):
    drawn = re.findall(r'<g id="([a-z0-9-]+)-figure_1"', page_of(folder))
    files = plots_of(folder)
    assert {path.stem for path in files} == set(drawn)
    assert {"accuracy-bytes.svg", "accuracy-seconds.svg", "c3.svg"} <= {path.name for path in files}
    for path in files:
        text = path.read_text("utf-8")
        assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314  our own text
        assert "var(" not in text
        assert 'fill="#ffffff"' in text


def test_a_plot_of_an_earlier_report_does_not_stay(folder):
    page_of(folder)
    (folder / "plots" / "mine.svg").write_text("<svg/>")
    write(folder, averaging())
    page_of(folder)
    names = {path.name for path in plots_of(folder)}
    assert not {"hub-loss.svg", "selections.svg", "c3.svg"} & names
    assert {"accuracy.svg", "mine.svg"} <= names


def test_plots_take_their_colours_from_the_page(folder):
    text = page_of(folder)
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    assert {"--ink", "--muted", "--series-1", "--shade"} <= used
    dark = text.partition("prefers-color-scheme: dark")[2].partition("</style>")[0]
    assert all(f"{name}:" in dark for name in used - {"--font"})


def test_a_note_beside_a_method_keeps_clear_of_its_name(tmp_path):
    text = page_of(write(tmp_path, [{**RUN, "note": "simulated"}, *tiny_run()[1:]]))
    assert "<li><b>adasplit</b>simulated</li>" in text
    assert re.search(r"ul\.notes b \{[^}]*min-width: [^}]*padding-right: ", text)


def test_a_loss_below_0_is_explained(folder, tmp_path):
    explained = "the product of its activations with the hub&#39;s gradient"
    assert explained not in page_of(folder)
    records = [RUN, device("bed-1", 1, loss=-0.1), fleet_round(1, "global", 0.5)]
    assert explained in page_of(write(tmp_path / "led", records))


def test_a_run_that_died_at_once_still_has_a_report(tmp_path):
    text = page_of(write(tmp_path, [RUN]))
    assert "The run ended before its first round was over: there is nothing to draw." in text
    assert "<figure>" not in text
    assert "no device reported" in text
    assert not (tmp_path / "plots").exists()


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


def test_the_share_that_was_not_sent_again_is_a_column_only_where_there_is_one(tmp_path):
    records = tiny_run()
    assert "not sent again" not in page_of(write(tmp_path / "without", records))
    records[-3]["known"] = {"sent": 30, "skipped": 10}
    text = page_of(write(tmp_path / "with", records))
    assert "<th>not sent again<span>% of samples</span></th>" in text
    assert "<td>25.0</td>" in text
