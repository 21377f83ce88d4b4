import logging

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_quiet_thread():
    """One thread, and no capture of torch's own debug log, which costs more than the tests."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.getLogger("torch").setLevel(logging.WARNING)
    logging.getLogger("torch.__trace").setLevel(logging.WARNING)
    yield
    torch.set_num_threads(threads)
