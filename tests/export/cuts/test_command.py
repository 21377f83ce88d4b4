"""`cutlayer-export cuts --data` and `build --max-leak`, from the command line."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from edge.wire.profile import Profile
from export.__main__ import main
from export.cuts import candidates
from export.cuts.measured import Pace


class Small(nn.Module):
    """The layer `odd` has no counterpart in our graphs."""

    input_shape = (6,)

    def __init__(self, offset):
        super().__init__()
        self.linear, self.act, self.odd, self.out = nn.Linear(6, 4), nn.ReLU(), Odd(offset), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.odd(self.act(self.linear(x))))


class Odd(nn.Module):
    def __init__(self, offset):
        super().__init__()
        self.offset = offset

    def forward(self, x):
        return torch.lgamma(x + self.offset)


def small(offset=1):
    return Small(offset)


def samples():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 96)
    return (rng.standard_normal((96, 6)) + y[:, None]).astype(np.float32), y


MODEL = ["--model", f"{__name__}:small"]
DATA = ["--data", f"{__name__}:samples"]
QUICK = ["--leak-seconds", "0", "--batch", "16"]


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr("export.cuts.command.Pace", lambda: Pace(5, 0.1))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuts")
    files = [f"--{what}={folder / what}" for what in ("json", "plot", "profile")]
    assert (
        main(
            [
                "cuts",
                *MODEL,
                *DATA,
                *QUICK,
                "--only",
                "linear,act,odd",
                "--codec",
                "float32",
                "--link",
                "256kbit",
                "--budget",
                "5MB/day",
                *files,
            ]
        )
        == 0
    )
    return folder


def test_all_cuts_are_measured_and_one_is_picked(written):
    found = json.loads((written / "json").read_text())
    cuts = {row["cut"]: row for row in found["cuts"]}
    assert "lgamma" in cuts["odd"]["why_not"]
    for name in ("linear", "act"):
        assert cuts[name]["parameters"] == 6 * 4 + 4
        assert cuts[name]["forward"] == 24
        assert cuts[name]["steps"]["local"]["seconds"] > 0
        # 16 samples of 4 float32; heads, labels and frames come on top
        assert 256 < cuts[name]["messages"]["float32"]["activation"] < 400
        assert 0 < cuts[name]["own_bytes"] < cuts[name]["peak_bytes"]
        assert 0 < cuts[name]["leaks"][0]["correlation"] <= 1
        assert cuts[name]["steps"]["local"]["joules"] is None
    assert found["choice"]["cut"] in ("linear", "act")
    assert "rounds a day" in found["choice"]["why"]
    assert "<svg" in (written / "plot").read_text()


def test_the_profile_that_was_written_serves_as_a_board(written, capsys, tmp_path):
    profile = Profile.parse((written / "profile").read_text())
    assert {step.cut for step in profile.steps} == {"linear", "act"}
    assert all(step.joules is None and step.joules_why for step in profile.steps)
    options = [
        "cuts",
        *MODEL,
        *DATA,
        *QUICK,
        "--only",
        "act",
        "--board",
        str(written / "profile"),
        "--json",
        str(tmp_path / "j"),
    ]
    assert main(options) == 0
    row = json.loads((tmp_path / "j").read_text())["cuts"][0]
    assert row["steps_source"] == "measured"
    assert row["steps"]["local"]["seconds"] == next(s.median_seconds for s in profile.steps if s.cut == "act")
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_cut_that_the_board_has_not_run_is_predicted(written, tmp_path):
    fields = json.loads((written / "profile").read_text())
    fields["steps"] = [
        {**step, "joules": 2 * step["median_seconds"]} for step in fields["steps"] if step["cut"] == "act"
    ]
    (tmp_path / "p").write_text(json.dumps(fields))
    files = ["--board", str(tmp_path / "p"), "--json", str(tmp_path / "j")]
    assert main(["cuts", *MODEL, *DATA, *QUICK, *files]) == 0
    rows = {row["cut"]: row for row in json.loads((tmp_path / "j").read_text())["cuts"]}
    assert rows["act"]["steps_source"] == "measured"
    assert rows["linear"]["steps_source"] == "predicted"
    # 2 watts, as measured at the other cut
    step = rows["linear"]["steps"]["local"]
    assert step["joules"] == pytest.approx(2 * step["seconds"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["cuts", *MODEL, "--link", "256kbit"], "--link needs calibration data"),
        (["cuts", *MODEL, *DATA, "--link", "fast"], "'fast' is no link"),
        (["cuts", *MODEL, *DATA, "--budget", "5MB"], "'5MB' is no budget"),
        (["cuts", *MODEL, *DATA, "--board", "nowhere.json"], "no profile of a board at nowhere.json"),
        (["cuts", *MODEL, *DATA, "--strategy", "magic"], "no strategy 'magic'"),
        (["cuts", *MODEL, *DATA, "--strategy", "fedavg"], "trains the whole model"),
        (["cuts", *MODEL, *DATA, "--codec", "zip:1"], "unknown codec 'zip:1'"),
        (["cuts", *MODEL, *DATA, "--only", "layer9"], "no layer 'layer9' to cut at; possible cuts: "),
        (["cuts", *MODEL, "--data", "nowhere.npz"], "no calibration data at nowhere.npz"),
        (["cuts", *MODEL, "--data", "no.such:thing"], "no.such:thing failed: ModuleNotFoundError"),
        (["cuts", "--model", "export.models:digits", *DATA], "samples have the shape (6,); the model takes (1, 8, 8)"),
        (["build", *MODEL, "--cut", "act", "--out", "never", "--max-leak", "0.5"], "needs calibration data"),
    ],
)
def test_mistakes_are_one_sentence(argv, words, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_profile_that_says_nothing_of_the_model(tmp_path, capsys):
    (tmp_path / "p").write_text(Profile({"model": "clock"}, ()).serialize())
    assert main(["cuts", *MODEL, *DATA, *QUICK, "--only", "act", "--board", str(tmp_path / "p")]) == 2
    error = capsys.readouterr().err
    assert "the profile of clock has no time for the cut 'act'" in error
    assert "no operators to predict it from" in error


def test_split_learning_pays_for_gradients_and_weights(tmp_path):
    options = ["--strategy", "split_learning", "--only", "act", "--json", str(tmp_path / "j")]
    assert main(["cuts", *MODEL, *DATA, *QUICK, *options]) == 0
    row = json.loads((tmp_path / "j").read_text())["cuts"][0]
    assert set(row["steps"]) == {"forward", "backward"}
    # 28 parameters of float32 with their names
    assert 112 < row["weights_bytes"] < 220
    # 10 gradients of 16 samples of 4 float32, and the weights
    assert row["round"]["down_bytes"] > 10 * 256 + 112


def test_build_refuses_a_cut_that_leaks_and_says_what_and_how_much(tmp_path, capsys):
    options = ["build", *MODEL, *DATA, "--cut", "act", "--out", str(tmp_path / "b"), "--leak-seconds", "0"]
    assert main([*options, "--max-leak", "0.01"]) == 2
    error = capsys.readouterr().err
    assert "the cut at 'act' gives away too much behind float32: its leak is 0." in error
    assert "the limit is 0.01" in error
    assert not (tmp_path / "b").exists()
    assert main([*options, "--max-leak", "1"]) == 0
    assert "within the limit of 1" in capsys.readouterr().out


def test_training_that_diverges_is_said(capsys):
    # the logarithm of the gamma function has a pole at 0, where the activation is half of the time
    options = ["--with", "offset=0", "--strategy", "split_learning", "--only", "act"]
    assert main(["cuts", *MODEL, *DATA, *QUICK, *options]) == 2
    assert "come to values that are not finite: scale the samples" in capsys.readouterr().err


def test_a_process_that_dies_is_a_row(monkeypatch, tmp_path):
    def dying(*_, **__):
        raise candidates.ExportError("the measured process ended with code -9: without a word")

    monkeypatch.setattr("export.cuts.candidates.measured.measure", dying)
    assert main(["cuts", *MODEL, *DATA, *QUICK, "--only", "act"]) == 2
