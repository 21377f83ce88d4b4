"""The rollout's own client at a broker without a network: what it publishes, when, and what is on the disk by then."""

import hashlib

import pytest

from edge.link import Message
from edge.memory_link import MemoryBroker, MemoryLink
from edge.release.manifest import ReleaseError
from edge.wire import topics
from edge.wire.updates import Offer, Piece, Want
from hub.__main__ import main
from hub.rollout import command
from hub.rollout.book import Book, Shelf
from hub.rollout.command import Desk
from hub.rollout.rollout import Rollout, Times
from hub.rollout.serving import ReleaseFile
from tests.edge.release import make
from tests.hub.rollout_stage import old


class Shown:
    """Nobody."""

    def note(self, text):
        pass

    def look(self, now):
        pass


@pytest.fixture
def path(tmp_path):
    make.write(tmp_path / "r.release", version=4)
    (tmp_path / "release.pub").write_text(make.KEY.hex() + "\n")
    return tmp_path / "r.release"


@pytest.fixture
def file(path):
    opened = ReleaseFile(path, path.with_name("release.pub"), fleet="fleet", now=make.NOW)
    yield opened
    opened.close()


class Office:
    """A desk, and the devices' side of the broker."""

    def __init__(self, file, folder):
        self.broker = MemoryBroker(maximum_packet_bytes=600)
        self.devices = MemoryLink(
            self.broker, "d", subscriptions=("cutlayer/fleet/+/update/offer", "cutlayer/fleet/+/update/piece")
        )
        self.devices.open()
        self.file, self.folder, self.now = file, folder, 0.0
        self.begin()

    def begin(self):
        """A command."""
        shelf = Shelf(self.folder)
        with shelf.held():
            book = shelf.load() or Book(self.file.release, "canary,all", canaries=("b",))
        self.link = MemoryLink(self.broker, "hub", subscriptions=topics.subscriptions_of_rollout("fleet"))
        self.link.open()
        rollout = Rollout(book, "fleet", times=Times(gather=1.0))
        self.desk = Desk(rollout, self.file, self.link, shelf, Shown(), now=lambda: self.now)

    def there(self, *names):
        for name in names:
            self.devices.publish(topics.status("fleet", name), topics.pack_status(online=True, instance=1), retain=True)
            self.devices.publish(topics.update("fleet", name, "state"), old().pack(), retain=True)

    def turn(self, count=3):
        """What devices hear of it, by device and leaf."""
        for _ in range(count):
            self.now += 1.0
            self.desk.turn(self.now)
        return {
            topics.parse_update("fleet", event.topic): event.payload
            for event in self.devices.poll(0)
            if isinstance(event, Message)
        }


@pytest.fixture
def office(file, tmp_path):
    return Office(file, tmp_path / "fleet")


def test_the_canary_is_offered_it_and_the_others_are_asked_for_their_state(office):
    office.there("a", "b")
    heard = office.turn()
    assert Offer.parse(heard["b", "offer"]).release == office.file.release
    assert Offer.parse(heard["a", "offer"]).release is None
    assert office.turn() == {}
    assert Offer.parse(office.broker.retained["cutlayer/fleet/b/update/offer"]).release == office.file.release


def test_who_was_chosen_is_on_the_disk_before_anybody_hears_of_it(office, tmp_path):
    office.there("a", "b")
    office.turn(1)

    def publish(topic, payload, **how):
        assert Shelf(tmp_path / "fleet").load().devices["b"].stage == 0
        raise AssertionError("published")

    office.link.publish = publish
    with pytest.raises(AssertionError, match="published"):
        office.turn()


def test_pieces_fit_the_broker_and_make_up_the_file(office, path):
    office.there("a", "b")
    office.turn()
    data, release = path.read_bytes(), office.file.release
    found = b""
    while len(found) < len(data):
        want = Want(release.tag, len(found), 100_000)
        office.devices.publish(topics.update("fleet", "b", "want"), want.pack())
        packed = office.turn(1)["b", "piece"]
        assert len(packed) < 600
        piece = Piece.parse(packed)
        assert piece.offset == len(found)
        found += piece.data
    assert found == data
    assert release.file == hashlib.sha256(data).hexdigest()
    assert release.size == len(data)


@pytest.mark.parametrize(
    ("name", "tag", "offset"), [("a", None, 0), ("b", bytes(16), 0), ("b", None, 10**6), ("stranger", None, 0)]
)
def test_who_was_not_offered_it_or_asks_for_something_else_gets_nothing(office, name, tag, offset):
    office.there("a", "b")
    office.turn()
    want = Want(tag or office.file.release.tag, offset, 100)
    office.devices.publish(topics.update("fleet", name, "want"), want.pack())
    assert (name, "piece") not in office.turn()


@pytest.mark.parametrize("leaf", ["want", "state"])
def test_noise_from_a_device_is_passed_over(office, leaf):
    office.there("a", "b")
    for noise in (b"", b"{", b"\xff" * 500):
        office.devices.publish(topics.update("fleet", "a", leaf), noise)
    office.devices.publish(topics.status("fleet", "a"), b"?", retain=True)
    assert ("b", "offer") in office.turn()


def test_a_broker_that_has_lost_what_it_retained_is_told_again(office):
    office.there("a", "b")
    office.turn()
    office.link.break_off()
    office.broker.retained.clear()
    office.link.open()
    office.turn()
    assert set(office.broker.retained) >= {"cutlayer/fleet/a/update/offer", "cutlayer/fleet/b/update/offer"}


def test_at_the_end_offers_are_withdrawn(office):
    office.there("a", "b")
    office.turn()
    office.desk.rollout.stop("enough")
    office.desk.withdraw()
    assert office.broker.retained["cutlayer/fleet/b/update/offer"] == b""
    office.link.close()
    office.begin()
    assert office.desk.rollout.book.release == office.file.release


@pytest.mark.parametrize(("changes", "words"), [({"fleet": "other"}, "other"), ({"seed": bytes(32)}, "sign")])
def test_a_release_that_no_device_would_take_is_not_offered(path, changes, words):
    make.write(path, version=4, **changes)
    with pytest.raises(ReleaseError, match=words):
        ReleaseFile(path, path.with_name("release.pub"), fleet="fleet", now=make.NOW)


def test_a_command_that_is_interrupted_says_that_the_rollout_is_not_over(path, tmp_path, monkeypatch, capsys):
    (tmp_path / "hub.toml").write_text('[bundle]\npath = "b"\n[run]\nfolder = "r"\n')
    link = MemoryLink(MemoryBroker(), "hub", subscriptions=topics.subscriptions_of_rollout("fleet"))
    link.open = lambda _timeout: MemoryLink.open(link)
    monkeypatch.setattr(command, "connect", lambda *_: link)
    monkeypatch.setattr(link, "poll", _interrupt)
    options = ["rollout", path, "--config", tmp_path / "hub.toml", "--key", tmp_path / "release.pub"]
    assert main([str(option) for option in options]) == 130
    assert "interrupted, not stopped: the same command goes on" in capsys.readouterr().out
    assert Shelf(tmp_path / "fleet").load().outcome == "running"


def _interrupt(_timeout):
    raise KeyboardInterrupt
