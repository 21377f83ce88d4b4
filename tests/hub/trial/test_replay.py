"""What a replay says: the story in words, the verdict, and what is wrong with a recording."""

import argparse

import pytest

from edge.flight import ring
from edge.wire.messages import Report
from hub.trial import replay
from hub.trial.replay import ReplayError
from tests.edge.test_recorder import Stage


@pytest.fixture
def stage(tmp_path):
    stage = Stage(tmp_path)
    stage.order(17, steps=4, send=(1, 3))
    stage.until(lambda: stage.got(Report))
    yield stage
    stage.kill()


def told(path, **options):
    lines = []
    verdict = replay.replay(path, say=lines.append, **options)
    return verdict, lines


def parsed(path, bundle=None):
    return argparse.Namespace(path=path, bundle=bundle, data=None, timeline=False)


def test_the_story_is_told_in_words(stage):
    stage.device_link.break_off("the mast is gone")
    stage.run(40)
    stage.device_link.open()
    stage.run(20)
    verdict, lines = told(stage.ring, timeline=True)
    story = [line.partition("  ")[2] for line in lines]
    wanted = [
        "connected",
        "message 1 (hello, 4 samples) sent",
        "from the hub: order 17 (local, 4 steps, 2 of them are sent)",
        "message 2 (activation of order 17, step 1) sent",
        "message 3 (activation of order 17, step 3) sent",
        "message 4 is report of order 17",
        "disconnected: the mast is gone",
        "connected",
    ]
    assert [line for line in story if line in wanted] == wanted
    assert any(line.startswith("first word from the hub after a silence of 1") for line in story)
    assert lines[0].startswith("d1, recorded from 1970-01-01 00:00:00 UTC by its own clock")
    assert lines[-1] == str(verdict)
    assert "(conversation, 1 files, 1 processes): every frame the same" in lines[-1]


def test_a_process_that_starts_again_is_told_and_counted(stage):
    stage.kill()
    stage.start()
    stage.run(20)
    verdict, lines = told(stage.ring, timeline=True)
    assert (verdict.same, verdict.files, verdict.processes) == (True, 2, 2)
    assert any(line.endswith("d1 starts again, as process 00000002") for line in lines)


def test_the_first_difference_is_named_with_file_time_and_number_and_the_code_is_1(stage, capsys):
    (path,) = ring.segments(stage.ring)
    bodies, _ = ring.read(path)
    place = next(i for i, body in enumerate(bodies) if i and b"CL\x01\x01" in body)
    other = bodies[place].replace(b"CL\x01\x01", b"CL\x01\x02", 1)
    path.write_bytes(ring.MAGIC + b"".join(map(ring._record, [*bodies[:place], other, *bodies[place + 1 :]])))
    assert replay.command(parsed(stage.ring)) == 1
    assert "then a difference. 00000001.rec, 0:00:0" in (said := capsys.readouterr().out)
    assert "recorded was" in said


def test_a_recording_that_is_the_same_ends_with_0(stage, capsys):
    assert replay.command(parsed(stage.ring)) == 0
    assert "every frame the same" in capsys.readouterr().out


def test_what_the_user_can_mend_is_a_sentence_and_the_code_is_2(stage, tmp_path, capsys):
    assert replay.command(parsed(tmp_path / "nowhere")) == 2
    assert f"there is no recording at {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert replay.command(parsed(stage.ring, stage.folder / "b")) == 2
    assert "bundle and data belong together" in capsys.readouterr().err
    with pytest.raises(ReplayError, match="there is no bundle"):
        replay.replay(stage.ring, tmp_path / "none", "synthetic:8")


def test_other_data_than_the_device_had_is_a_difference(stage):
    verdict, _ = told(stage.ring, bundle=stage.folder / "b", data="synthetic:8")
    assert not verdict.same
    assert "8 samples" in verdict.difference.found
    assert "4 samples" in verdict.difference.expected


def test_a_file_whose_beginning_is_lost_is_left_out_and_said(stage):
    stage.kill()
    stage.start()
    stage.run(10)
    first, _ = ring.segments(stage.ring)
    first.write_bytes(first.read_bytes()[:30])
    verdict, lines = told(stage.ring)
    assert (verdict.same, verdict.files) == (True, 1)
    assert any("00000001.rec has no snapshot" in line for line in lines)


def test_one_file_can_be_run_alone(stage):
    (path,) = ring.segments(stage.ring)
    verdict, _ = told(path)
    assert verdict.same
    assert verdict.frames >= 4
