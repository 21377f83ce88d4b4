"""`cutlayer-hub profile fleet`: starts what `serve` starts, asks every device for a profile of its board, and ends.

A run is left as it is: what else devices have to say stays unacknowledged in their outboxes, for its own hub.
"""

import argparse
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from edge.link import Link, Message
from edge.wire import topics
from edge.wire.frames import WireError
from edge.wire.inquiry import Answer
from edge.wire.messages import Hello, kind_of
from export.bundle import load_hub_bundle
from hub import config, server
from hub.config import HubConfig
from hub.profile import overview
from hub.profile.fleet_options import WAIT_SECONDS
from hub.profile.survey import Patience, Question, Survey, keep_profile
from hub.store import Store
from hub.trust import serving

LOOK_SECONDS = 2.0
"""How long the broker is asked whether a hub is there."""


def command(options: argparse.Namespace) -> int:
    """Profile the boards of a fleet through its hub, between two runs."""
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = config.load(options.config, os.environ)
    question = Question(options.batch, options.threads, options.codec, options.seconds)
    folder = options.out or Path("profiles") / time.strftime(f"{settings.fleet.name}-%Y%m%d-%H%M%S")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {text}", flush=True)

    with ExitStack() as down:
        if options.tls:
            settings = down.enter_context(serving.beside(settings, say))
        url = down.enter_context(server.broker(settings))
        survey = ask(
            settings,
            question,
            folder,
            lambda: server.mqtt(settings, url),
            names=options.devices,
            wait_seconds=options.wait,
            say=say,
            told=url,
        )
    print(f"\n{overview.render(survey.found, survey.missing)}", end="")
    come = len(survey.found) + len(survey.missing)
    short = not options.devices and come < settings.fleet.devices
    if short:
        print(f"{come} of {settings.fleet.devices} devices came within {settings.fleet.gather_seconds:g} s")
    if survey.found:
        print(f"profiles: {folder}")
    return 1 if survey.missing or short else 0


def ask(
    settings: HubConfig,
    question: Question,
    folder: Path,
    connect: Callable[[], server.Connect],
    *,
    names: Sequence[str] = (),
    wait_seconds: float = WAIT_SECONDS,
    say: Callable[[str], None] = lambda _text: None,
    told: str = "",
    now: Callable[[], float] = time.monotonic,
) -> Survey:
    """Ask the devices of a fleet; profiles lie in the folder as `DEVICE.json`.

    Args:
        settings: of the hub: fleet, bundle, broker, and a folder whose count of starts the devices go by.
        question: what is asked.
        folder: is made.
        connect: makes what makes a link.
        names: who is asked; none: whoever comes.
        wait_seconds: for the last answer.
        say: told what happens, a line each.
        told: URL of the broker, for messages.
        now: monotonic seconds.

    Raises:
        RunError: a hub serves this fleet.
        LinkError, StoreError, ExportError: in a sentence for the user.
    """
    fleet, bundle = settings.fleet, load_hub_bundle(settings.bundle.path)
    _refuse_second(connect(), fleet.name, told, now)
    store = Store.open(settings.run.folder)
    with ExitStack() as down:
        devices, link = server.devices_of(settings, connect(), bundle, store, reads=_ours, fixed=False)
        down.callback(link.close)
        link.open()
        who = ", ".join(names) if names else f"{fleet.devices} devices"
        say(f"{who} of fleet {fleet.name!r} awaited at {told}")
        survey = Survey(
            devices,
            question,
            secrets.randbits(32),
            Patience(min(fleet.gather_seconds, wait_seconds), wait_seconds),
            expected=fleet.devices,
            names=names,
            keep=lambda name, text: keep_profile(folder, name, text),
            now=now,
            say=lambda name, state: say(f"{name} {state}"),
        )
        survey.run()
    return survey


_READ = frozenset(map(kind_of, (Hello, Answer)))


def _ours(data: bytes) -> bool:
    """Whether a message is for a survey; all others stay with the device."""
    return data[:1] in _READ


def _refuse_second(connect: server.Connect, fleet: str, url: str, now: Callable[[], float]) -> None:
    """Look, without a word, whether a hub is there."""
    link: Link = connect(f"look-{fleet}-{secrets.token_hex(4)}", None, (topics.hub_status(fleet),))
    link.open()
    try:
        until = now() + LOOK_SECONDS
        while now() < until:
            for event in link.poll(LOOK_SECONDS / 10):
                if isinstance(event, Message) and _online(event.payload):
                    raise server.RunError(
                        f"a hub serves fleet {fleet!r} at {url}: profile its devices when the run is over, or set "
                        "[run] profile = true before one"
                    )
    finally:
        link.close()


def _online(payload: bytes) -> bool:
    try:
        return topics.read_status(payload)[0]
    except WireError:
        return False
