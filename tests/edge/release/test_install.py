"""A release onto a board: what is taken, what is refused with a sentence, and what is on the disk then."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from edge.release import disk, environment, guard, trial
from edge.release.layout import Layout
from edge.release.manifest import ReleaseError
from tests.edge.release import board, make
from tests.edge.release.board import Board, archive, wheel


@pytest.fixture
def tmp_path():
    with board.memory() as folder:
        yield folder


@pytest.fixture
def here(tmp_path):
    return Board(tmp_path / "root")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.release"


def proven(here, path, version=1, **how):
    manifest = board.write(path, version, **how)
    here.install(path)
    here.start()
    here.healthy()
    assert here.start() == manifest.id
    return manifest


def refused(here, path, sentence, **how):
    """It is refused with this sentence, and the board is as it was."""
    before = tree(here)
    with pytest.raises(ReleaseError, match=sentence) as caught:
        here.install(path, **how)
    assert "\n" not in str(caught.value)
    assert tree(here) == before
    return str(caught.value)


def tree(here):
    """Names and contents, but for the folders and the lock that any attempt makes."""
    found = {at: at.read_bytes() for at in here.layout.root.rglob("*") if at.is_file() and not at.is_symlink()}
    found.pop(here.layout.lock, None)
    return found, sorted(at for at in here.layout.root.rglob("*") if at.is_symlink() or at.name.startswith("."))


def test_the_agent_starts_with_its_own_python_and_packages(here, path):
    proven(here, path)
    folder = here.layout.current.resolve()
    done = subprocess.run(
        [folder / "environment" / "bin" / "python", "-m", "edge"],
        env={"PYTHONPATH": str(folder / "agent"), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1 1\n", "", 0)
    where = subprocess.run(
        [
            folder / "environment" / "bin" / "python",
            "-c",
            "import sys; print(sys.prefix); print(sys.path[-1]); print(sys.base_prefix)",
        ],
        env={},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert where[0] == str(folder / "environment")
    assert where[1] == str(folder / "environment" / "lib" / f"python{board.PYTHON}" / "site-packages")
    assert where[2] == sys.base_prefix
    assert sorted(at.name for at in (folder / "environment" / "bin").iterdir()) == ["python", "python3"]


def test_the_same_release_again_changes_nothing_and_says_so(here, path):
    manifest = proven(here, path)
    before = tree(here)
    done = here.install(path)
    assert (done.release, done.version, done.changed) == (manifest.id, 1, False)
    assert here.lines[-1] == f"release {manifest.id[:12]} (version 1) is installed already: nothing to do"
    assert tree(here) == before
    assert trial.load(here.layout) is None


def test_an_older_release_is_refused_also_after_the_guard_has_gone_back(here, path, tmp_path):
    proven(here, path, 5)
    board.write(tmp_path / "4.release", 4)
    refused(here, tmp_path / "4.release", "it has version 4, this board has had 5: it does not go back")
    board.write(tmp_path / "6.release", 6)
    here.install(tmp_path / "6.release")
    for _ in range(4):
        here.start()
    assert guard.manifest(here.layout, here.current).version == 5
    refused(here, tmp_path / "6.release", "it has version 6, this board has had 6: it does not go back")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architecture": "riscv64"}, r"it is for the architecture riscv64, this is \w+"),
        ({"python": "3.99"}, r"it is for Python 3\.99, this board has 3\.\d+"),
        ({"board": "zero2"}, "it is for the board zero2, this is pi5"),
        ({"fleet": "others"}, "it is for the fleet others, this is fleet"),
        ({"seed": bytes(32)}, "it is signed by the key"),
        ({"expires": datetime(2026, 11, 30, tzinfo=UTC)}, "it has expired at 2026-11-30"),
    ],
)
def test_a_release_for_others_is_refused(here, path, tmp_path, changes, sentence):
    proven(here, path)
    board.write(tmp_path / "b.release", 2, **changes)
    refused(here, tmp_path / "b.release", sentence)


def test_a_clock_in_1970_is_waited_for(here, path):
    manifest = board.write(path, 1)
    moments = [datetime(1970, 1, 1, tzinfo=UTC)] * 3 + [board.NOW] * 9
    slept = []
    here.install(path, wait_seconds=60, now=lambda: moments.pop(0), sleep=slept.append)
    assert here.start() == manifest.id
    assert slept == [2.0, 2.0, 2.0]
    assert (
        "this board's clock says 1970-01-01T00:00:00Z: the clock has to be set first; waiting at most 60 s"
        in here.lines[0]
    )


def test_a_clock_that_stays_in_1970_ends_in_a_sentence(here, path):
    board.write(path, 1)
    slept = []
    said = refused(
        here, path, "waited 6 s for that: check the network, or set it with `date`",
        wait_seconds=5, now=lambda: datetime(1970, 1, 1, tzinfo=UTC), sleep=slept.append,
    )  # fmt: skip
    assert "the clock has to be set first" in said
    assert sum(slept) == 5


def test_a_full_disk_is_found_before_anything_is_written(here, path, tmp_path):
    proven(here, path)
    files = board.contents(2, wheels={"big-1-py3-none-any.whl": wheel("big", "1", {"big.py": b"#" * 10_000_000})})
    board.write(tmp_path / "b.release", 2, files=files)
    refused(here, tmp_path / "b.release", r"cutlayer is too full: this needs 14\.\d MB there and 9\.0 MB are free", room=lambda _: 9_000_000)  # fmt: skip


def test_a_disk_too_small_for_what_is_unpacked_is_found_before_it_is_unpacked(here, path, tmp_path):
    proven(here, path)
    import io  # noqa: PLC0415 - only here
    import zipfile  # noqa: PLC0415 - only here

    plain = wheel("big", "1", {"big.py": b"#" * 50_000_000})
    to = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(plain)) as old, zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(zipfile.ZipInfo(name), old.read(name), zipfile.ZIP_DEFLATED)
    assert len(to.getvalue()) < 100_000
    board.write(tmp_path / "b.release", 2, files=board.contents(2, wheels={"big-1-py3-none-any.whl": to.getvalue()}))
    refused(
        here, tmp_path / "b.release", r"this needs 5\d\.\d MB there and 20\.0 MB are free", room=lambda _: 20_000_000
    )


def test_everything_is_readable_whatever_the_umask_says(here, path, tmp_path):
    board.write(path, 1)
    (tmp_path / "keys").write_bytes(board.KEYS)
    (tmp_path / "device.toml").write_bytes(board.CONFIG)
    before = os.umask(0o077)
    try:
        here.install(path)
    finally:
        os.umask(before)
    private = [here.layout.state / "identity", here.layout.state / "state", here.layout.lock]
    for at in here.layout.root.rglob("*"):
        mode = stat.S_IMODE(at.lstat().st_mode)
        if at.is_symlink() or at in private:
            continue
        wanted = 0o755 if at.is_dir() or at.name == "_fast.so" else 0o644
        assert mode == wanted, f"{at}: {mode:o}"
    assert stat.S_IMODE(private[0].stat().st_mode) == 0o700


def test_graphs_alone_are_small_and_the_rest_is_taken_from_what_runs(here, path, tmp_path):
    proven(here, path)
    files = {**board.contents(1), "device.bundle": b"new graphs"}
    part = tmp_path / "part.release"
    manifest = board.write(part, 2, files=files, leave_out=[name for name in files if name != "device.bundle"])
    assert part.stat().st_size < 8192
    here.install(part)
    assert here.start() == manifest.id
    here.assert_whole(manifest.id)
    assert (here.layout.current / "device.bundle").read_bytes() == b"new graphs"
    assert len(list(here.layout.environments.iterdir())) == 1


def test_one_new_wheel_comes_alone_and_the_others_are_taken_from_the_environment_that_runs(here, path, tmp_path):
    old = proven(here, path)
    wheels = {
        name.removeprefix("wheels/"): data for name, data in board.contents(1).items() if name.startswith("wheels/")
    }
    del wheels["small-1.0-py3-none-any.whl"]
    wheels["small-1.1-py3-none-any.whl"] = wheel("small", "1.1", {"small/__init__.py": b"VALUE = 11\n"})
    files = board.contents(1, wheels=wheels)
    part = tmp_path / "part.release"
    manifest = board.write(part, 2, files=files, leave_out=[name for name in files if "small" not in name])
    here.install(part)
    here.assert_whole(manifest.id)
    assert (here.packages() / "small" / "__init__.py").read_text() == "VALUE = 11\n"
    assert os.access(here.packages() / "other" / "_fast.so", os.X_OK)
    assert here.layout.environment(old.environment).is_dir()


def test_a_partial_release_whose_rest_is_not_here_is_refused(here, path, tmp_path):
    files = board.contents(1)
    board.write(path, 1, files=files, leave_out=["agent.zip", "installer.pyz"])
    refused(here, path, "is partial and this board lacks agent.zip and 1 more: it needs the whole release")


def test_a_damaged_file_of_the_release_that_runs_is_not_carried_over(here, path, tmp_path):
    proven(here, path)
    (here.packages() / "other" / "_fast.so").write_bytes(b"rotten")
    files = board.contents(
        1, wheels={"other-2.0-py3-none-any.whl": board.contents(1)["wheels/other-2.0-py3-none-any.whl"]}
    )
    board.write(path, 2, files=files, leave_out=[name for name in files if name.startswith("wheels/")])
    refused(here, path, r"_fast\.so is missing or damaged: it is not the file that other-2\.0\.dist-info/RECORD names")


@pytest.mark.parametrize("gone", ["agent/edge", "environment/bin/python", "manifest.json"])
def test_a_damaged_release_is_mended_by_installing_it_again(here, path, gone):
    name = proven(here, path).id
    found = here.layout.current / gone
    shutil.rmtree(found) if found.is_dir() else found.unlink()
    assert here.install(path).changed
    here.assert_whole(name)
    assert here.start() == name
    assert here.rubbish() == []


def test_contents_changed_on_the_way_are_refused_and_nothing_is_left(here, path):
    proven(here, path)
    board.write(
        path, 2, files=board.contents(2, wheels={"a-1-py3-none-any.whl": wheel("a", "1", {"a.py": b"qqright"})})
    )
    data = path.read_bytes()
    assert data.count(b"qqright") == 1
    path.write_bytes(data.replace(b"qqright", b"qqwrong"))
    refused(here, path, "the contents .* are damaged")


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"../../evil.py": b""}, "has no place in a folder of packages"),
        ({"/etc/evil": b""}, "has no place in a folder of packages"),
        ({"a\\..\\b": b""}, "has no place in a folder of packages"),
        ({"small/__init__.py": b"again"}, "is in another wheel too"),
    ],
)
def test_a_wheel_that_writes_elsewhere_is_refused_although_it_is_signed(here, path, files, sentence):
    wheels = {
        "small-1.0-py3-none-any.whl": wheel("small", "1.0", {"small/__init__.py": b""}),
        "worse-1.0-py3-none-any.whl": wheel("worse", "1.0", files),
    }
    board.write(path, 1, files=board.contents(1, wheels=wheels))
    refused(here, path, sentence)


def test_a_wheel_whose_record_does_not_fit_is_refused(here, path):
    def with_record(record, **more):
        files = {"a.py": b"1", "a-1.dist-info/RECORD": record.encode(), **more}
        return board.contents(1, wheels={"a-1-py3-none-any.whl": archive(files)})

    for record, sentence in (
        (f"a.py,{board.digest(b'2')},1\n", "a.py is not the file that RECORD names"),
        ("", "a.py is in the wheel or in its RECORD, not in both"),
        (
            f"a.py,{board.digest(b'1')},1\nb.py,{board.digest(b'')},0\n",
            "b.py is in the wheel or in its RECORD, not in both",
        ),
        ("a.py,md5=abc,1\n", "RECORD has no SHA-256 for 'a.py'"),
    ):
        board.write(path, 1, files=with_record(record))
        refused(here, path, sentence)
    board.write(path, 1, files=board.contents(1, wheels={"a-1-py3-none-any.whl": b"no zip"}))
    refused(here, path, "a-1-py3-none-any.whl is no wheel")


def test_an_agent_that_writes_elsewhere_is_refused(here, path):
    files = board.contents(1)
    for agent, sentence in (
        (archive({"edge/__main__.py": b"", "../x": b""}), "has no place in a release"),
        (archive({"readme": b""}), "agent.zip has no edge/__main__.py"),
        (b"no zip", "File is not a zip file"),
    ):
        board.write(path, 1, files={**files, "agent.zip": agent})
        refused(here, path, sentence)


def test_another_installation_is_waited_for_a_minute(here, path):
    board.write(path, 1)
    here.layout.home.mkdir(parents=True)
    slept = []
    with (
        disk.lock(here.layout.lock),
        pytest.raises(ReleaseError, match="another installation is under way, and has been for a minute"),
    ):
        here.install(path, sleep=slept.append)
    assert slept == [1.0] * 61


def test_the_python_of_an_image_s_tree_is_read_from_its_files(tmp_path):
    folder = tmp_path / "usr" / "bin"
    folder.mkdir(parents=True)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00" + (183).to_bytes(2, "little")
    (folder / "python3.13").write_bytes(head)
    (folder / "python3").symlink_to("python3.13")
    assert environment.interpreter(Layout(tmp_path)) == environment.Interpreter(
        "/usr/bin/python3.13", "3.13", "aarch64"
    )


def test_the_command_installs_guards_and_tells(tmp_path):
    """As on a board: a bare Python and the zipapp."""
    manifest = board.write(tmp_path / "a.release", 1)
    (tmp_path / "i.pyz").write_bytes(board.installer())
    (tmp_path / "keys").write_bytes(board.KEYS)
    (tmp_path / "device.toml").write_bytes(board.CONFIG)

    def run(*arguments):
        command = [os.path.realpath(sys.executable), "-I", "-W", "error", str(tmp_path / "i.pyz"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, umask=0o077)

    root = ["--root", str(tmp_path / "root")]
    done = run("install", str(tmp_path / "a.release"), *root)
    assert (done.returncode, done.stderr) == (2, "installer.pyz: there are no keys to check it with: give --keys FILE, or a claim that has them\n")  # fmt: skip
    assert not (tmp_path / "root").exists()
    done = run("guard", *root)
    assert done.returncode == 1
    done = run("install", str(tmp_path / "a.release"), "--keys", str(tmp_path / "keys"), *root)
    assert done.returncode == 2
    assert "the configuration has no name in [device]: give a claim (--claim) or a configuration (--config) that has it" in done.stderr  # fmt: skip
    done = run("install", str(tmp_path / "a.release"), "--keys", str(tmp_path / "keys"), "--config", str(tmp_path / "device.toml"), *root)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, f"cutlayer: release {manifest.id[:12]} (version 1) is installed and on trial\n")  # fmt: skip
    assert run("guard", *root).stderr == f"cutlayer: release {manifest.id[:12]} is on trial: start 1 of 3\n"
    told = run("status", "--verify", *root)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.splitlines() == [
        f"current: {manifest.id}, version 1, cutlayer 0.1.0, pi5",
        "previous: none",
        f"on trial: {manifest.id}, started 1 times; going back would be to none",
        "highest version so far: 1",
        "called healthy: none",
    ]
    Board(tmp_path / "root").packages().joinpath("small", "__init__.py").write_text("VALUE = 2\n")
    told = run("status", "--verify", *root)
    assert told.returncode == 1
    assert re.search(r"current: \w+, damaged: .*small/__init__\.py is missing or damaged", told.stdout)
    assert json.loads((tmp_path / "root/opt/cutlayer/trial.json").read_text())["starts"] == 1


def test_a_release_at_the_limit_of_its_date_is_taken(here, path):
    board.write(path, 1, expires=board.NOW + timedelta(seconds=1))
    here.install(path)
    assert here.start()
    assert make.NOW < board.NOW
