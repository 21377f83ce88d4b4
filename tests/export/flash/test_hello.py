"""The hello of a device: told by a link in memory, and by a real broker while a board is installed."""

import os
import threading
import time

import pytest

from edge.link import Message
from edge.mqtt_link import MqttLink
from edge.wire import topics
from export.flash import hello
from export.flash.errors import FlashError
from hub.broker import BrokerError, start_broker

TOPIC = topics.status("fleet", "greenhouse-7")


class Told:
    """A link on which these payloads come, one a poll; every poll takes a second of the clock."""

    def __init__(self, *payloads):
        self.payloads, self.now = list(payloads), 0.0

    def poll(self, timeout):
        self.now += timeout
        return [Message(TOPIC, self.payloads.pop(0))] if self.payloads else []


def listening(*payloads):
    link = Told(*payloads)
    return hello.Hello(link, TOPIC, clock=lambda: link.now), link


def status(online, instance):
    return topics.pack_status(online=online, instance=instance)


def test_a_device_that_is_online_has_said_hello():
    one, link = listening(status(False, 7), status(True, 8))
    assert one.wait(10)
    assert (one.instance, link.now) == (8, 2.0)


def test_the_process_of_before_does_not_count():
    one, link = listening(status(True, 7), status(False, 7), status(True, 9))
    assert one.wait(10, other_than=7)
    assert (one.instance, link.now) == (9, 3.0)


def test_who_stays_away_or_talks_nonsense_has_not():
    one, link = listening(status(False, 7), b"nonsense", b"", b"{}")
    assert not one.wait(10)
    assert link.now == 10.0


def test_without_a_certificate_in_the_fleet_folder_it_says_what_makes_one(tmp_path):
    (tmp_path / "ca.pem").write_text("")
    with (
        pytest.raises(
            FlashError,
            match=r"has no hub-status.pem and no hub-status.key to ask the broker with: `cutlayer-hub status`",
        ),
        hello.listen("mqtts://127.0.0.1:1", "fleet", "greenhouse-7", tmp_path),
    ):
        pass


def test_a_broker_that_is_not_there_is_said():
    with (
        pytest.raises(FlashError, match=r"no broker answers at mqtt://127.0.0.1:1: .*only the board is asked"),
        hello.listen("mqtt://127.0.0.1:1", "fleet", "greenhouse-7", None),
    ):
        pass


@pytest.mark.system
def test_a_real_broker_tells_it(tmp_path):
    try:
        broker = start_broker("mosquitto", tmp_path)
    except BrokerError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    device = MqttLink(broker.url, "greenhouse-7")
    try:
        device.open()
        device.publish(TOPIC, status(True, 7), qos=1, retain=True)
        until = time.monotonic() + 20
        seen = None
        while seen != 7 and time.monotonic() < until:
            with hello.listen(broker.url, "fleet", "greenhouse-7", None) as one:
                seen = one.instance
        assert seen == 7
        with hello.listen(broker.url, "fleet", "greenhouse-7", None) as one:
            later = threading.Thread(target=lambda: device.publish(TOPIC, status(True, 8), qos=1, retain=True))
            later.start()
            assert one.wait(20, other_than=7)
            later.join()
    finally:
        device.close()
        broker.stop()
