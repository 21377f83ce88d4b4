import pytest

from edge.config import DeviceConfig
from edge.wire import toml_fields
from edge.wire.budget import BudgetConfig, Spent, amount_of, left
from edge.wire.toml_fields import ConfigError

DAY = 86_400.0
NOW = 20_778 * DAY + 3600  # 21 November 2026, one o'clock
DEVICE = '[device]\nname = "a"\n[broker]\nurl = "mqtt://h"\n[bundle]\npath = "b"\n[data]\nsource = "d.npz"\n'


def read(budget, tmp_path):
    text = DEVICE + "[budget]\n" + budget
    return toml_fields.read(DeviceConfig, text, "device.toml", folder=tmp_path, environ={}, prefix="X").budget


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("50 MB", 5e7),
        ("1.5kB", 1500),
        ("2 kB/s", 2000),
        ("1 KiB", 1024),
        ("100 B", 100),
        ("500 mJ", 0.5),
        ("2 J", 2),
        ("1.5 kJ", 1500),
        ("3 s", 3),
        ("250 ms", 0.25),
    ],
)
def test_an_amount_is_read_with_its_unit(text, amount):
    assert amount_of(text) == amount


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('up_per_run = "5000"', 'up_per_run = "5000".*with its unit'),
        ("up_per_run = 5000", "up_per_run = 5000"),
        ('up_per_day = "-2 MB"', "up_per_day"),
        ('down_per_run = "0 MB"', 'down_per_run = "0 MB": must be more than 0'),
        ('rate = "2 kB"', 'rate = "2 kB".*like "2 kB/s"'),
        ('up_per_run = "9 kB"', 'up_per_run = "9 kB" carries not even the control messages.*"16 kB"'),
        ('up_per_round = "1 kB"', 'the smallest that works is "4 kB"'),
        ('joules_per_round = "2"', 'joules_per_round = "2".*like "2 J" or "500 mJ"'),
        ("joules_per_round = 2", "joules_per_round = 2"),
        ('joules_per_round = "-2 J"', "joules_per_round"),
        ('joules_per_round = "nan J"', "joules_per_round"),
        ('joules_per_round = "2 s"', 'joules_per_round = "2 s".*with its unit'),
        ('cpu_seconds_per_round = "0 ms"', 'cpu_seconds_per_round = "0 ms": must be more than 0'),
        ('cpu_seconds_per_round = "3"', 'cpu_seconds_per_round = "3".*like "3 s" or "250 ms"'),
        ('cpu_seconds_per_round = "inf s"', "cpu_seconds_per_round"),
    ],
)
def test_a_wrong_amount_names_its_key(line, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        read(line, tmp_path)


def test_amounts_are_in_bytes(tmp_path):
    found = read('up_per_run = "20 kB"\nrate = "2 kB/s"\nevaluation = "apart"', tmp_path)
    assert found.amounts() == {"up_per_run": 20_000, "rate": 2000, "apart": 1}
    assert BudgetConfig().amounts() == {}
    found = read('joules_per_round = "500 mJ"\ncpu_seconds_per_round = "3 s"', tmp_path)
    assert found.amounts() == {"joules_per_round": 0.5, "cpu_seconds_per_round": 3}


def test_the_tightest_period_holds():
    spent = Spent(up=700)
    spent.began = {"run": {"up": 100, "down": 0}, "day": {"up": 500, "down": 0}}
    amounts = {"up_per_run": 1000, "up_per_day": 300, "down_per_run": 50}
    assert left(amounts, spent, "up") == min(1000 - 600, 300 - 200)
    assert left(amounts, spent, "down") == 50
    assert left({"rate": 1.0}, spent, "up") is None
    assert left({"up_per_run": 10}, spent, "up") == 0


def test_what_is_apart_is_not_counted():
    spent = Spent(up=700, apart={"up": 650, "down": 0})
    assert left({"up_per_run": 100}, spent, "up") == 50


def test_a_run_has_the_bytes_of_its_first_order_too():
    spent = Spent(up=40, down=900)
    spent.begin_with_order("run")
    assert (spent.in_period("up", "run"), spent.in_period("down", "run")) == (40, 900)
    spent.begin("report")
    spent.down += 500  # the next run's order
    spent.begin_with_order("run")
    assert spent.in_period("down", "run") == 500


def test_a_day_begins_at_midnight():
    spent = Spent(up=0)
    spent.look_at_clock(NOW, 10.0)
    spent.up = 800
    spent.look_at_clock(NOW + 3600, 3600.0)
    assert spent.in_period("up", "day") == 800
    spent.look_at_clock(NOW + DAY, 10.0)
    assert spent.in_period("up", "day") == 0


def test_a_clock_that_is_set_right_gives_no_second_day():
    spent = Spent()
    spent.look_at_clock(100.0, 100.0)  # 1970
    spent.up = 800
    spent.look_at_clock(NOW, 1.0)
    assert spent.in_period("up", "day") == 800
    spent.look_at_clock(NOW + DAY, 1.0)
    assert spent.in_period("up", "day") == 0


def test_a_clock_that_stands_still_gives_a_day_after_24_hours_of_running():
    spent = Spent(up=800)
    for _ in range(23):
        spent.look_at_clock(5.0, 3600.0)
    assert spent.in_period("up", "day") == 800
    spent.look_at_clock(5.0, 3601.0)
    assert spent.in_period("up", "day") == 0


def test_a_clock_that_goes_back_gives_nothing():
    spent = Spent()
    spent.look_at_clock(NOW, 1.0)
    spent.begin("day")
    spent.up = 500
    spent.look_at_clock(NOW - 5 * DAY, 1.0)
    spent.look_at_clock(NOW, 1.0)
    assert spent.in_period("up", "day") == 500


def test_it_comes_back_from_the_disk():
    spent = Spent(up=5, down=6)
    spent.begin("run")
    assert Spent.of(spent.to_record()) == spent
