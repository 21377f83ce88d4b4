import json

import pytest

from edge.wire.profile import Operator, Profile, ProfileError, Step

STEP = Step("m:f", "pool1", "contrastive", "adam", "local", 32, 1, 10, 0.03, 0.04, 0.029, None, "no meter", 1000, 400)


def text(**changes):
    return json.dumps(
        json.loads(Profile({"model": "board"}, [STEP], [Operator("Conv", "a", "b", 0.1)]).serialize()) | changes
    )


def test_what_is_written_is_read():
    read = Profile.parse(text())
    assert read.steps == (STEP,)
    assert read.operators[0].signature == ("Conv", "a", "b")
    assert read.name == "board"
    assert read.memory_bytes is None


def test_keys_of_later_releases_are_left_alone_and_operators_may_be_missing():
    fields = json.loads(text(further=1))
    fields["steps"][0]["swap_bytes"] = 5
    del fields["operators"]
    assert Profile.parse(json.dumps(fields)).steps == (STEP,)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("{", "not JSON"),
        ("[]", "no whole number as its 'format'"),
        (text(format=2), "format 2; this release reads up to 1"),
        (text(board=3), "no object 'board'"),
        (text(steps={}), "'steps' is a dict, not a list"),
        (text(steps=[{}]), "steps[0] has no 'model'"),
        (text().replace('"repeats": 10', '"repeats": "ten"'), "repeats is 'ten', not int"),
        (
            text().replace('"median_seconds": 0.03', '"median_seconds": -1'),
            "median_seconds is -1; it must be 0 or more",
        ),
        (text().replace('"batch": 32', '"batch": true'), "batch is True"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(wrong, words):
    with pytest.raises(ProfileError) as raised:
        Profile.parse(wrong)
    assert words in str(raised.value)
