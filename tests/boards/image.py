"""Disk images of a tree, made without loop devices."""

import shutil
import struct
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
    # The guard has its say before each of three starts: what lies between them is waiting.
    hurry = tree / "etc/systemd/system/cutlayer.service.d/test.conf"
    hurry.parent.mkdir()
    hurry.write_text("[Service]\nRestartSec=1\n")
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


def write_card(path: Path, *, mebibytes: int = 160) -> Path:
    """Write a card with one FAT partition, as it comes from an imager: what the firmware reads, and an empty seed."""
    first, sectors = 2048, mebibytes * 2048 - 2048
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", 0x0C, b"\xfe\xff\xff", first, sectors)
    with path.open("wb") as file:
        file.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
        file.truncate(mebibytes << 20)
    tool = shutil.which("mkfs.vfat", path="/usr/sbin:/sbin:/usr/bin") or "mkfs.vfat"
    command = [tool, "--offset", str(first), "-F", "32", "-n", "bootfs", path, str(sectors // 2)]
    subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    files = {
        "config.txt": "",
        "cmdline.txt": "console=serial0,115200\n",
        "user-data": "#cloud-config\n",
        "meta-data": "instance_id: first\n",
    }
    for name, text in files.items():
        at = f"{path}@@{first * 512}"
        subprocess.run(["mcopy", "-i", at, "-", f"::{name}"], input=text.encode(), check=True)
    return path


# As Raspberry Pi OS has it: the seed is on the boot partition.
_CLOUD_INIT = """datasource_list: [ NoCloud, None ]
datasource:
  NoCloud:
    seedfrom: file:///boot/firmware/
network:
  config: disabled
"""
_CLOUD_UNITS = ("cloud-init-local.service", "cloud-init.service", "cloud-config.service", "cloud-final.service")


def with_cloud_init(tree: Path) -> None:
    """Have cloud-init look for its seed on the boot partition, as official images do."""
    (tree / "etc/cloud/cloud.cfg.d/99_boot.cfg").write_text(_CLOUD_INIT)
    wants = tree / "etc/systemd/system/cloud-init.target.wants"
    wants.mkdir(parents=True)
    for unit in _CLOUD_UNITS:
        (wants / unit).symlink_to(f"/lib/systemd/system/{unit}")
