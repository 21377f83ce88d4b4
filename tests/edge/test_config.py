import os
import re
from pathlib import Path

import pytest

from edge import check
from edge.config import ConfigError, describe, load
from edge.outbox import OUTBOX_BYTES

LEAST = """
[device]
name = "wearer-1"
[broker]
url = "mqtt://10.0.0.2"
[bundle]
path = "device.bundle"
[data]
source = "device.npz"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "device.toml"
    path.write_text(text, encoding="utf-8")
    return path


def told(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(written(folder, text), environ)
    return [problem.removeprefix(f"{folder}/") for problem in caught.value.problems]


def test_the_least_file_is_enough(tmp_path):
    config = load(written(tmp_path, LEAST), {})
    assert config.device.name == "wearer-1"
    assert config.device.state_directory == tmp_path / "state"
    assert (config.broker.host, config.broker.port, config.broker.tls) == ("10.0.0.2", 1883, False)
    assert config.bundle.path == tmp_path / "device.bundle"
    assert config.data.source == str(tmp_path / "device.npz")
    assert (config.run.fleet, config.run.threads) == ("fleet", 1)
    assert config.run.outbox_bytes == OUTBOX_BYTES == 64 * 1024 * 1024


@pytest.mark.parametrize("source", ["my.sensors:accelerometer", "synthetic:64", "synthetic"])
def test_a_source_that_is_not_a_path_stays_as_it_is(tmp_path, source):
    assert load(written(tmp_path, LEAST.replace("device.npz", source)), {}).data.source == source


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtt://hub.local:2883", "hub.local", 2883, False),
        ("mqtts://hub.local", "hub.local", 8883, True),
        ("mqtts://[fe80::1]:9000/", "fe80::1", 9000, True),
        ("mqtt://[::1]", "::1", 1883, False),
    ],
)
def test_the_url_gives_host_port_and_encryption(tmp_path, url, host, port, tls):
    broker = load(written(tmp_path, LEAST.replace("mqtt://10.0.0.2", url)), {}).broker
    assert (broker.host, broker.port, broker.tls) == (host, port, tls)


@pytest.mark.parametrize(
    "url", ["10.0.0.2", "http://10.0.0.2", "mqtt://", "mqtt://me:secret@host", "mqtt://host/topic"]
)
def test_a_url_of_another_kind_is_refused_with_an_example(tmp_path, url):
    assert told(tmp_path, LEAST.replace("mqtt://10.0.0.2", url)) == [
        f'device.toml line 5: [broker] url = "{url}": must be a URL like mqtt://host:1883 or mqtts://host:8883'
    ]


def test_a_port_beyond_the_last_is_refused(tmp_path):
    assert told(tmp_path, LEAST.replace("10.0.0.2", "host:70000")) == [
        'device.toml: [broker] url = "mqtt://host:70000": the port must be from 1 to 65535'
    ]


@pytest.mark.parametrize("name", ["", "a/b", "#", "+", ".hidden", "a" * 65, "ä"])
def test_a_name_that_could_not_be_a_topic_level_is_refused(tmp_path, name):
    assert told(tmp_path, LEAST.replace("wearer-1", name)) == [
        f"device.toml line 3: [device] name = \"{name}\": must be a name of 1 to 64 letters, digits, '.', '_' or '-'"
    ]


def test_variables_override_and_their_errors_name_them(tmp_path):
    assert load(written(tmp_path, LEAST), {"CUTLAYER_RUN_THREADS": "4"}).run.threads == 4
    assert told(tmp_path, LEAST, CUTLAYER_RUN_THREADS="many") == [
        'environment CUTLAYER_RUN_THREADS = "many": must be a whole number from 1 to 64'
    ]


def test_files_of_the_broker_section_must_be_there_and_go_together(tmp_path):
    (tmp_path / "ca.pem").write_text("")
    extra = 'ca = "ca.pem"\npassword_file = "secret"\ncertificate = "mine.pem"\n[bundle]'
    missing = tmp_path / "secret", tmp_path / "mine.pem"
    assert told(tmp_path, LEAST.replace("[bundle]", extra)) == [
        "device.toml: [broker] certificate and key belong together: give both or neither",
        "device.toml: [broker] password_file is given without username: add username",
        'device.toml: [broker] ca is for TLS, but url = "mqtt://10.0.0.2" is plain: write mqtts://',
        'device.toml: [broker] certificate is for TLS, but url = "mqtt://10.0.0.2" is plain: write mqtts://',
        f'device.toml: [broker] password_file = "{missing[0]}": there is no such file',
        f'device.toml: [broker] certificate = "{missing[1]}": there is no such file',
    ]


def test_a_window_must_hold_a_chunk(tmp_path):
    assert told(tmp_path, LEAST + "[run]\nwindow_bytes = 2048\n") == [
        "device.toml: [run] window_bytes = 2048 is less than one chunk of chunk_bytes = 8192"
    ]


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read: No such file or directory"):
        load(tmp_path / "none.toml", {})
    (tmp_path / "device.toml").write_bytes(b"[device]\nname = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8: byte 17 is 0xff"):
        load(tmp_path / "device.toml", {})


def test_the_annotated_example_is_a_configuration(tmp_path):
    config = load(written(tmp_path, describe()), {})
    assert config.device.name == "wearer-1"
    assert config.run == load(written(tmp_path, LEAST), {}).run


def test_every_commented_key_of_the_example_is_accepted_too(tmp_path):
    for name in ("password", "ca.pem", "wearer-1.pem", "wearer-1.key"):
        (tmp_path / name).write_text("")
    text = re.sub(r"^# (\w+ = )", r"\1", describe(), flags=re.MULTILINE).replace("mqtt://192", "mqtts://192")
    broker = load(written(tmp_path, text), {}).broker
    assert (broker.username, broker.congestion, broker.key) == ("wearer-1", "bbr", tmp_path / "wearer-1.key")


def test_every_key_is_documented():
    assert not re.search(
        r"^\n# (a|one|true|the) [^\n]*; (required|not set|the default)", describe(), flags=re.MULTILINE
    )


def test_energy_names_its_source_and_what_that_wants(tmp_path):
    given = load(written(tmp_path, LEAST + '[energy]\nsource = "meter"\nmeter = "tcp://[::1]:5025"\n'), {}).energy
    assert (given.source, given.meter) == ("meter", "tcp://[::1]:5025")
    assert load(written(tmp_path, LEAST), {}).energy.source == "auto"
    for text, reason in (
        ('source = "meter"', 'source = "meter" wants meter: add it'),
        ('source = "model"', 'source = "model" wants model: add it'),
        ('source = "model"\nmodel = "m.json"', f'model = "{tmp_path / "m.json"}": there is no such file'),
        ('meter = "udp://x:1"', "must be pipe:/PATH, tcp://HOST:PORT or serial:/PATH@BAUD"),
        ('source = "guess"', 'must be one of "auto", "rapl", "hwmon", "pmic", "battery", "meter", "model", "none"'),
    ):
        with pytest.raises(ConfigError) as error:
            load(written(tmp_path, f"{LEAST}[energy]\n{text}\n"), {})
        assert reason in str(error.value)


def test_check_tells_where_joules_come_from(tmp_path):
    config = load(written(tmp_path, LEAST + '[energy]\nsource = "none"\n'), {})
    assert list(check._energy(config)) == ['not measured: [energy] source = "none"']
    os.mkfifo(tmp_path / "power")
    with (tmp_path / "power").open("r+b", buffering=0) as ours:
        ours.write(b"0 2.0\n0.1 2.0\n")
        address = f"pipe:{tmp_path}/power"
        config = load(written(tmp_path, f'{LEAST}[energy]\nsource = "meter"\nmeter = "{address}"\n'), {})
        assert list(check._energy(config)) == [f"meter at {address}, metered"]


TLS = LEAST.replace(
    'url = "mqtt://10.0.0.2"', 'url = "mqtts://hub.local"\nca = "ca.pem"\ncertificate = "id/pem"\nkey = "id/key"'
)


def test_with_enrolment_the_certificate_may_be_still_to_come(tmp_path):
    assert told(tmp_path, TLS) == [
        f'device.toml: [broker] {name} = "{tmp_path / path}": there is no such file'
        for name, path in (("ca", "ca.pem"), ("certificate", "id/pem"), ("key", "id/key"))
    ]
    config = load(written(tmp_path, TLS + '[enrolment]\nurl = "https://hub.local:8443"\nclaim = "a.claim"\n'), {})
    assert config.enrolment.claim == tmp_path / "a.claim"
    assert config.broker.certificate == tmp_path / "id" / "pem"


def test_what_does_not_go_together_with_enrolment(tmp_path):
    enrolment = '[enrolment]\nurl = "https://hub.local:8443"\n'
    assert told(tmp_path, LEAST + enrolment) == [
        'device.toml: [enrolment] is for TLS, but url = "mqtt://10.0.0.2" of [broker] is plain: write mqtts://'
    ]
    assert told(tmp_path, LEAST.replace("mqtt://", "mqtts://") + enrolment) == [
        f"device.toml: [enrolment] needs {name} in [broker]: the file to keep it in"
        for name in ("ca", "certificate", "key")
    ]
    assert told(tmp_path, LEAST + '[enrolment]\nclaim = "a.claim"\n') == [
        "device.toml: [enrolment] claim is given without url: add url"
    ]
    assert "must be a URL like https://host:8443" in told(tmp_path, LEAST + '[enrolment]\nurl = "http://hub"\n')[0]
