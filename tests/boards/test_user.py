"""The whole client on an emulated Cortex-A72, against a hub on this machine."""
import json, shutil, subprocess, zipfile, os
from pathlib import Path
import numpy as np
import pytest
import torch
from edge.outbox import Outbox
from hub.broker import start_broker
from tests.boards import root
from tests.boards.compare import distances
from tests.boards.user import emulated_python
from tests.system.trial import Material, Trial

pytestmark = pytest.mark.timeout(300)
CLOSE = 1e-4

@pytest.fixture(scope="module")
def python(parts, tmp_path_factory):
    w = tmp_path_factory.mktemp("arm")
    tree=root.copy(parts.tree,w/"tree"); root.dress(tree)
    sp=tree/"opt/hand"; sp.mkdir(parents=True)
    for f in Path("/tmp/work/s8/bc/wheels").glob("*.whl"): zipfile.ZipFile(f).extractall(sp)
    shutil.copytree("edge",sp/"edge")
    (sp/"cutlayer-0.1.0.dist-info").mkdir(); (sp/"cutlayer-0.1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: cutlayer\nVersion: 0.1.0\n")
    return emulated_python(tree,w/"py",paths=(Path("/opt/hand"),))


def test_training_on_arm64_comes_to_what_it_comes_to_here(tmp_path, children, make_bundle, digits, python):
    bundle = make_bundle(objective="gradient")
    material = Material(bundle.id, bundle.device, bundle.hub, dict(list(digits.items())[:1]))
    outcomes = {}
    with start_broker("embedded", tmp_path / "broker") as broker:
        for kind in ("here", "arm64"):
            trial = Trial(tmp_path / kind, children, material, kind, broker.url)
            trial.root.mkdir()
            path = trial.write_hub(run={"strategy": "split_learning", "order": "fixed", "rounds": 3})
            path.write_text(path.read_text().replace("kappa = 0.0","").replace("masks = false",""))
            (name,) = trial.names
            trial.write_device(name)
            trial.start_hub()
            device = trial.start_device(name) if kind == "here" else children.start(
                python.executable, "-m", "edge", "run", "--config", trial.root / name / "device.toml", environ=python.environ)
            trial.finish(120)
            assert device.wait(60) == 0, device.said()
            outcomes[kind] = trial.records("round"), Outbox.look(trial.root/name/"state").state(), torch.load(trial.folder/"checkpoint.pt", weights_only=True)["strategy"]
    d = distances(outcomes["here"], outcomes["arm64"])
    print({k: v for k, v in d.items() if v})
    assert 0
