"""Disk images of a tree, made without loop devices."""

import shutil
import subprocess
from pathlib import Path

# A shell on a line of its own: how a test looks into a running board.
SHELL_UNIT = """[Unit]
Description=Shell for the test
DefaultDependencies=no
After=sysinit.target

[Service]
ExecStart=/bin/sh
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/hvc0
Restart=always

[Install]
WantedBy=sysinit.target
"""
# Of no use to a board that a test looks at, and each takes seconds where processors are emulated.
MASKED = (
    "getty.target", "systemd-binfmt.service", "systemd-random-seed.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "systemd-user-sessions.service", "systemd-logind.service", "systemd-machine-id-commit.service", "systemd-journal-flush.service",
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service", "systemd-networkd.service", "systemd-networkd-wait-online.service",
    "systemd-ask-password-wall.path", "systemd-ask-password-console.path", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "dev-hugepages.mount", "dev-mqueue.mount", "modprobe@.service", "systemd-modules-load.service", "systemd-boot-system-token.service",
    "systemd-pstore.service", "console-getty.service", "kmod-static-nodes.service",
)  # fmt: skip


def prepare(tree: Path) -> None:
    """Make a tree boot quickly, with a shell for the test and a journal on the console."""
    units = tree / "etc/systemd/system"
    for name in MASKED:
        (units / name).unlink(missing_ok=True)
        (units / name).symlink_to("/dev/null")
    (units / "test-shell.service").write_text(SHELL_UNIT)
    enable(tree, "test-shell.service", "sysinit.target")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    settings = tree / "etc/systemd/journald.conf.d/test.conf"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("[Journal]\nStorage=volatile\nForwardToConsole=yes\nMaxLevelConsole=info\n")


def enable(tree: Path, unit: str, target: str) -> None:
    """As `systemctl enable` would."""
    folder = tree / f"etc/systemd/system/{target}.wants"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / unit).unlink(missing_ok=True)
    (folder / unit).symlink_to(f"../{unit}")


def write(tree: Path, path: Path, *, mebibytes: int = 1024) -> Path:
    """Write the tree as an ext4 file system into a file that is full of holes; owners and modes are those of the tree."""
    path.unlink(missing_ok=True)
    tool = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") or "mke2fs"
    command = [tool, "-q", "-F", "-t", "ext4", "-m", "0", "-L", "rootfs", "-d", tree, path, f"{mebibytes}M"]
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)
    return path
