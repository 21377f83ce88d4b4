"""The page of one board, of several, and of what `cutlayer-export cuts` writes."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from edge.wire.profile import Profile, ProfileError
from hub.__main__ import main
from hub.profile import page, read
from hub.table import MISSING
from tests.hub.profile import samples

ONE = ((32, 1),)


class Text(HTMLParser):
    """What a reader sees, drawings left out: a line a row, cells apart by a bar; cells that are empty; the drawings' own words."""

    def __init__(self, html):
        super().__init__()
        self.lines, self.drawn, self.empty = [], [], []
        self._svg, self._skip, self._cell = 0, 0, None
        self.feed(html)
        self.text = re.sub(r"[^\S\n]+", " ", "".join(self.lines))

    def handle_starttag(self, tag, attrs):
        self._svg += tag == "svg"
        self._skip += tag in {"style", "title"}
        if tag in {"p", "tr", "li", "dt", "h1", "h2", "h3", "figcaption"}:
            self.lines.append("\n")
        if tag == "td":
            self._cell = ""
        if tag in {"dd", "small"}:
            self.lines.append(" ")

    def handle_endtag(self, tag):
        self._svg -= tag == "svg"
        self._skip -= tag in {"style", "title"}
        if tag in {"td", "th"}:
            self.lines.append(" | ")
        if tag == "td":
            if not self._cell.strip():
                self.empty.append(self.lines[-6:])
            self._cell = None

    def handle_data(self, data):
        if self._svg:
            self.drawn.append(data)
        elif not self._skip:
            self.lines.append(data)
            if self._cell is not None:
                self._cell += data


def rendered(*profiles):
    return page.render(read.named([(f"file-{place}", profile) for place, profile in enumerate(profiles)]))


def line(text, start):
    """The first row that begins so."""
    return next(row for row in text.splitlines() if row.strip().startswith(start))


@pytest.fixture(scope="module")
def pi5():
    return Text(rendered(samples.pi5(ONE)))


def test_a_stage_has_its_figures_with_interval_class_and_source(pi5):
    # 31.2 ms, less 1 % and +1.4 %; 4.1 W for it; ± 6 % and 0.1 mJ.
    assert line(pi5.text, "local |") == (
        f"local | 160 | 31.2 | 30.9 … 31.6 | 34.9 | 30.3 | 31.2 | 127.9 ± 7.8 | sensor³ | 110 | 22.0 | 80.0 | {MISSING}² | "
    )
    assert "³Raspberry Pi 5 PMIC; read 40.1 times a second; the board takes 2.71 W idle by the same source" in pi5.text
    assert "²nothing leaves the process in this stage" in pi5.text
    assert line(pi5.text, "encode entropy:1 |").rstrip(" |").endswith("12 345")
    assert "95 % interval" in pi5.text


def test_what_is_missing_says_why_and_is_neither_0_nor_blank(pi5):
    assert line(pi5.text, "send |") == "send | missing: no broker is configured: [hub] broker is empty | "
    assert line(pi5.text, "sensor |").startswith(
        f"sensor | 160 | 0.620 | 0.614 … 0.629 | 0.694 | 0.601 | 0.620 | {MISSING}¹ | {MISSING} |"
    )
    assert "energy of sensor too short for the sensor: 0.1 s" in pi5.text
    assert not pi5.empty
    assert {"not measured", "not known"} <= set(pi5.drawn)  # of time, and of joules


def test_board_and_conditions_stand_there(pi5):
    for row in (
        "model | Raspberry Pi 5 Model B Rev 1.0 | ",
        "SoC | bcm2712 | ",
        "clock | cores 0 1 2 3: 1.50 GHz to 2.40 GHz, governor ondemand, 1.50 GHz before | ",
        "onnxruntime | 1.31.0 | ",
        "execution providers | CPUExecutionProvider | ",
        "measured | 2026-11-20 14:03 UTC | ",
        "data | the device's own, 480 samples | ",
        "how sure | intervals hold the median with 95 % confidence, wanted ±3 % of the median, 5.00 s a stage | ",
        "slowed down by | nothing (vcgencmd get_throttled) | ",
        "others | 1.2 % of the processors' time was taken by others | ",
        "idle | 2.71 W ± 0.020 W over 10.0 s (sensor) | ",
        "reading the sensor took | 0.42 % of one core (wanted: less than 1 %) | ",
    ):
        assert row in pi5.text


def test_memory_is_held_against_the_limit_and_the_board(pi5):
    # 110 MiB: 512 less 110 below the limit, 4096 less 110 on the board.
    assert (
        line(pi5.text.partition("headroom, computed")[2], "local |")
        == "local | 110 | 22.0 | 402 | 3986 | batch 32, 1 thread | "
    )
    assert "cutlayer.service may take 512 MiB (/etc/systemd/system/cutlayer.service)" in pi5.text


def test_a_model_that_does_not_fit_is_said_in_red():
    profile = samples.pi5(ONE, room={**samples.CONDITIONS["room"], "limit_bytes": 100 << 20})
    html = rendered(profile)
    assert '<p class="alarm">local (batch 32, 1 thread) does not fit: it is 10.0 MiB above what there is.</p>' in html
    assert '<td class="bad">\N{MINUS SIGN}10.0' in html


def test_a_board_that_was_slowed_down_is_said_first():
    html = rendered(samples.zero2(ONE))
    alarm = html.index('<p class="alarm"><strong>Raspberry Pi Zero 2 W Rev 1.0 was slowed down')
    assert "under-voltage, throttled in between" in html[alarm:][:200]
    assert "others took 11 % of the processors&#39; time meanwhile" in html
    assert "energy of all stages no meter: no RAPL" in Text(html).text
    assert alarm < html.index("<h2>")
    assert 'class="alarm"' not in rendered(samples.pi5(ONE))


def test_an_interval_wider_than_wanted_is_marked():
    assert "less sure than the ±3 % of the median that were wanted" in Text(rendered(samples.zero2(ONE))).text


def test_joules_say_their_class_and_an_uncertainty_that_is_unknown():
    metered = samples.changed(
        samples.pi5(ONE), joules=0.5, joules_kind="metered", joules_source="tcp://meter", joules_uncertainty=None
    )
    text = Text(rendered(metered)).text
    assert re.search(r"500(.) \| metered(.) ", line(text, "local |"))
    assert "its uncertainty is not known" in text
    wide = samples.changed(
        samples.pi5(ONE), joules=0.5, joules_kind="modelled", joules_source="model", joules_uncertainty=0.5
    )
    text = Text(rendered(wide)).text
    assert "it may be off by as much as it is: too short for the source" in text
    assert "500 ± 500" in text


def test_codecs_are_told_apart_everywhere():
    profile = samples.pi5(ONE)
    raw = replace(
        next(row for row in profile.stages if row.stage == "encode"),
        codec="float32",
        median_seconds=0.004,
        bytes=98_765,
    )
    profile = replace(profile, stages=(*profile.stages, raw))
    found = Text(rendered(profile, profile))
    assert line(found.text, "encode float32, batch 32, 1 thread |").startswith(
        "encode float32, batch 32, 1 thread | 4.00 |"
    )
    assert line(found.text, "encode entropy:1, batch 32, 1 thread |").startswith(
        "encode entropy:1, batch 32, 1 thread | 2.10 |"
    )
    assert {"encode float32", "encode entropy:1", "4.00", "2.10"} <= set(found.drawn)


def test_a_stage_that_slowed_down_by_and_by_is_said():
    drift = {"stage": "local", "batch": 32, "threads": 1, "codec": "", "ratio": 1.234}
    text = Text(rendered(samples.pi5(ONE, drifts=[drift]))).text
    assert "a stage was slower in the last third than in the first." in text
    assert "slower in its last third than in its first | local (batch 32, 1 thread) 1.23 times | " in text


def test_joules_are_drawn_where_there_are_any(pi5):
    assert {"mJ a repetition: mean, and what it may be off by", "128"} <= set(pi5.drawn)
    assert not any("mJ a repetition" in word for word in Text(rendered(samples.zero2(ONE))).drawn)


def test_operators_have_their_shares(pi5):
    assert line(pi5.text, "ConvTranspose |") == "ConvTranspose | 1 | 6.86 | 22.0 | "
    assert {"Conv", "61 %", "all others"} <= set(pi5.drawn)


def test_a_course_that_nobody_could_read_says_why():
    thermal = {**samples.thermal(None), "temperature": {"celsius": None, "source": None, "reason": "no processor zone"}}
    profile = samples.pi5(
        ONE, course=[[0.0, None, None], [10.0, None, None]], thermal_before=thermal, thermal_after=thermal
    )
    text = Text(rendered(profile)).text
    assert "Neither temperature nor clock could be read: no processor zone." in text
    assert "temperature | not known: no processor zone | " in text


def test_a_profile_of_cuts_gives_a_page_of_its_steps():
    found = Text(rendered(samples.cuts()))
    assert (
        line(found.text, "pool2 local |")
        == f"pool2 local | 32 | 1 | 40 | 19.0 | 22.8 | 18.1 | {MISSING}¹ | 96.0 | 31.0 | "
    )
    assert "¹cuts reads no meter: joules come with a profile of the board" in found.text
    assert "Only whole steps of 4 cuts were timed" in found.text
    assert "execution providers | not recorded | " in found.text
    assert "recorded neither temperature nor clock" in found.text
    assert not found.empty
    assert "pool2, batch 32, 1 thread" in found.drawn


def test_an_empty_profile_gives_a_page():
    text = Text(rendered(Profile({}, ()))).text
    assert "Profile of unknown board" in text
    assert "has neither stages nor steps" in text


def test_two_boards_are_compared_with_the_first():
    found = Text(rendered(samples.pi5(ONE), samples.zero2(ONE)))
    # 6.3 times as long; least 6.3 · 0.95 / 1.014, most 6.3 · 1.07 / 0.99.
    assert line(found.text, "local, batch 32, 1 thread |") == (
        f"local, batch 32, 1 thread | 31.2 | 128 sensor | 110 | 197 | {MISSING}² | 110 | 6.30 5.90 … 6.81 | {MISSING}³ | "
    )
    assert "³no ratio without joules of both" in found.text
    assert "Raspberry Pi Zero 2 W Rev 1.0" in found.drawn
    assert not found.empty


def test_what_else_differs_is_said():
    other = samples.pi5(ONE, bundle="0" * 64)
    assert "Not only the boards differ: so do bundle." in Text(rendered(samples.pi5(ONE), other)).text


def test_boards_of_one_name_are_told_apart():
    text = Text(rendered(samples.pi5(ONE), samples.pi5(ONE))).text
    assert "Raspberry Pi 5 Model B Rev 1.0 (file-0), Raspberry Pi 5 Model B Rev 1.0 (file-1)" in text


def test_profiles_without_anything_in_common_are_not_compared():
    text = Text(rendered(samples.cuts(), replace(samples.pi5(ONE), steps=()))).text
    assert "there is nothing to compare" in text


EVIL = '<script>alert("1")</script>&"\'$x$'


def test_everything_is_escaped():
    board = {**samples.BOARD, "model": EVIL, "soc": EVIL, "kernel": EVIL, "providers": [EVIL]}
    board["clocks"] = [{"cores": EVIL, "governor": EVIL, "maximum_hertz": 1e9}]
    profile = samples.changed(samples.pi5(ONE), codec=EVIL, joules_source=EVIL, joules_kind=EVIL, peak_why=EVIL)
    told = {
        **profile.conditions,
        "data": EVIL,
        "slowed": EVIL,
        "date": EVIL,
        "unit": EVIL,
        "energy": EVIL,
        "cutlayer": EVIL,
    }
    profile = replace(
        profile,
        board=board,
        conditions=told,
        stages=[replace(profile.stages[0], stage=EVIL), *profile.stages],
        shares=[replace(profile.shares[0], op=EVIL, stage=EVIL)],
        missing=[replace(profile.missing[0], why=EVIL, stage="send")],
        steps=[replace(profile.steps[0], model=EVIL, cut=EVIL, kind=EVIL)],
    )
    html = rendered(profile, profile)
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_the_page_needs_nothing_else_and_is_the_same_every_time():
    html = rendered(samples.pi5(ONE), samples.zero2(ONE))
    assert not re.search(r"https?://|<link|<script|src=|url\((?!#)|@import", html)
    assert "prefers-color-scheme: dark" in html
    assert html == rendered(samples.pi5(ONE), samples.zero2(ONE))


@pytest.mark.parametrize("junk", [None, "text", -1, [1, "x", None, [2]], {"a": {"b": []}}, float("nan"), 10**400, True])
def test_whatever_board_and_conditions_hold_there_is_a_page(junk):
    told = dict.fromkeys(samples.CONDITIONS, junk)
    nested = {key: dict.fromkeys(value, junk) for key, value in samples.CONDITIONS.items() if isinstance(value, dict)}
    board = dict.fromkeys(samples.BOARD, junk)
    stages = samples.pi5(ONE).stages[:1]
    for conditions in (told, {**told, **nested, "course": [[0, junk, junk], junk]}):
        found = Text(rendered(Profile(board, (), (), stages, (), (), conditions)))
        assert not found.empty
        assert "sensor | 160 | 0.620 |" in found.text


def test_figures_that_are_nothing_draw_nothing_wrong():
    still = samples.changed(
        samples.pi5(ONE), median_seconds=0.0, low_seconds=0.0, high_seconds=0.0, p95_seconds=0.0, quiet_seconds=0.0, peak_bytes=0,
        own_bytes=0, joules=0.0, joules_uncertainty=0.0,
    )  # fmt: skip
    assert not Text(rendered(still, still)).empty


def test_many_batches_threads_and_boards():
    many = samples.pi5([(batch, threads) for batch in (1, 4, 8, 16, 32) for threads in (1, 2, 4)])
    found = Text(rendered(many, *[samples.zero2()] * 2))
    assert "batch 16, 2 threads" in found.text
    assert "Raspberry Pi Zero 2 W Rev 1.0 (file-2)" in found.text


def test_the_command_writes_the_page(tmp_path, capsys):
    (tmp_path / "pi5.json").write_text(samples.pi5(ONE).serialize())
    out = tmp_path / "new" / "page.html"
    assert main(["profile", "page", str(tmp_path / "pi5.json"), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"page: {out}\n"
    assert out.read_text() == rendered(samples.pi5(ONE))
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is no profile of a board: it is not JSON"),
        ('{"format": 2}', "is no profile of a board: it has format 2; this release reads up to 1"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_is_no_profile_is_named(tmp_path, capsys, text, sentence):
    path = tmp_path / "bad.json"
    if text is not None:
        path.write_text(text)
    assert main(["profile", "page", str(path), "--out", str(tmp_path / "page.html")]) == 2
    assert f"cutlayer-hub profile: {path} {sentence}" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "pi5.json").write_text(samples.cuts().serialize())
    assert main(["profile", "page", str(tmp_path / "pi5.json"), "--out", str(tmp_path / "pi5.json" / "page.html")]) == 2
    assert "page.html cannot be written: File exists" in capsys.readouterr().err


def test_a_figure_that_no_board_can_have_is_refused():
    told = json.loads(samples.pi5(ONE).serialize())
    told["stages"][1]["own_bytes"] = 10**400
    with pytest.raises(ProfileError, match=r"stages\[1\]: own_bytes is beyond 1e\+15: no board has that"):
        read.parse(json.dumps(told))
