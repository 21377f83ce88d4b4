"""A card's boot partition, mounted and inside an image; read back without our own code."""

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from export.__main__ import main
from export.flash.disk import fat_partitions
from export.flash.errors import FlashError
from export.flash.places import Folder, Image
from export.flash.seed import Wifi, network_config
from tests.export.flash import parcels

ROOT = Path(__file__).parents[3]


@pytest.fixture
def parcel(tmp_path):
    return parcels.write_parcel(tmp_path)


FILES = ("board.release", "installer.pyz", "release-keys", "claim.json", "device.toml", "first-boot.sh")


def flash(parcel, target, *more):
    release, claim, _ = parcel
    return main(
        [
            "flash",
            "card",
            str(target),
            "--release",
            str(release),
            "--claim",
            str(claim),
            "--config",
            str(release.with_name("device.toml")),
            *more,
        ]
    )


def refusal(parcel, target, capsys, *more):
    assert flash(parcel, target, *more) == 2
    said = capsys.readouterr().err
    assert said.startswith("cutlayer-export: ")
    assert said.count("\n") == 1
    return said


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def check(files, parcel):
    """What a board needs is there, whole, and only that."""
    release, claim, _ = parcel
    mine = {name: data for name, data in files.items() if name.startswith("cutlayer")}
    assert set(mine) == {f"cutlayer/{name}" for name in FILES}
    assert mine["cutlayer/board.release"] == release.read_bytes()
    assert mine["cutlayer/installer.pyz"] == b"an installer"
    assert mine["cutlayer/claim.json"] == claim.read_bytes()
    assert mine["cutlayer/release-keys"] == parcels.PUBLIC.hex().encode() + b"\n"
    assert not [name for name in files if name.endswith((".new", ".old"))]


@pytest.mark.parametrize("kind", ["mbr", "gpt"])
def test_an_image_has_the_seed_in_its_fat_partition(parcel, tmp_path, capsys, kind):
    image = parcels.write_image(tmp_path / "my image.img", parcels.boot_files(), kind)
    size = image.stat().st_size
    assert flash(parcel, image) == 0
    files = parcels.image_files(image, tmp_path / "out")
    check(files, parcel)
    config = yaml.safe_load(files["user-data"])
    assert (config["hostname"], config["timezone"]) == ("attic", "Europe/Berlin")
    assert config["runcmd"][0] == ["touch", "/root/mine"]
    assert "cutlayer/first-boot.sh" in config["runcmd"][1][2]
    assert files["user-data.before-cutlayer"] == parcels.USER_DATA
    assert files["config.txt"] == b"arm_64bit=1\n"
    assert image.stat().st_size == size
    assert flash(parcel, image) == 0  # a second time finds what the first has written
    again = parcels.image_files(image, tmp_path / "again")
    assert set(again) == set(files)
    assert again["user-data"] == files["user-data"]
    with image.open("rb") as file:  # nothing before the partition was touched
        assert file.read(parcels.START * 512) == parcels.table(kind, parcels.START, 40 * 2048 - parcels.START).ljust(
            parcels.START * 512, b"\0"
        )
    assert "whoever holds the card can read the claim" in capsys.readouterr().out


def test_a_mounted_partition_has_the_seed_and_a_second_time_nothing_doubles(parcel, tmp_path):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    assert flash(parcel, boot) == 0
    first = contents(boot)
    check(first, parcel)
    assert flash(parcel, boot) == 0
    second = contents(boot)
    assert set(first) == set(second)
    assert second["user-data"] == first["user-data"]
    assert second["user-data.before-cutlayer"] == parcels.USER_DATA
    one, two = (yaml.safe_load(files["meta-data"])["instance-id"] for files in (first, second))
    assert one != two  # so that cloud-init runs again
    assert f"ds=nocloud;i={two} quiet".encode() in second["cmdline.txt"]


def test_the_instance_id_is_the_one_that_cloud_init_reads(parcel, tmp_path):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    assert flash(parcel, boot) == 0
    found = yaml.safe_load((boot / "meta-data").read_bytes())
    assert set(found) == {"dsmode", "instance-id"}  # not instance_id, which it does not know
    assert (boot / "cmdline.txt").read_text() == (
        f"console=tty1 root=PARTUUID=1-02 rootwait ds=nocloud;i={found['instance-id']} quiet\n"
    )


def test_wifi_users_and_keys_are_merged_into_what_an_imager_wrote(parcel, tmp_path, capfd):
    files = parcels.boot_files(user_data=b"#cloud-config\nusers:\n- name: kim\n  passwd: $5$x\nssh_pwauth: no\n")
    files["network-config"] = b"network:\n  version: 2\n  ethernets:\n    eth0: {dhcp4: true}\n"
    boot = parcels.write_folder(tmp_path / "bootfs", files)
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA kim: # home"
    (tmp_path / "id.pub").write_text(key + "\n")
    wifi = tmp_path / "wifi"
    wifi.write_text(f"IEEE: #1\n{parcels.SECRET}\n")
    wifi.chmod(0o600)
    more = [
        "--wifi",
        str(wifi),
        "--country",
        "DE",
        "--ssh-key",
        str(tmp_path / "id.pub"),
        "--user",
        "kim",
        "--hostname",
        "shed",
    ]
    assert flash(parcel, boot, *more) == 0
    user = yaml.safe_load((boot / "user-data").read_bytes())
    assert user["users"] == [{"name": "kim", "passwd": "$5$x", "ssh_authorized_keys": [key]}]
    assert user["hostname"] == "shed"
    assert user["ssh_pwauth"] is False
    assert [command[2].split()[0] for command in user["runcmd"]] == ["systemctl", "if", "for"]
    network = yaml.safe_load((boot / "network-config").read_bytes())["network"]
    assert network["ethernets"] == {"eth0": {"dhcp4": True}}
    psk = hashlib.pbkdf2_hmac("sha1", parcels.SECRET.encode(), b"IEEE: #1", 4096, 32).hex()
    assert network["wifis"]["wlan0"]["access-points"] == {"IEEE: #1": {"password": psk}}
    assert network["wifis"]["wlan0"]["regulatory-domain"] == "DE"
    assert (boot / "cmdline.txt").read_text().endswith(" quiet cfg80211.ieee80211_regdom=DE\n")
    said = capfd.readouterr()
    everything = b"".join(path.read_bytes() for path in boot.rglob("*") if path.is_file()).decode(errors="replace")
    for secret in (parcels.SECRET, psk, parcels.TOKEN):
        assert secret not in said.out + said.err
    assert parcels.SECRET not in everything  # only the key of this network


def test_the_key_of_a_wifi_is_what_the_standard_makes_of_it():
    # IEEE 802.11i, test vectors of H.4.2
    assert Wifi("IEEE", "password").access == {
        "password": "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    }


def test_no_secret_is_an_argument_of_a_program(parcel, tmp_path, monkeypatch):
    image = parcels.write_image(tmp_path / "a.img", parcels.boot_files())
    wifi = tmp_path / "wifi"
    wifi.write_text(f"home\n{parcels.SECRET}\nwpa3\n")
    seen = []
    real = subprocess.Popen

    def watched(argv, *rest, **more):
        seen.append(" ".join(map(str, argv)))
        return real(argv, *rest, **more)

    monkeypatch.setattr(subprocess, "Popen", watched)
    assert flash(parcel, image, "--wifi", str(wifi)) == 0
    monkeypatch.undo()
    network = yaml.safe_load(parcels.image_files(image, tmp_path / "out")["network-config"])["network"]
    assert network["wifis"]["wlan0"]["access-points"]["home"]["auth"] == {
        "key-management": "sae",
        "password": parcels.SECRET,
    }
    assert network["ethernets"]["cable"]["dhcp4"] is True  # a network-config takes the place of the system's own
    assert len(seen) > 10
    assert not [line for line in seen if parcels.SECRET in line or parcels.TOKEN in line]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("home\n", "the Wi-Fi file has 1 lines"),
        ("home\nsecret12\nopen\n", "the Wi-Fi file has 3 lines"),
        ("home\nseven77\n", "the passphrase of home has 7 characters: 8 to 63"),
        (f"{'n' * 33}\nsecret12\n", "must have 1 to 32 printable bytes"),
    ],
)
def test_a_wifi_file_that_cannot_be_right_is_said_without_the_secret(parcel, tmp_path, capsys, text, sentence):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    wifi = tmp_path / "wifi"
    wifi.write_text(text)
    wifi.chmod(0o600)
    before = contents(boot)
    said = refusal(parcel, boot, capsys, "--wifi", str(wifi))
    assert sentence in said
    assert "secret12" not in said
    assert "seven77" not in said
    assert contents(boot) == before


def test_a_folder_that_is_no_boot_partition_is_told_what_was_looked_for(parcel, tmp_path, capsys):
    looked = (
        "(a boot partition of Raspberry Pi OS from Trixie on, or of Ubuntu for the Pi, has cmdline.txt and config.txt and one "
        "of user-data, meta-data, network-config)"
    )
    cases = {
        "photos": ({"a.jpg": b""}, "it has no cmdline.txt and no config.txt"),
        "bookworm": (
            {"cmdline.txt": b"", "config.txt": b""},
            "its system does not start with cloud-init, use `flash ssh` for it",
        ),
    }
    for name, (files, reason) in cases.items():
        root = parcels.write_folder(tmp_path / name, files)
        assert refusal(parcel, root, capsys) == f"cutlayer-export: {root} is no boot partition: {reason} {looked}\n"
        assert sorted(contents(root)) == sorted(files)
    (tmp_path / "root" / "etc").mkdir(parents=True)
    (tmp_path / "root" / "usr").mkdir()
    assert "it looks like a system's root; for one there is `flash rootfs`" in refusal(
        parcel, tmp_path / "root", capsys
    )


def test_an_image_without_a_boot_partition_is_told_where_was_looked(parcel, tmp_path, capsys):
    image = parcels.write_image(tmp_path / "data.img", {"a.txt": b"a"})
    assert (
        f"{image} has no boot partition: the FAT partition at byte {parcels.START * 512}: it has no cmdline.txt"
        in refusal(parcel, image, capsys)
    )
    (tmp_path / "noise.img").write_bytes(b"\xff" * 4096)
    assert "is no disk image with a FAT partition: looked in its partition table, MBR or GPT" in refusal(
        parcel, tmp_path / "noise.img", capsys
    )
    (tmp_path / "a.img.xz").write_bytes(b"\xfd7zXZ\0" + bytes(600))
    assert "is packed: unpack it first, with `xz -d`" in refusal(parcel, tmp_path / "a.img.xz", capsys)
    assert "is not there" in refusal(parcel, tmp_path / "none.img", capsys)


def test_a_partition_table_of_lies_is_not_followed(tmp_path):
    for kind in ("mbr", "gpt"):
        path = tmp_path / kind
        path.write_bytes(parcels.table(kind, 1 << 31, 1 << 31).ljust(8192, b"\0"))
        with path.open("rb") as file:
            assert fat_partitions(file, 8192) == []


def test_a_device_is_never_written_and_the_right_tool_is_named(parcel, tmp_path, capsys, monkeypatch):
    for target in (Path("/dev/null"), Path("/dev/mmcblk99"), Path("/dev")):
        said = refusal(parcel, target, capsys)
        assert f"{target} is a device, which this never writes" in said
        assert f"`rpi-imager --cli IMAGE {target}` or `bmaptool copy IMAGE {target}`" in said
    link = tmp_path / "card.img"
    link.symlink_to("/dev/null")
    assert "is a device" in refusal(parcel, link, capsys)
    real = Path.stat

    def block(path, **more):
        found = real(path, **more)
        return os.stat_result((stat.S_IFBLK | 0o660, *tuple(found)[1:])) if path.name == "disk" else found

    (tmp_path / "disk").write_bytes(b"")
    monkeypatch.setattr(Path, "stat", block)
    assert "is a device" in refusal(parcel, tmp_path / "disk", capsys)


def test_a_full_partition_is_refused_before_anything_is_written(parcel, tmp_path, capsys):
    image = parcels.write_image(tmp_path / "a.img", {**parcels.boot_files(), "kernel8.img": bytes(40_000_000)})
    before = image.read_bytes()
    assert "MiB of room and" in refusal(parcel, image, capsys)
    assert image.read_bytes() == before


@pytest.mark.parametrize("stop", range(1, 22))
def test_whatever_fails_in_the_middle_leaves_the_partition_as_it_was(parcel, tmp_path, capsys, monkeypatch, stop):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    before, calls = contents(boot), []

    def breaking(method):
        def call(self, *arguments):
            calls.append(method.__name__)
            if len(calls) == stop:
                raise OSError(28, "No space left on device")
            return method(self, *arguments)

        return call

    for name in ("make_folder", "write", "digest", "rename"):
        monkeypatch.setattr(Folder, name, breaking(getattr(Folder, name)))
    done = flash(parcel, boot)
    if len(calls) < stop:
        pytest.fail("nothing is left to break: the range is too long")
    assert done == 2
    assert "No space left on device; it is as it was" in capsys.readouterr().err
    assert contents(boot) == before


def test_a_writer_that_was_killed_is_tidied_up_behind(parcel, tmp_path):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    (boot / "user-data").rename(boot / "user-data.old")  # killed between two renames
    (boot / "cutlayer.new").mkdir()
    (boot / "cutlayer.new" / "board.release").write_bytes(b"half")
    assert flash(parcel, boot) == 0
    check(contents(boot), parcel)
    assert yaml.safe_load((boot / "user-data").read_bytes())["timezone"] == "Europe/Berlin"


def test_a_card_that_does_not_keep_what_is_written_is_noticed(parcel, tmp_path, capsys, monkeypatch):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    before = contents(boot)
    monkeypatch.setattr(Folder, "digest", lambda *_: "0" * 64)
    assert "reads back from" in refusal(parcel, boot, capsys)
    assert contents(boot) == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"#!/bin/sh\necho mine\n", "does not begin with #cloud-config"),
        (b"Content-Type: multipart/mixed\n", "does not begin with #cloud-config"),
        (b"#cloud-config\nhostname: [a\n", "is no YAML in line"),
        (b"#cloud-config\n- a\n", "is no mapping of names to values"),
        (b"#cloud-config\nruncmd: reboot\n", "has a 'runcmd' that is no list"),
        (b"#cloud-config\n\xff\n", "is no YAML"),
    ],
)
def test_user_data_that_cannot_be_added_to_is_refused_and_replaced_if_asked(parcel, tmp_path, capsys, text, sentence):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files(user_data=text))
    before = contents(boot)
    said = refusal(parcel, boot, capsys)
    assert f"the user-data that is there {sentence}" in said
    assert "--replace" in said
    assert contents(boot) == before
    assert flash(parcel, boot, "--replace") == 0
    config = yaml.safe_load((boot / "user-data").read_bytes())
    assert config["hostname"] == "greenhouse-7"
    assert (boot / "user-data.before-cutlayer").read_bytes() == text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"claim": {"expires": "2020-01-01T00:00:00Z"}},
            "expired at 2020-01-01 00:00 UTC: make a new one with `cutlayer-hub enrol",
        ),
        ({"claim": {"board": "pi4"}}, "it is for the board pi5, this is pi4"),
        ({"claim": {"fleet": "other"}}, "it is for the fleet fleet, this is other"),
        ({"claim": {"release_keys": ["11" * 32]}}, "pi5.release: "),
        ({"claim": {"release_keys": []}}, "has no release_keys"),
        ({"claim": {"name": "../etc"}}, "its 'name' is missing or has another form"),
        ({"partial": True}, "is made for boards that have the release before it: agent.zip is not in it"),
    ],
)
def test_what_does_not_belong_together_is_refused_before_the_card_is_touched(tmp_path, capsys, changes, sentence):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    before = contents(boot)
    said = refusal(parcels.write_parcel(tmp_path, **changes), boot, capsys)
    assert sentence in said
    assert parcels.TOKEN not in said
    assert contents(boot) == before


def test_a_private_key_and_a_user_without_a_key_are_refused(parcel, tmp_path, capsys):
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert "is a private key, which belongs on no card" in refusal(
        parcel, boot, capsys, "--ssh-key", str(tmp_path / "id")
    )
    assert "nobody could log in as kim" in refusal(parcel, boot, capsys, "--user", "kim")
    assert "--wifi-ask needs a terminal" in refusal(parcel, boot, capsys, "--wifi-ask")


def test_the_whole_way_of_the_first_boot(tmp_path):
    """cloud-init's command finds the script, the unit's command runs the installer, the claim is gone."""
    installer = parcels.program(
        "import json, sys, pathlib\npathlib.Path(sys.argv[2]).parents[2].joinpath('ran.json').write_text(json.dumps(sys.argv[1:]))\n"
    )
    boot = parcels.write_folder(tmp_path / "boot firmware", parcels.boot_files())
    assert flash(parcels.write_parcel(tmp_path, installer=installer), boot) == 0
    run = yaml.safe_load((boot / "user-data").read_bytes())["runcmd"][-1]
    assert run[:2] == ["sh", "-c"]
    units, programs = tmp_path / "units", tmp_path / "bin"
    units.mkdir()
    programs.mkdir()
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/systemctl.log\n')
    (programs / "systemctl").chmod(0o755)
    (programs / "python3").symlink_to(sys.executable)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "CUTLAYER_UNITS": str(units)}
    script = run[2].replace("/boot/firmware /boot", f"'{boot}'").replace("$boot/", '"$boot"/')
    subprocess.run(["sh", "-c", script], check=True, env=environment, timeout=60)
    unit = (units / "cutlayer-card.service").read_text()
    assert f"ConditionPathExists={boot}/cutlayer/claim.json" in unit
    assert (tmp_path / "systemctl.log").read_text().splitlines() == [
        "daemon-reload", "enable cutlayer-card.service", "start --no-block cutlayer-card.service"
    ]  # fmt: skip
    assert not (tmp_path / "ran.json").exists()  # it is the unit that installs: it goes on after a power cut
    subprocess.run(["sh", str(boot / "cutlayer" / "first-boot.sh"), "install"], check=True, env=environment, timeout=60)
    here = f"{boot}/cutlayer"
    assert json.loads((tmp_path / "ran.json").read_text()) == [
        "install", f"{here}/board.release", "--keys", f"{here}/release-keys", "--claim", f"{here}/claim.json", "--config", f"{here}/device.toml",
    ]  # fmt: skip
    assert not (boot / "cutlayer" / "claim.json").exists()
    assert not (units / "cutlayer-card.service").exists()


def test_an_installer_that_fails_keeps_the_claim_for_the_next_try(tmp_path):
    boot = parcels.write_folder(tmp_path / "boot", parcels.boot_files())
    assert flash(parcels.write_parcel(tmp_path, installer=parcels.program("raise SystemExit(2)")), boot) == 0
    done = subprocess.run(["sh", str(boot / "cutlayer" / "first-boot.sh"), "install"], check=False, timeout=60)
    assert done.returncode == 2
    assert parcels.TOKEN in (boot / "cutlayer" / "claim.json").read_text()


def test_cloud_init_finds_nothing_wrong_with_it(parcel, tmp_path):
    cloud_init = next((path for path in ("/usr/bin/cloud-init",) if Path(path).exists()), None)
    if cloud_init is None:
        pytest.skip("cloud-init is not installed")
    boot = parcels.write_folder(tmp_path / "bootfs", parcels.boot_files())
    assert flash(parcel, boot) == 0
    done = subprocess.run(
        [cloud_init, "schema", "-c", str(boot / "user-data")], check=False, capture_output=True, text=True, timeout=60
    )
    assert "Valid cloud-config" in done.stdout + done.stderr, done.stdout + done.stderr


def test_the_network_that_ubuntu_ships_keeps_its_shape_and_its_wifis():
    shipped = b"version: 2\nethernets:\n  eth0: {dhcp4: true, optional: true}\nwifis:\n  wlan0:\n    access-points:\n      old: {password: oldoldold}\n"
    found = yaml.safe_load(network_config(shipped, Wifi("new: [1]", "a" * 64), None))
    assert found["ethernets"] == {"eth0": {"dhcp4": True, "optional": True}}
    assert found["wifis"]["wlan0"]["access-points"] == {
        "old": {"password": "oldoldold"},
        "new: [1]": {"password": "a" * 64},
    }
    with pytest.raises(FlashError, match="is no netplan of version 2"):
        network_config(b"version: 1\nconfig: []\n", Wifi("new", "a" * 64), None)


def test_an_image_that_fails_in_the_middle_is_as_it_was(parcel, tmp_path, capsys, monkeypatch):
    image = parcels.write_image(tmp_path / "a.img", parcels.boot_files())
    real, calls = Image.rename, []

    def third(self, *names):
        calls.append(names)
        if len(calls) == 4:
            raise FlashError("mren is unwell")
        real(self, *names)

    monkeypatch.setattr(Image, "rename", third)
    assert "mren is unwell" in refusal(parcel, image, capsys)
    monkeypatch.undo()
    assert parcels.image_files(image, tmp_path / "out") == parcels.boot_files()
