import json

import pytest

from edge.profile.asked import Asked, Setting
from edge.refusal import RefusalError


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batches": (0,)}, "--batch 0: it must be from 1 to 65536"),
        ({"batches": ()}, "--batch names no number"),
        ({"threads": (65,)}, "--threads 65: it must be from 1 to 64"),
        ({"seconds": 0.0}, "--seconds 0: it must be from 0.05 to 3600"),
        ({"seconds": float("nan")}, "--seconds nan: it must be"),
        ({"precision": 2.0}, "--precision 2: it must be from 0.001 to 1"),
        ({"stages": ("local", "backwards")}, "--stages backwards: there are sensor, forward, local"),
        ({"codecs": ("entropy:1", "zip")}, "--codec zip: "),
        ({"codecs": ()}, "--codec names no codec"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(changes, sentence):
    with pytest.raises(RefusalError) as caught:
        Asked("device.bundle", **changes).check()
    assert str(caught.value).startswith(sentence)


def test_the_measured_process_is_told_the_same(tmp_path):
    asked = Asked("device.bundle", "device.toml", (1, 32), (1, 2), ("float32",), ("local",), 0.5, 0.1, synthetic=True)
    setting = Setting(asked, 32, 2, tmp_path, 1.5, ("local",))
    assert Setting.from_json(json.loads(json.dumps(setting.to_json()))) == setting
