import pytest

from edge.profile.asked import Asked, Setting
from edge.profile.children import ChildError, measured
from edge.refusal import RefusalError

PROGRAMS = {
    "killed": 'import os\nprint(\'{"begins": "local"}\', flush=True)\nos.kill(os.getpid(), 9)',
    "illegal": "import os, signal\nos.kill(os.getpid(), signal.SIGILL)",
    "raises": "raise ValueError('the third wheel')",
    "mistaken": "import sys\nprint('there is no bundle', file=sys.stderr)\nsys.exit(2)",
    "leaves": 'print(\'{"begins": "local"}\')',
    "obeys": "import json, sys\ntold = json.loads(sys.stdin.readline())\nprint(json.dumps({'done': told['batch']}))",
    "talks": "import sys\nprint('x' * 500_000, file=sys.stderr)\nprint('{\"done\": {}}')",
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs one of the programs above in place of the measured process; returns what was heard."""
    for name, text in PROGRAMS.items():
        (tmp_path / f"fake_{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(name):
        heard = []
        setting = Setting(Asked("b"), 32, 1, tmp_path, None, ("local",))
        measured(setting, heard.append, lambda: None, f"fake_{name}")
        return heard

    return start


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("killed", "ended by SIGKILL: most likely there was not enough memory"),
        ("illegal", "ended by SIGILL: onnxruntime's wheel uses an instruction that this processor does not have"),
        ("raises", "ended with code 1: ValueError: the third wheel"),
        ("leaves", "ended with code 0: without a word"),
    ],
)
def test_a_process_that_dies_is_explained(run, name, sentence):
    with pytest.raises(ChildError, match=sentence):
        run(name)


def test_what_the_user_can_mend_is_said_in_the_words_of_the_process(run):
    with pytest.raises(RefusalError, match=r"^there is no bundle$"):
        run("mistaken")


def test_it_is_told_its_setting_and_heard(run):
    assert run("obeys") == [{"done": 32}]


def test_much_talk_on_standard_error_does_not_stop_it(run):
    assert run("talks") == [{"done": {}}]
