"""Memory as /proc and control groups of both versions show it."""

import pytest

from edge.files import Files
from edge.memory import room

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
