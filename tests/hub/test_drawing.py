from xml.etree import ElementTree as ET

import matplotlib as mpl
import pytest

from hub.drawing import HALF, STYLE, WIDE, canvas, drawing_of, legend

LABELS = {
    "short": ["late", "selected 1x", "selected 2x"],
    "references": [
        "parallel_split_learning, round by round",
        "local only (reference, no bytes)",
        "centralised (reference, bytes not known)",
        "split learning (reference)",
    ],
    "uneven": ["fedavg, round by round", "local only (reference)", "centralised (reference)"],
}


@pytest.mark.parametrize("width", [WIDE, HALF])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_key_stays_inside_the_figure_and_leaves_the_plot_its_width(width, labels):
    with mpl.rc_context(STYLE):
        figure, axes = canvas(width, 3.0)
        for label in labels:
            axes.plot([0, 1], [0, 1], label=label)
        axes.set(ylabel="accuracy, %")
        legend(axes)
        figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().x1 <= figure.bbox.x1
    assert axes.get_window_extent().width > 0.85 * figure.bbox.width


def test_a_key_takes_one_line_where_there_is_room():
    with mpl.rc_context(STYLE):
        _, axes = canvas(WIDE, 3.0)
        for label in LABELS["uneven"]:
            axes.plot([0, 1], [0, 1], label=label)
        legend(axes)
    assert axes.get_legend()._ncols == 3


def test_alone_a_plot_has_the_same_words_and_a_margin():
    with mpl.rc_context(STYLE):
        figure, axes = canvas(HALF, 2.0)
        axes.set(xlabel="seconds & more", ylim=(0, 1))
        drawing = drawing_of(figure)
    root = ET.fromstring(drawing.alone())  # noqa: S314  our own text
    left, top, width, height = map(float, root.get("viewBox").split())
    assert (left, top) == (-8, -8)
    assert (width, height) == pytest.approx((HALF * 72 + 16, 2 * 72 + 16))
    assert "seconds & more" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert ">seconds &amp; more<" in drawing.in_page("x")


def test_in_a_page_ids_begin_with_the_plots_name():
    with mpl.rc_context(STYLE):
        figure, axes = canvas(HALF, 2.0)
        axes.plot([0, 1], [0, 1], marker="o")
        page = drawing_of(figure).in_page("my-plot")
    assert 'id="my-plot-figure_1"' in page
    assert page.count('id="') == page.count('id="my-plot-')
    assert page.count('href="#') == page.count('href="#my-plot-') > 0
    assert page.startswith('<svg class="half" role="img"')
