"""Imports point to the device, and the device needs little: checked by importing, and by reading the sources."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STANDARD = set(sys.stdlib_module_names)
OF_THE_DEVICE = {"numpy", "onnxruntime", "paho", "psutil"}


def modules(package):
    return sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__main__.py"
    )


def loaded_by(*names):
    """What is in sys.modules of a fresh interpreter that has imported these modules."""
    program = (
        f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\nprint('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def roots(names):
    return {name.partition(".")[0] for name in names}


def imports_of(path):
    """Every module a source names in an import, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module


def test_the_device_imports_neither_torch_nor_onnx_nor_the_other_packages():
    names = modules("edge")
    assert "edge.segment" in names
    assert "edge.wire.delivery" in names
    loaded = roots(loaded_by("edge.__main__", *names))
    assert {"edge", *OF_THE_DEVICE} <= loaded
    assert not loaded & {"torch", "onnx", "hub", "export", "benchmarks", "scipy", "sklearn", "rich", "jinja2"}


def test_the_wire_is_values_and_nothing_else():
    loaded = loaded_by(*modules("edge/wire"))
    assert not roots(loaded) & {"paho", "onnxruntime", "psutil", "torch"}
    assert not {name for name in loaded if name.startswith("edge.")} - {"edge.wire", *modules("edge/wire")}


@pytest.mark.parametrize("path", sorted((ROOT / "edge" / "wire").glob("*.py")), ids=lambda path: path.name)
def test_the_wire_has_no_clock_no_thread_and_no_socket(path):
    forbidden = {
        "paho",
        "onnxruntime",
        "psutil",
        "threading",
        "socket",
        "time",
        "asyncio",
        "select",
        "os",
        "subprocess",
    }
    assert not roots(imports_of(path)) & forbidden
    assert all(name.startswith("edge.wire") for name in imports_of(path) if name.startswith("edge"))


@pytest.mark.parametrize("path", sorted((ROOT / "edge" / "enrolment").glob("*.py")), ids=lambda path: path.name)
def test_enrolment_needs_python_and_nothing_else(path):
    assert not roots(imports_of(path)) - STANDARD - {"edge"}
    own = ("edge.enrolment", "edge.release")
    assert all(name.startswith(own) for name in imports_of(path) if name.startswith("edge"))


def test_sources_of_the_device_name_only_what_the_base_install_has():
    for path in sorted((ROOT / "edge").rglob("*.py")):
        strangers = roots(imports_of(path)) - STANDARD - OF_THE_DEVICE - {"edge"}
        assert not strangers, f"{path.relative_to(ROOT)} imports {', '.join(strangers)}"


@pytest.mark.parametrize(("package", "home"), [("onnxruntime", "edge/segment.py"), ("psutil", "edge/meters.py")])
def test_one_third_party_library_one_file(package, home):
    users = [path.relative_to(ROOT) for path in (ROOT / "edge").rglob("*.py") if package in roots(imports_of(path))]
    assert [str(path) for path in users] == [home]


@pytest.mark.parametrize("package", ["export", "hub", "benchmarks"])
def test_the_others_see_only_the_wire_and_the_link_of_the_device(package):
    # What is measured as a device is a program of its own, which the benchmark starts as it would start a board's. A
    # simulation puts devices together, a replay drives one's parts, and a campaign looks into the outboxes of the killed.
    apart = {
        *(ROOT / "benchmarks" / "programs").iterdir(),
        ROOT / "benchmarks" / "campaign.py",
        ROOT / "hub" / "simulate.py",
        ROOT / "hub" / "trial" / "replay.py",
    }
    for path in sorted(set((ROOT / package).rglob("*.py")) - apart):
        seen = {name for name in imports_of(path) if name.startswith("edge")}
        links = {
            "edge.link",
            "edge.memory_link",
            "edge.mqtt_link",
            "edge.enrolment.claim",
            "edge.enrolment.errors",
        }  # the claim is a file that both ends know
        allowed = {name for name in seen if name.startswith(("edge.wire", "edge.release")) or name in links}
        assert seen == allowed, f"{path.relative_to(ROOT)} imports {', '.join(seen - allowed)}"


def test_imports_point_to_the_device():
    above = {"edge": {"export", "hub", "benchmarks"}, "export": {"hub", "benchmarks"}, "hub": {"benchmarks"}}
    for package, forbidden in above.items():
        for path in sorted((ROOT / package).rglob("*.py")):
            wrong = roots(imports_of(path)) & (forbidden | {"tests"})
            assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(wrong)}"


def test_an_import_of_export_is_an_import_of_nothing_else():
    assert not roots(loaded_by("export", "edge", "hub")) & {"torch", "onnx", "numpy", "onnxruntime", "paho"}


@pytest.mark.parametrize("command", ["edge", "hub", "export"])
def test_help_is_quick_because_it_imports_nothing_heavy(command):
    loaded = loaded_by(f"{command}.__main__")
    assert not roots(loaded) & {"torch", "onnx", "numpy", "onnxruntime", "paho", "matplotlib", "rich", "sklearn"}
