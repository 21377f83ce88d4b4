import pytest

from edge.wire import topics
from edge.wire.frames import WireError


def test_the_tree():
    assert topics.up("wearers", "w-1") == "cutlayer/wearers/w-1/up"
    assert topics.down("wearers", "w-1") == "cutlayer/wearers/w-1/down"
    assert topics.status("wearers", "w-1") == "cutlayer/wearers/w-1/status"
    assert topics.hub_status("wearers") == "cutlayer/wearers/hub/status"
    assert topics.subscriptions_of_hub("f") == ("cutlayer/f/+/up", "cutlayer/f/+/status")
    assert topics.subscriptions_of_device("f", "d") == ("cutlayer/f/d/down", "cutlayer/f/hub/status")


def test_a_topic_is_read_back():
    assert topics.parse("f", topics.up("f", "d.1_2")) == ("d.1_2", "up")


@pytest.mark.parametrize("name", ["", "a/b", "+", "#", "a b", "ü", "x" * 65, "hub", "a\n"])
def test_names_that_are_no_level_of_a_topic_are_refused(name):
    with pytest.raises(WireError, match="name"):
        topics.up("f", name)


@pytest.mark.parametrize(
    "topic",
    ["", "cutlayer", "cutlayer/f/d", "cutlayer/g/d/up", "other/f/d/up", "cutlayer/f/d/up/x", "cutlayer/f/d/side"],
)
def test_topics_of_others_are_refused(topic):
    with pytest.raises(WireError, match="is no topic of fleet"):
        topics.parse("f", topic)


def test_the_hub_is_no_device():
    with pytest.raises(WireError, match="cannot be named 'hub'"):
        topics.parse("f", topics.hub_status("f"))


def test_a_status_round_trip():
    assert topics.read_status(topics.pack_status(online=True, instance=7)) == (True, 7)
    assert topics.read_status(b'{"online": false, "instance": 0}') == (False, 0)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b'{"online": 1, "instance": 1}', b'{"online": true, "instance": true}',
        b'{"online": true, "instance": 1e999}', b'{"online": true, "instance": -1}', b"[" * 100_000,
        b'{"online": true, "instance": 4294967296}',
    ],
)  # fmt: skip
def test_what_is_no_status_is_refused(payload):
    with pytest.raises(WireError, match="status"):
        topics.read_status(payload)
