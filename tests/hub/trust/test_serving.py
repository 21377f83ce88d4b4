"""What stands beside a run with --tls."""

import dataclasses
import logging
import socket
from datetime import timedelta

import psutil
import pytest

from hub import config
from hub.broker import BrokerError
from hub.trust import mosquitto, serving
from hub.trust.errors import TrustError
from hub.trust.folder import Folder
from tests.hub.trust.conftest import FLEET, free_port, need_mosquitto
from tests.hub.trust.test_mosquitto import _wait

pytestmark = pytest.mark.system


@pytest.fixture
def settings(tmp_path):
    need_mosquitto()
    (tmp_path / "a fleet").mkdir()
    path = tmp_path / "a fleet" / "hub.toml"
    path.write_text(
        f'[fleet]\nname = "{FLEET}"\n[bundle]\npath = "b"\n[run]\nfolder = "r"\n'
        f'[tls]\nnames = ["localhost"]\naddress = "127.0.0.1"\nport = {free_port()}\nenrol_port = {free_port()}\n'
    )
    return config.load(path, {})


def test_broker_and_enrolment_live_as_long_as_the_run(settings, monkeypatch, caplog):
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.05)
    said = []
    with serving.beside(settings, said.append) as told:
        assert told.broker.url == f"mqtts://127.0.0.1:{settings.tls.port}"
        assert f"boards meet at mqtts://localhost:{settings.tls.port}" in said[-2]
        assert "cutlayer-hub enrol" in said[-1]
        folder = Folder.open(settings.tls.folder, FLEET)
        first = mosquitto.running(folder)
        assert first is not None
        # A broker that dies is started again.
        psutil.Process(first).kill()
        _wait(lambda: mosquitto.running(folder) not in (None, first))
        _wait(lambda: mosquitto.answers("127.0.0.1", settings.tls.port))
        assert any("the broker has ended with code -9" in record.message for record in caplog.records)
        second = mosquitto.running(folder)
    assert not psutil.pid_exists(second)
    assert mosquitto.running(folder) is None
    for port in (settings.tls.port, settings.tls.enrol_port):
        assert not mosquitto.answers("127.0.0.1", port)
    with serving.beside(settings, said.append):
        assert sum("back this folder up" in sentence for sentence in said) == 1


def test_a_broker_of_somebody_else_is_not_started_again(settings):
    other = dataclasses.replace(settings, broker=config.BrokerConfig(url="mqtt://10.0.0.2"))
    words = r'^--tls starts .* \[broker\] url = "mqtt://10\.0\.0\.2" names another'
    with pytest.raises(TrustError, match=words), serving.beside(other, lambda _text: None):
        pass
    assert not settings.tls.folder.exists()


def test_a_second_one_on_the_same_folder_is_refused_and_the_first_is_still_known(settings):
    ports = dataclasses.replace(settings.tls, port=free_port(), enrol_port=free_port())
    other = dataclasses.replace(settings, tls=ports)
    with serving.beside(settings, lambda _text: None):
        folder = Folder.open(settings.tls.folder, FLEET)
        first = mosquitto.running(folder)
        with pytest.raises(TrustError, match="runs already on"), serving.beside(other, lambda _text: None):
            pass
        assert mosquitto.running(folder) == first


def test_a_port_in_use_ends_it_in_a_sentence_and_leaves_no_broker(settings):
    with (
        socket.create_server(("127.0.0.1", settings.tls.enrol_port)),
        pytest.raises(BrokerError, match=f"boards cannot enrol at 127.0.0.1, port {settings.tls.enrol_port}: address"),
        serving.beside(settings, lambda _text: None),
    ):
        pass
    assert not mosquitto.answers("127.0.0.1", settings.tls.port)


def test_a_list_that_cannot_be_renewed_is_a_warning_and_not_the_end(settings, caplog, monkeypatch):
    with serving.beside(settings, lambda _text: None):
        pass
    folder = Folder.open(settings.tls.folder, FLEET)

    class Deaf:
        def reload(self):
            pass

    def full(*_):
        raise OSError(28, "no space left on device")

    late = folder.revocations_until() - timedelta(days=3)
    keeper = serving.Keeper(folder, settings, serving.addresses(settings), None, lambda: late)
    monkeypatch.setattr("hub.trust.files.write", full)
    with caplog.at_level(logging.WARNING):
        keeper.look(Deaf())
    assert [record.message.split(":")[0] for record in caplog.records[-2:]] == [
        f"the fleet's folder {folder.root} cannot be kept",
        f"the list of revoked certificates in {folder.root} is good for 3 days more, then the broker lets nobody in",
    ]
