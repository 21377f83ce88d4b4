"""Memory as /proc and control groups of both versions show it."""

from dataclasses import replace

import pytest

from edge import bundle
from edge.files import Files
from edge.memory import (
    PROCESS_BYTES,
    Room,
    TooLargeError,
    largest_batch,
    needed_bytes,
    refuse_hopeless,
    refuse_too_large,
    room,
)
from tests.tiny import write_bundle

MIB = 2**20
MEMINFO = (
    "MemTotal:        3884356 kB\nMemFree:          123456 kB\nMemAvailable:    3012345 kB\nHugePages_Total:       0"
)
SERVICE = "sys/fs/cgroup/system.slice/cutlayer.service"


@pytest.fixture
def put(tmp_path):
    def write(files: dict[str, object]) -> Files:
        for path, content in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"{content}\n")
        return Files(tmp_path)

    return write


def test_without_a_limit_the_board_is_the_ceiling(put):
    found = room(
        put(
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/user.slice",
                "sys/fs/cgroup/user.slice/memory.max": "max",
            }
        )
    )
    assert (found.total_bytes, found.available_bytes) == (3884356 * 1024, 3012345 * 1024)
    assert (found.limit_bytes, found.limit_source) == (None, "no control group limits it")
    assert found.headroom_bytes(1000 * MIB) == 3884356 * 1024 - 1000 * MIB


def test_the_least_limit_on_the_way_to_the_own_group_counts(put):
    found = room(
        put(
            {
                "proc/meminfo": MEMINFO,
                "proc/self/cgroup": "0::/system.slice/cutlayer.service/worker",
                f"{SERVICE}/memory.max": 300 * MIB,
                f"{SERVICE}/worker/memory.max": "max",
                "sys/fs/cgroup/system.slice/memory.max": 900 * MIB,
            }
        )
    )
    assert (found.limit_bytes, found.limit_source) == (300 * MIB, f"/{SERVICE}/memory.max")
    assert found.headroom_bytes(310 * MIB) == -10 * MIB


def test_another_units_limit_is_read_where_it_runs(put):
    files = put({"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/user.slice", f"{SERVICE}/memory.max": 256 * MIB})
    assert room(files, "cutlayer.service").limit_bytes == 256 * MIB
    assert room(files, "other.service").limit_source == "other.service is not running, so its MemoryMax is not known"
    assert room(files).limit_bytes is None


def test_version_1_shows_no_limit_as_a_huge_number(put):
    group = "sys/fs/cgroup/memory/box"
    files = {
        "proc/self/cgroup": "9:memory:/box\n4:cpu,cpuacct:/box",
        f"{group}/memory.limit_in_bytes": 9223372036854771712,
    }
    assert room(put(files)).limit_bytes is None
    assert room(put({f"{group}/memory.limit_in_bytes": 64 * MIB})).limit_source == f"/{group}/memory.limit_in_bytes"


def test_where_nothing_is_told_nothing_is_known(put):
    found = room(put({}))
    assert (found.total_bytes, found.available_bytes, found.headroom_bytes(1)) == (None, None, None)
    assert found.to_record()["limit_source"] == "no control group limits it"


@pytest.mark.parametrize(
    ("lines", "limit"),
    [
        ("MemoryMax=300M", 300 * MIB),
        ("MemoryMax=1.5G", 1536 * MIB),
        ("MemoryMax=50%", 3884356 * 1024 // 2),
        ("MemoryMax=104857600", 100 * MIB),
        ("MemoryMax=infinity", None),
        ("#MemoryMax=1M", None),
    ],
)
def test_of_a_service_that_does_not_run_the_unit_file_tells(put, lines, limit):
    unit = "etc/systemd/system/cutlayer.service"
    found = room(put({"proc/meminfo": MEMINFO, unit: f"[Service]\n{lines}"}), "cutlayer.service")
    assert found.limit_bytes == limit
    assert found.limit_source == (
        f"/{unit}" if limit else "cutlayer.service is not running, so its MemoryMax is not known"
    )


def test_a_drop_in_has_the_last_word_and_a_running_service_the_very_last(put):
    drop = "etc/systemd/system/cutlayer.service.d/override.conf"
    files = {"lib/systemd/system/cutlayer.service": "MemoryMax=300M", drop: "MemoryMax=200M"}
    assert room(put(files), "cutlayer.service").limit_source == f"/{drop}"
    assert room(put({f"{SERVICE}/memory.max": 150 * MIB}), "cutlayer.service").limit_bytes == 150 * MIB


# What does not fit ----------------------------------------------------------------------------------------------

NEEDS = {
    "local": {"fixed_bytes": 5 * MIB, "sample_bytes": 2 * MIB},
    "forward": {"fixed_bytes": 3 * MIB, "sample_bytes": MIB},
}


def manifest_of(tmp_path, needs):
    write_bundle(tmp_path / "b", **({"memory": needs} if needs else {}))
    return bundle.load(tmp_path / "b").manifest


def space(mib, *, limit=None):
    """A board with so much memory beyond that of an empty process."""
    size = None if limit is None else PROCESS_BYTES + limit * MIB
    return Room(PROCESS_BYTES + mib * MIB, None, size, "/sys/fs/cgroup/box/memory.max")


def test_the_need_is_the_process_the_state_and_each_sample(tmp_path):
    manifest = manifest_of(tmp_path, NEEDS)
    assert needed_bytes(manifest, "local", 8) == PROCESS_BYTES + (5 + 8 * 2) * MIB
    # The state is there once, and each graph keeps what its largest batch took.
    assert needed_bytes(manifest, "local", 8, {"forward": 4, "local": 2}) == PROCESS_BYTES + (5 + 8 * 2 + 4) * MIB
    assert largest_batch(manifest, "local", space(21)) == 8
    assert largest_batch(manifest, "local", space(20)) == 7
    assert largest_batch(manifest, "local", space(24), {"forward": 4}) == 7


def test_a_batch_that_does_not_fit_is_refused_with_the_one_that_does(tmp_path):
    manifest = manifest_of(tmp_path, NEEDS)
    refuse_too_large(manifest, "local", 8, space(21))
    with pytest.raises(TooLargeError) as refused:
        refuse_too_large(manifest, "local", 9, space(21))
    assert str(refused.value) == (
        "the local graph with a batch of 9 needs about 94 MiB (estimated for one thread, without data and codec); "
        "there are 92 MiB by the board's memory; a batch of 8 fits"
    )


def test_what_the_data_take_is_not_there_for_a_graph(tmp_path):
    manifest = manifest_of(tmp_path, NEEDS)
    beside = replace(space(21), data_bytes=2 * MIB)
    assert largest_batch(manifest, "local", beside) == 7
    with pytest.raises(TooLargeError, match="there are 90 MiB by the board's memory, less 2 MiB of data; a batch of 7"):
        refuse_too_large(manifest, "local", 8, beside)
    limited = replace(space(500, limit=8), data_bytes=2 * MIB)
    with pytest.raises(TooLargeError, match=r"memory.max, less 2 MiB of data; not even .* raise the limit"):
        refuse_too_large(manifest, "local", 1, limited)
    assert beside.to_record() == space(21).to_record()


def test_the_limit_of_a_service_says_whose_it_is_and_what_to_change(tmp_path):
    manifest = manifest_of(tmp_path, NEEDS)
    with pytest.raises(TooLargeError) as refused:
        refuse_too_large(manifest, "local", 1, space(500, limit=6))
    assert "there are 78 MiB by the limit in /sys/fs/cgroup/box/memory.max; not even a batch of 1 fits" in str(
        refused.value
    )
    assert "raise the limit (MemoryMax" in str(refused.value)


def test_what_is_not_known_refuses_nothing(tmp_path):
    manifest = manifest_of(tmp_path, NEEDS)
    with pytest.raises(TooLargeError):
        refuse_too_large(manifest, "local", 10**9, space(1))
    refuse_too_large(manifest, "local", 10**9, Room(None, None, None, "no control group limits it"))
    refuse_too_large(manifest, "evaluate", 10**9, space(1))
    refuse_too_large(manifest_of(tmp_path, None), "local", 10**9, space(1))


def test_a_bundle_of_which_something_fits_is_begun_and_the_rest_is_said(tmp_path):
    manifest = manifest_of(tmp_path, NEEDS)
    assert refuse_hopeless(manifest, space(7)) == []
    (said,) = refuse_hopeless(manifest, space(6))
    assert said.startswith("the local graph with a batch of 1 needs about 78 MiB")
    with pytest.raises(
        TooLargeError, match=r"the forward graph with a batch of 1 .* cut the model earlier, or take a board"
    ):
        refuse_hopeless(manifest, space(3))
