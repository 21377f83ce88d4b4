"""The device interprets graphs: whatever the method is called, its code does not know."""

from pathlib import Path

import pytest

from export.objectives import OBJECTIVES
from hub.strategies import STRATEGIES

EDGE = Path(__file__).parents[2] / "edge"
COMMON_WORDS = {"gradient", "decoder", "whole", "frozen"}
"""Names that are also everyday words of the wire and of Python."""


@pytest.mark.parametrize("name", sorted({*STRATEGIES, *OBJECTIVES} - COMMON_WORDS))
def test_no_file_of_the_device_names_a_strategy_or_an_objective(name):
    texts = {path: path.read_text("utf-8").lower() for path in EDGE.rglob("*") if path.suffix in (".py", ".md")}
    assert len(texts) > 20
    assert [str(path.relative_to(EDGE)) for path, text in texts.items() if name in text] == []
