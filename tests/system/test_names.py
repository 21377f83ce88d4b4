"""Two processes that want to be the same device."""

from tests.system.processes import wait_for


def test_a_second_device_of_the_same_name_is_turned_away_and_the_first_goes_on(trial):
    trial.write_hub()
    hub = trial.start_hub()
    devices = trial.start_devices()
    trial.wait_round(1)

    twin = trial.root / "twin" / "device.toml"
    twin.parent.mkdir()
    twin.write_text((trial.root / "device-02" / "device.toml").read_text("utf-8"), "utf-8")
    second = trial.children.python("-m", "edge", "run", "--config", twin)
    with hub.paused():
        # However fast the rounds are, the second one is there before the last.
        wait_for(lambda: "device-02: bundle" in second.stderr() or not second.alive, "the second is connected")
    trial.finish()

    assert second.wait(10) == 2, second.said()
    last = second.stderr().splitlines()[-1]
    assert last == "cutlayer run: another device named 'device-02' is online; give this one a name of its own"
    for device in devices.values():
        assert device.wait(10) == 0, device.said()
    assert "refused device-02: another device named" in hub.stderr()
    assert [record["late"] for record in trial.records("round")] == [[]] * 6
    assert {record["restarts"] for record in trial.records("device")} == {0}


def test_a_state_directory_serves_one_process_at_a_time(trial):
    trial.write_device("device-01")
    first = trial.start_device("device-01")
    wait_for(lambda: "device-01: bundle" in first.stderr(), "the first is connected")
    second = trial.start_device("device-01")

    assert second.wait(10) == 2
    directory = trial.root / "device-01" / "state"
    assert second.stderr() == f"cutlayer run: the state directory {directory} is in use by process {first.pid}\n"
    status = trial.children.python("-m", "edge", "status", "--config", trial.root / "device-01" / "device.toml")
    assert status.wait(10) == 0, status.said()
    assert status.stdout().splitlines()[0] == f"device     device-01, running as process {first.pid}"
    assert first.alive
    first.process.terminate()
    assert first.wait(5) == 0, first.said()
