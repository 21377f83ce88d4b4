"""What is run on the board, and what is said when it goes wrong; a program of the test stands in for ssh."""

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge.wire.profile import Profile
from hub.__main__ import _parser, main
from hub.profile import read, ssh
from hub.profile.page import PageError
from tests.hub.profile import samples


@pytest.fixture
def fake(tmp_path):
    """Makes a program that does what the lines of a shell say."""

    def make(lines):
        path = tmp_path / "fake-ssh"
        path.write_text(f"#!/bin/sh\n{lines}\n")
        path.chmod(0o755)
        return str(path)

    return make


def refusal(fake, lines, tmp_path, **visit):
    out = tmp_path / "out"
    with pytest.raises(ssh.SshError) as caught:
        ssh.profile(ssh.Visit(**{"target": "pi@board", **visit}), out, fake(lines))
    assert not out.exists()  # nothing is left of it
    return str(caught.value)


def test_the_board_is_asked_for_json_with_everything_quoted():
    visit = ssh.Visit(
        "pi@board",
        "/opt/my cutlayer/bin/cutlayer",
        Path("device.bundle"),
        "~/my device.toml",
        ("--batch", "8,32", "$HOME; rm -rf '/'"),
        ("Port=2222", "-v"),
    )
    argv = visit.argv()
    assert argv[:-1] == ["ssh", "-T", "-o", "RemoteCommand=none", "-o", "Port=2222", "-v", "--", "pi@board"]
    assert argv[-1].startswith(
        "'/opt/my cutlayer/bin/cutlayer' profile --config ~/'my device.toml' --bundle - --attended 0 --json - "
    )
    assert shlex.split(argv[-1])[-3:] == ["--batch", "8,32", "$HOME; rm -rf '/'"]


@pytest.mark.parametrize("target", ["-oProxyCommand=touch pwned", "", "board; reboot", "board\n"])
def test_a_target_that_is_an_option_or_no_name_is_refused_before_anything_runs(fake, tmp_path, target):
    said = refusal(fake, f"touch {tmp_path}/ran", tmp_path, target=target)
    assert said == f"{target!r} is no board: ssh takes user@host, or a name of its configuration"
    assert not (tmp_path / "ran").exists()


def test_a_command_that_is_an_option_is_refused(fake, tmp_path):
    assert refusal(fake, "exit 0", tmp_path, command="-oProxyCommand=x") == "--command '-oProxyCommand=x' is no command"


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            "exit 255",
            "ssh did not reach pi@board, or lost it; its own words stand above (if there are none, cutlayer was killed there: is the board's memory full?)",
        ),
        ("printf 12345; exit 255", "the connection to pi@board was lost in the middle (5 bytes had come)"),
        ("exit 127", "there is no cutlayer on pi@board: say where it is with --command PATH"),
        ("exit 126", "cutlayer on pi@board cannot be executed (exit code 126)"),
        ("exit 2", "pi@board refused; what is wrong stands above"),
        ("exit 1", "the profile on pi@board failed (exit code 1); what happened stands above"),
        ("exit 137", "cutlayer on pi@board was ended by signal 9: is the board's memory full?"),
        ("exit 143", "cutlayer on pi@board was ended by signal 15"),
        ("kill -9 $$", "ssh was ended by signal 9"),
        ("exit 0", "cutlayer on pi@board ended well, but no profile came"),
    ],
)
def test_every_failure_is_one_sentence_and_leaves_nothing(fake, tmp_path, lines, sentence):
    assert refusal(fake, lines, tmp_path) == sentence


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("echo Welcome to board", "it is not JSON"),
        ("echo '{}'", "it has no whole number as its 'format'"),
        ("printf '\\377\\376'", "it is not UTF-8"),
    ],
)
def test_an_answer_that_is_no_profile_is_shown(fake, tmp_path, lines, words):
    said = refusal(fake, lines, tmp_path)
    assert said.startswith("what came from pi@board is no profile: " + words)
    assert "such as an echo in .bashrc" in said


def test_an_answer_without_end_is_cut_off(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(read, "MOST_BYTES", 1 << 20)
    assert "it is larger than 1 MiB" in refusal(fake, "exec yes", tmp_path)


def test_without_ssh_it_says_what_to_install(tmp_path):
    with pytest.raises(ssh.SshError, match=r"^there is no 'no-such-ssh' on this machine: install an OpenSSH client$"):
        ssh.profile(ssh.Visit("pi@board"), tmp_path / "out", "no-such-ssh")


def test_a_bundle_that_is_not_there_is_named_before_ssh_runs(fake, tmp_path):
    said = refusal(fake, f"touch {tmp_path}/ran", tmp_path, bundle=tmp_path / "none.bundle")
    assert said == f"the bundle {tmp_path}/none.bundle cannot be read: No such file or directory"
    assert not (tmp_path / "ran").exists()


def test_the_bundle_is_sent_and_both_files_are_written(fake, tmp_path, capfd):
    profile = tmp_path / "sample.json"
    profile.write_text(samples.pi5().serialize())
    (tmp_path / "device.bundle").write_bytes(bytes(range(256)) * 1000)
    program = fake(f"head -c 256000 > {tmp_path}/arrived; echo half way >&2; cat {profile}")
    out = tmp_path / "a" / "b"
    assert ssh.profile(ssh.Visit("pi@board", bundle=tmp_path), out, program) == samples.pi5()
    assert (tmp_path / "arrived").read_bytes() == bytes(range(256)) * 1000
    assert (out / "profile.json").read_text() == profile.read_text()
    assert "Profile of Raspberry Pi 5" in (out / "page.html").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["page.html", "profile.json"]
    assert "half way" in capfd.readouterr().err


def test_the_board_hears_now_and_then_that_somebody_waits_and_how_long_the_bundle_is(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(ssh, "LIFE_SECONDS", 0.01)
    profile = tmp_path / "sample.json"
    profile.write_text(samples.pi5().serialize())
    (tmp_path / "device.bundle").write_bytes(b"bundle")
    told = f'for last; do :; done; echo "$last" > {tmp_path}/told'
    program = fake(f"{told}; head -c 9 > {tmp_path}/arrived; cat {profile}")
    ssh.profile(ssh.Visit("pi@board", bundle=tmp_path), tmp_path / "out", program)
    assert (tmp_path / "told").read_text() == "cutlayer profile --bundle - --attended 6 --json -\n"
    assert (tmp_path / "arrived").read_bytes() == b"bundle\n\n\n"


def test_a_folder_that_cannot_be_made_is_said_before_the_board_is_asked(fake, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PageError, match="file/out cannot be made: Not a directory"):
        ssh.profile(ssh.Visit("pi@board"), tmp_path / "file" / "out", fake(f"touch {tmp_path}/ran"))
    assert not (tmp_path / "ran").exists()


def test_a_failed_visit_leaves_the_profile_of_before(fake, tmp_path):
    (tmp_path / "profile.json").write_text("of before")
    with pytest.raises(ssh.SshError):
        ssh.profile(ssh.Visit("pi@board"), tmp_path, fake("printf half; exit 255"))
    assert (tmp_path / "profile.json").read_text() == "of before"


def test_the_folder_has_the_board_and_the_date_in_its_name():
    now = datetime(2026, 11, 20, 14, 3, 11, tzinfo=UTC)
    assert str(ssh.folder_for("pi@board", now)) == "profiles/pi@board-20261120-140311"
    assert str(ssh.folder_for("ssh://pi@[::1]:22/../..", now)) == "profiles/ssh_pi@_1_22-20261120-140311"


def test_what_stands_behind_two_dashes_is_for_the_board():
    options = _parser().parse_args(
        [
            "profile",
            "ssh",
            "pi@board",
            "--bundle",
            "device.bundle",
            "--ssh-option=-p2222",
            "--",
            "--batch",
            "8",
            "--",
            "x",
        ]
    )
    assert (options.target, options.ssh_option, options.passed) == ("pi@board", ["-p2222"], ("--batch", "8", "--", "x"))


def test_the_command_answers_with_a_sentence(capsys, tmp_path):
    assert main(["profile", "ssh", "two words", "--out", str(tmp_path / "out")]) == 2
    assert "cutlayer-hub profile: 'two words' is no board" in capsys.readouterr().err


def test_the_profile_that_came_is_the_boards(fake, tmp_path):
    (tmp_path / "sample.json").write_text(samples.zero2().serialize())
    ssh.profile(ssh.Visit("pi@board"), tmp_path / "out", fake(f"cat {tmp_path}/sample.json"))
    assert Profile.parse((tmp_path / "out" / "profile.json").read_text()) == samples.zero2()


def test_a_board_on_which_nothing_could_be_measured_has_a_page_of_reasons(fake, tmp_path):
    (tmp_path / "sample.json").write_text(replace(samples.pi5(), stages=(), steps=()).serialize())
    found = ssh.profile(ssh.Visit("pi@board"), tmp_path / "out", fake(f"cat {tmp_path}/sample.json; exit 1"))
    assert not found.stages
    assert "no broker is configured" in (tmp_path / "out" / "page.html").read_text()
