"""A fleet's folder, a broker for it, and clients with whatever certificate a test wants."""

import os
import shutil
import socket
import time
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from edge.link import Message
from edge.mqtt_link import MqttLink
from edge.wire import topics
from hub.broker import find_mosquitto
from hub.trust import mosquitto
from hub.trust.authority import pem_of, private_pem, public_bytes
from hub.trust.folder import Folder

FLEET = "f"
NAMES = ("localhost", "127.0.0.1")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def need(program, found=shutil.which):
    """Skip a test where the program is missing; in CI, which installs it, that is a failure."""
    if found(program) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed")


def need_mosquitto():
    need("mosquitto", lambda _program: find_mosquitto())


class Grounds:
    """A fleet's folder with its broker running, and what a test does there."""

    def __init__(self, root):
        self.now = datetime.now(UTC)
        self.folder, _ = Folder.open_or_make(root, FLEET, self.now)
        self.folder.server(NAMES, self.now)
        self.links = []
        self.broker = None

    def start(self):
        self.broker = mosquitto.start(self.folder, "127.0.0.1", free_port())
        return self

    def identity(self, name, *, stem=None, authority=None, life=timedelta(days=1), use="client", now=None):
        """Certificate and key files of a device, registered as if it had enrolled."""
        key = ed25519.Ed25519PrivateKey.generate()
        now = now or self.now
        public = public_bytes(key.public_key())
        authority = authority or self.folder.authority

        def sign(common):
            return authority.sign(common, key.public_key(), use, life, now)

        token = self.folder.register.claim(name, "pi5", timedelta(hours=1), now)
        issued = self.folder.register.redeem(token, name, public, sign, now)
        return self.files(stem or name, issued.pem.encode(), key)

    def files(self, stem, pem, key):
        certificate, private = self.folder.root / f"{stem}.test.pem", self.folder.root / f"{stem}.test.key"
        certificate.write_bytes(pem)
        private.write_bytes(private_pem(key))
        return certificate, private

    def sign(self, name, use="client", life=timedelta(days=1), stem=None, authority=None):
        """Files of a certificate that the register knows nothing of."""
        key = ed25519.Ed25519PrivateKey.generate()
        signed = (authority or self.folder.authority).sign(name, key.public_key(), use, life, self.now)
        return self.files(stem or name, pem_of(signed), key)

    def link(self, pair, client_id="x", *, subscriptions=(), will=None, timeout=5.0, **options):
        """An open link with a certificate and key; None for none."""
        certificate, key = pair or (None, None)
        link = MqttLink(
            self.broker.url,
            client_id,
            subscriptions=subscriptions,
            will=will,
            ca=self.folder.ca,
            certificate=certificate,
            key=key,
            **options,
        )
        self.links.append(link)
        link.open(timeout)
        return link

    def witness(self):
        """The hub, which hears everything."""
        return self.link(self.folder.client("", self.now), "hub", subscriptions=[f"{topics.ROOT}/{FLEET}/#"])

    def close(self):
        for link in self.links:
            link.close()
        if self.broker is not None:
            self.broker.stop()


def heard(link, until, seconds=10.0):
    """Messages on a link up to the one with the payload `until`, as (topic, payload); that one is left out."""
    found, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        for event in link.poll(0.1):
            if isinstance(event, Message):
                if event.payload == until:
                    return found
                found.append((event.topic, event.payload))
    raise AssertionError(f"{until!r} did not come; there came {found}")


@pytest.fixture
def folder(tmp_path):
    return Folder.open_or_make(tmp_path / "fleet", FLEET, datetime.now(UTC))[0]


@pytest.fixture
def grounds(tmp_path):
    need_mosquitto()
    made = Grounds(tmp_path / "fleet").start()
    yield made
    made.close()
