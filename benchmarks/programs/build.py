"""Build a bundle in a process of its own, so that whoever measures needs no torch."""

from pathlib import Path
from typing import Any

import torch

from benchmarks.answering import serve, told
from export.bundle import BuildSpec, build
from export.tuning import Effort


def bundle(model: str, cut: str, out: str, *, checked: bool, threads: int = 1) -> dict[str, Any]:
    """Write the bundle of a model with the contrastive objective and Adam; answers with the manifest's own words."""
    built = build(BuildSpec(model=model, cut=cut), Path(out), checked=checked, effort=Effort(threads=threads))
    manifest = built.manifest
    return {
        "device": str(built.device),
        "input": {"shape": manifest.input.shape, "dtype": manifest.input.dtype},
        "classes": manifest.classes,
        "smashed": manifest.smashed.shape,
        "flops": dict(manifest.flops),
        "in_place": manifest.graphs["local"].in_place,
        "weights": manifest.state["weights"].elements,
    }


if __name__ == "__main__":
    torch.set_num_threads(told()["threads"])
    serve({"bundle": bundle})
