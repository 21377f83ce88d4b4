from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from edge.wire.toml_fields import ConfigError, Example, PathUnless, Range, describe, field_docs, read


@dataclass(frozen=True)
class Oven:
    """Where bread is baked."""

    celsius: Annotated[float, Range(50, 300), Example(220)]
    """How hot
    it gets."""

    door: Path = Path("door.key")
    """The key of the door."""

    mode: Literal["top", "fan"] = "fan"
    """Which heat."""

    loaves: Annotated[int | None, Range(minimum=1)] = None
    """How many fit."""

    recipe: Annotated[str, PathUnless(r"\w+:\w+", "a path or book:page")] = "book:one"
    """What to bake."""

    names: tuple[str, ...] = ()
    """Who bakes."""

    light: bool = False
    """Whether it shines."""

    def problems(self) -> Iterator[str]:
        if self.loaves == 13:
            yield "loaves = 13 is a baker's dozen"


@dataclass(frozen=True)
class Kitchen:
    oven: Oven


def kitchen(text: str, **environ: str) -> Oven:
    return read(Kitchen, text, "k.toml", folder=Path("/home/k"), environ=environ, prefix="K").oven


def told(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        kitchen(text, **environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return list(caught.value.problems)


def test_values_take_the_type_of_their_field():
    oven = kitchen('[oven]\ncelsius = 200\nloaves = 3\nnames = ["a", "b"]\nlight = true\n')
    assert oven == Oven(200.0, Path("/home/k/door.key"), "fan", 3, "book:one", ("a", "b"), light=True)
    assert isinstance(oven.celsius, float)


def test_relative_paths_start_at_the_folder_of_the_file_and_absolute_ones_stay():
    assert kitchen('[oven]\ncelsius = 60\ndoor = "a/b"\nrecipe = "rye.txt"').door == Path("/home/k/a/b")
    assert kitchen('[oven]\ncelsius = 60\nrecipe = "rye.txt"').recipe == "/home/k/rye.txt"
    assert kitchen('[oven]\ncelsius = 60\nrecipe = "rye:two"').recipe == "rye:two"
    assert kitchen('[oven]\ncelsius = 60\ndoor = "/a"').door == Path("/a")


def test_the_environment_comes_before_the_file():
    oven = kitchen(
        "[oven]\ncelsius = 60\nloaves = 2\n",
        K_OVEN_CELSIUS="70.5", K_OVEN_LOAVES="", K_OVEN_LIGHT="yes", K_OVEN_NAMES="a, b", K_OVEN_DOOR="d", K_OVEN_MODE="top",
    )  # fmt: skip
    assert oven == Oven(70.5, Path("d"), "top", None, "book:one", ("a", "b"), light=True)


def test_the_environment_alone_is_enough_and_mends_a_wrong_value_of_the_file():
    assert kitchen("", K_OVEN_CELSIUS="70").celsius == 70
    assert told("[oven]\ncelsius = 10\n", K_OVEN_CELSIUS="70") == [
        "k.toml line 2: [oven] celsius = 10: must be a number from 50 to 300"
    ]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("celsius = 301", "celsius = 301: must be a number from 50 to 300"),
        ("celsius = nan", "celsius = nan: must be a number from 50 to 300"),
        ("celsius = true", "celsius = true: must be a number from 50 to 300"),
        ('celsius = 60\nmode = "grill"', 'mode = "grill": must be one of "top", "fan"'),
        ("celsius = 60\nloaves = 2.5", "loaves = 2.5: must be a whole number of at least 1"),
        ("celsius = 60\nloaves = true", "loaves = true: must be a whole number of at least 1"),
        ("celsius = 60\nloaves = 0", "loaves = 0: must be a whole number of at least 1"),
        ("celsius = 60\nlight = 1", "light = 1: must be true or false"),
        ("celsius = 60\nnames = [1]", "names = [1]: must be a list of texts"),
        ("celsius = 60\ndoor = 3", "door = 3: must be a path"),
        ("celsius = 60\ndoor = ''", 'door = "": must be a path'),
        ("celsius = 60\nrecipe = 7", "recipe = 7: must be a path or book:page"),
    ],
)
def test_a_wrong_value_names_file_line_key_value_and_what_would_be_right(line, problem):
    number = 2 + line.count("\n")
    assert told(f"[oven]\n{line}\n") == [f"k.toml line {number}: [oven] {problem}"]


def test_every_problem_is_told_at_once():
    assert told("[oven]\nmode = 3\nlaoves = 4\ncelsius = 'hot'\n[cellar]\nwine = 1\n", K_OVEN_LIGHT="perhaps") == [
        'k.toml line 2: [oven] mode = 3: must be one of "top", "fan"',
        "k.toml line 3: [oven] has no key laoves: did you mean loaves?",
        'k.toml line 4: [oven] celsius = "hot": must be a number from 50 to 300',
        "k.toml line 5: [cellar] is not a section; known: oven",
        'environment K_OVEN_LIGHT = "perhaps": must be true or false',
    ]


def test_a_misspelt_required_key_or_section_is_told_once_and_not_as_missing():
    assert told("[oven]\ncelcius = 60\n") == ["k.toml line 2: [oven] has no key celcius: did you mean celsius?"]
    assert told("[ovne]\ncelsius = 60\n") == ["k.toml line 1: [ovne] is not a section: did you mean oven?"]
    assert told("celsius = 60\n") == ["k.toml line 1: key celsius stands outside a section: it belongs under [oven]"]
    assert told("oven = 3\n")[0].startswith("k.toml: oven = 3: must be a section, written [oven]")


def test_a_missing_key_says_what_to_add():
    assert told("") == ["k.toml: [oven] celsius is missing: add celsius = 220  (a number from 50 to 300)"]


def test_a_misspelt_variable_is_an_error_and_one_of_another_program_is_not():
    text = "[oven]\ncelsius = 60\n"
    assert told(text, K_OVEN_LAOVES="3") == ["environment K_OVEN_LAOVES sets nothing: did you mean K_OVEN_LOAVES?"]
    assert told(text, K_OEVN_LIGHT="1") == ["environment K_OEVN_LIGHT sets nothing: did you mean K_OVEN_LIGHT?"]
    assert kitchen(text, K_HOME="/", KITCHEN="x", PATH="/bin").celsius == 60


def test_keys_that_do_not_go_together_are_told_unless_a_value_is_wrong_anyway():
    assert told("[oven]\ncelsius = 60\nloaves = 13\n") == ["k.toml: [oven] loaves = 13 is a baker's dozen"]
    assert len(told("[oven]\ncelsius = 60\nloaves = 13\nlight = 2\n")) == 1


def test_broken_toml_names_the_line():
    assert told("[oven\n")[0].startswith("k.toml is not valid TOML: ")
    assert "line 1" in told("[oven\n")[0]


def test_the_example_has_every_key_with_its_words_and_can_be_read():
    text = describe(Kitchen, "A kitchen.")
    assert text.startswith("# A kitchen.\n\n# Where bread is baked.\n[oven]\n\n# How hot it gets.\n")
    assert "# a number from 50 to 300; required\ncelsius = 220\n" in text
    assert '# one of "top", "fan"; the default is shown\n# mode = "fan"\n' in text
    assert "# a whole number of at least 1; not set by default\n# loaves = " in text
    assert kitchen(text) == kitchen("[oven]\ncelsius = 220\n")


@dataclass(frozen=True)
class GasOven(Oven):
    """The same on gas."""

    celsius: Annotated[float, Range(50, 250)] = 200
    """How hot it gets on gas."""

    bottle: bool = True
    """Whether it stands beside."""


def test_words_under_fields_are_inherited_and_the_last_ones_count():
    docs = field_docs(GasOven)
    assert docs["celsius"] == "How hot it gets on gas."
    assert (docs["door"], docs["bottle"]) == ("The key of the door.", "Whether it stands beside.")
