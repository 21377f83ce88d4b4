import pytest
import torch

from export.bundle import BuildSpec, build

# Two threads on tensors of ten numbers wait for each other most of the time: on a busy machine these tests took eight times as long.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """A function from a strategy to the folder of a small bundle for it; methods with the same objective and optimizer share one."""
    made = {}

    def make(strategy):
        key = strategy.objective, strategy.optimizer
        if key not in made:
            made[key] = tmp_path_factory.mktemp("bundle")
            build(BuildSpec("export.models:Digits", "pool1", *key, arguments={"classes": 10}), made[key], checked=False)
        return made[key]

    return make
