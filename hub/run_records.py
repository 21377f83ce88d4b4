"""What the metrics say of a run, of its devices after a round, and of the machine: the records' fields, made of what is known."""

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

from export.bundle import HubBundle
from hub.config import HubConfig
from hub.devices import Device, take_steps


def device_record(number: int, device: Device) -> dict[str, Any]:
    """A device's last report in the words of the metrics; counters run from the start of the run."""
    totals = device.totals
    steps, loss = take_steps(device)
    return {
        "record": "device",
        "round": number,
        "device": device.name,
        "loss": loss,
        "steps": steps,
        "step_seconds": totals.get("step_seconds"),
        "socket_sent": totals["sent"],
        "socket_received": totals["received"],
        "socket_retransmitted": totals["retransmitted"],
        "socket_source": totals["source"],
        "evaluation_sent": totals["evaluation_sent"],
        "evaluation_received": totals["evaluation_received"],
        "paper_bytes": totals["paper_bytes"],
        "elements": totals["elements"],
        "coded": totals.get("coded", {}),
        "flops": totals["flops"],
        "paper_flops": totals["paper_flops"],
        "peak_rss_bytes": totals["peak_rss_bytes"],
        "cpu_seconds": totals["cpu_seconds"],
        "energy": totals["energy"],
        "restarts": totals["restarts"],
        "refused": totals["refused"],
        "beyond_steps": totals.get("beyond_steps", 0),
        "expired": totals.get("expired", 0),
        "expired_bytes": totals.get("expired_bytes", 0),
        "delivery": totals.get("delivery", {}),
        **{name: totals[name] for name in ("missing", "budget", "known") if totals.get(name)},
    }


def run_record(
    config: HubConfig, bundle: HubBundle, facts: list[dict[str, Any]], more: Mapping[str, Any]
) -> dict[str, Any]:
    """The first record: what is run, on what, by whom; `more` are facts that the caller adds."""
    budget = {"bytes": _times(config.c3.megabytes, 1e6), "flops": _times(config.c3.gflops, 1e9)}
    return {
        "record": "run",
        "strategy": config.run.strategy,
        "options": asdict(config.strategy),
        "rounds": config.run.rounds,
        "batch": config.run.batch,
        "seed": config.run.seed,
        "codec": config.run.codec,
        "weights_codec": config.run.weights_codec,
        "devices": [device["name"] for device in facts],
        "bundle": bundle.bundle,
        "model": bundle.model,
        "cut": bundle.cut,
        "budgets": budget if any(budget.values()) else None,
        "machine": machine_facts(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **more,
    }


def _times(value: float | None, unit: float) -> float | None:
    return None if value is None else value * unit


def machine_facts() -> dict[str, Any]:
    """What a reader must know of the machine to place a figure."""
    versions = {name: metadata.version(name) for name in ("torch", "onnxruntime", "numpy", "paho-mqtt", "cutlayer")}
    return {
        "machine": platform.machine(),
        "system": platform.platform(terse=True),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123  a device file, not a path of ours
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    except OSError:
        return "unknown"
