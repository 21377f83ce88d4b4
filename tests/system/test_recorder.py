"""Devices that are real processes record what they see; their recordings run again here."""

from hub.trial.replay import replay


def test_a_device_that_was_killed_runs_again_at_home_with_every_frame_the_same(trial, tmp_path):
    trial.write_hub()
    trial.start_hub()
    devices = trial.start_devices()
    trial.wait_round(2)
    devices["device-02"].kill()
    trial.start_device("device-02")
    trial.finish()

    for name in trial.names:
        recording = trial.root / name / "state" / "recorder"
        lines = []
        alone = replay(recording, say=lines.append, timeline=True)
        whole = replay(recording, trial.material.device_bundle, str(trial.material.data[name]), say=lines.append)
        assert (alone.same, whole.same, whole.agent) == (True, True, True), lines
        assert alone.frames == whole.frames > 10
        assert whole.processes == (2 if name == "device-02" else 1)
        assert any("from the hub: order" in line for line in lines)


def test_the_command_says_where_a_recording_differs(trial):
    trial.write_hub(run={"rounds": 1})
    trial.start_hub()
    trial.start_devices()
    trial.finish()
    first, second = (trial.root / name for name in trial.names[:2])
    recording, bundle = first / "state" / "recorder", trial.material.device_bundle

    def command(data):
        return trial.children.python(
            "-m", "hub", "trial", "replay", recording, "--bundle", bundle, "--data", trial.material.data[data]
        )

    same = command(first.name)
    assert same.wait(40) == 0, same.said()
    assert "every frame the same" in same.stdout()
    other = command(second.name)
    assert other.wait(40) == 1, other.said()
    assert "recorded was" in other.stdout()
