"""A tiny run whose figures can be worked out by hand: two devices, one local round and two global ones."""

import json

RUN = {
    "record": "run",
    "strategy": "adasplit",
    "options": {"kappa": 0.4, "masks": True},
    "dataset": "wearables",
    "devices": 2,
    "rounds": 3,
    "bundle": "ab" * 32,
    "machine": {"cores": 2},
    "budgets": None,
    "started": "2025-03-01T08:05:00+00:00",
}
NO_METER = {"joules": None, "class": None, "source": None, "reason": "no meter was found"}


def device(name, number, **figures):
    return {
        "record": "device",
        "round": number,
        "device": name,
        "loss": 2.0 / number,
        "steps": 4 * number,
        "step_seconds": 0.002,
        "socket_sent": 1000 * number,
        "socket_received": 100 * number,
        "socket_retransmitted": 10,
        "socket_source": "TCP_INFO",
        "evaluation_sent": 200 * number,
        "paper_bytes": 500 * number,
        "flops": 1e6 * number,
        "peak_rss_bytes": 50 * 2**20,
        "cpu_seconds": 1.5 * number,
        "energy": NO_METER,
        **figures,
    }


def fleet_round(number, phase, accuracy, **figures):
    return {
        "record": "round",
        "round": number,
        "phase": phase,
        "seconds": 10.0,
        "loss": None if phase == "local" else 1.0,
        "accuracy": accuracy,
        "accuracies": {} if accuracy is None else {"bed-1": accuracy - 0.1, "bed-2": accuracy + 0.1},
        "selected": {} if phase == "local" else {"bed-1": 2, "bed-2": 0},
        "late": [],
        "present": 2,
        **figures,
    }


def tiny_run():
    records = [RUN]
    for number, phase, accuracy in ((1, "local", None), (2, "global", 0.8), (3, "global", 0.6)):
        records += [device("bed-1", number), device("bed-2", number, socket_sent=3000 * number)]
        records.append(fleet_round(number, phase, accuracy))
    return records


REFERENCE = {
    "record": "reference",
    "method": "split learning",
    "accuracy_last": 0.7,
    "accuracy_max": 0.75,
    "sent_bytes": 30_000,
    "received_bytes": 20_000,
    "client_flops": 6e6,
    "reference": "benchmarks/results/adasplit.jsonl",
}


def write(folder, records):
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return folder
