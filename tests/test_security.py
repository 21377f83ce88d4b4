import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`((?:tests/[\w/]+\.py)?)::(\w+)`")


def test_every_test_that_the_threat_table_names_is_there():
    lines = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert lines
    for line in lines:
        named = NAMED.findall(line)
        assert named, f"no test shows it: {line}"
        file = ""
        for path, test in named:
            file = path or file
            assert f"def {test}(" in (ROOT / file).read_text(), f"{file} has no {test}"
