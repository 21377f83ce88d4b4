"""Stands in for a board's systemd, installer and guard: starts the agent, installs what it hands over, goes back from what does not get well.

    python rollout_board.py FOLDER

What a release's agent does is told by the version of cutlayer in it: 6.6.6 ends at once, 7.7.7 is slow.
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from edge.release.archive import open_release
from edge.release.manifest import ReleaseManifest
from edge.release.signatures import read_keys
from hub.processes import _die_with_parent

STARTS = 2
SLOW = """
import sys, time
from edge import segment
run = segment.Segment.run
def slow(*arguments, **more):
    time.sleep(0.25)
    return run(*arguments, **more)
segment.Segment.run = slow
from edge.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class Board:
    def __init__(self, root):
        self.root = root
        self.incoming = root / "incoming"

    @property
    def manifest(self):
        return ReleaseManifest.parse((self.root / "current" / "manifest.json").read_bytes())

    def start(self):
        arguments = ["run", "--config", str(self.root / "device.toml")]
        program = {"6.6.6": ["-c", "raise SystemExit(1)"], "7.7.7": ["-c", SLOW]}
        command = [sys.executable, *program.get(self.manifest.cutlayer, ["-m", "edge"]), *arguments]
        return subprocess.Popen(command, preexec_fn=_die_with_parent)  # noqa: PLW1509

    def switch(self, release):
        fresh = self.root / "current.new"
        fresh.symlink_to(f"releases/{release}")
        fresh.replace(self.root / "current")

    def install(self):
        """What the agent has handed over; whether there was anything."""
        ready = self.incoming / "ready"
        if not ready.exists():
            return False
        name = ready.read_text().strip()
        path = self.incoming / f"{name}.release"
        with open_release(path, read_keys(self.root / "keys"), now=datetime.now(UTC)) as found:
            found.check()
            manifest = found.manifest
        folder = self.root / "releases" / manifest.id
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "manifest.json").write_bytes(manifest.pack())
        (self.root / "previous").write_text(self.manifest.id)
        self.switch(manifest.id)
        (self.root / "trial").write_text("0")
        self.tell(manifest.id, "installed", "")
        path.unlink()
        ready.unlink()
        return True

    def tell(self, release, outcome, reason):
        record = {"format": 1, "release": release, "outcome": outcome, "reason": reason}
        (self.incoming / "result.json").write_text(json.dumps(record))

    def guard(self):
        """Before each start."""
        trial = self.root / "trial"
        if not trial.exists():
            return
        healthy, release = self.root / "healthy", self.manifest.id
        if healthy.exists() and healthy.read_text().strip() == release:
            trial.unlink()
            return
        starts = int(trial.read_text()) + 1
        trial.write_text(str(starts))
        if starts > STARTS:
            trial.unlink()
            self.switch((self.root / "previous").read_text())
            self.tell(release, "rolled back", f"not healthy after {STARTS} starts")

    def run(self):
        while True:
            self.guard()
            agent = self.start()
            while agent.poll() is None and not self.install():
                time.sleep(0.05)
            agent.terminate()
            agent.wait(20)
            time.sleep(0.1)


if __name__ == "__main__":
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    Board(Path(sys.argv[1])).run()
