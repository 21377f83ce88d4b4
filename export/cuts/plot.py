"""The cuts as a drawing: bytes of a round against its seconds of computing, the front joined, the leak as colour. Plain SVG."""

import math
from collections.abc import Callable, Collection, Sequence
from html import escape

from export.cuts.choice import Option

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 720, 460, 80, 56, 24


def svg(options: Sequence[Option], best: Collection[str], title: str) -> str:
    """The text of an SVG file; both axes are logarithmic.

    Args:
        options: cuts to draw, at least one.
        best: names of those on the Pareto front.
        title: what stands above.
    """
    across = _scale([option.round.compute_seconds for option in options], LEFT, WIDTH - MARGIN)
    up = _scale([option.round.bytes for option in options], HEIGHT - BOTTOM, 2 * MARGIN)
    ordered = sorted((option for option in options if option.name in best), key=lambda each: each.round.compute_seconds)
    line = " ".join(f"{across[0](each.round.compute_seconds):.1f},{up[0](each.round.bytes):.1f}" for each in ordered)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{escape(title)}</text>',
        *(_tick(across[0](at), HEIGHT - BOTTOM, _seconds(at), vertical=False) for at in across[1]),
        *(_tick(LEFT, up[0](at), _bytes(at), vertical=True) for at in up[1]),
        f'<text x="{WIDTH / 2:.0f}" y="{HEIGHT - 12}" text-anchor="middle">computing of a round</text>',
        f'<text x="16" y="{HEIGHT / 2:.0f}" text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2:.0f})">bytes of a round</text>',
        f'<polyline points="{line}" fill="none" stroke="#888" stroke-dasharray="4 3"/>',
        *(
            _point(each, across[0](each.round.compute_seconds), up[0](each.round.bytes), each.name in best)
            for each in options
        ),
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 12}" text-anchor="end" fill="#666">filled: Pareto front; red: leaks much, blue: little</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _point(option: Option, x: float, y: float, best: bool) -> str:
    red = round(255 * min(1.0, option.leak.worst[1])) if option.leak else 90
    colour = f"#{red:02x}40{255 - red:02x}"
    circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" stroke="{colour}" fill="{colour if best else "white"}"/>'
    return f'{circle}<text x="{x + 8:.1f}" y="{y - 6:.1f}">{escape(option.name)}</text>'


def _tick(x: float, y: float, text: str, *, vertical: bool) -> str:
    if vertical:
        return (
            f'<line x1="{LEFT}" x2="{WIDTH - MARGIN}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{2 * MARGIN}" y2="{y}" stroke="#ddd"/>'
        f'<text x="{x:.1f}" y="{y + 18}" text-anchor="middle">{text}</text>'
    )


def _scale(values: Sequence[float], first: float, last: float) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between two places, and the ticks, at 1, 2, 5, 10 and so on."""
    low, high = 0.8 * max(min(values), 1e-9), 1.25 * max(*values, 1e-9)
    span = math.log(high / low)

    def place(value: float) -> float:
        return first + (last - first) * math.log(max(value, low) / low) / span

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5) if low <= step * 10.0**decade <= high]
    return place, ticks


def _seconds(number: float) -> str:
    return f"{number:g} s" if number >= 1 else f"{1e3 * number:g} ms"


def _bytes(number: float) -> str:
    return f"{number / 1e6:g} MB" if number >= 1e6 else f"{number / 1e3:g} kB"
