import json

import pytest

from edge.profile.operators import merged, read, shares
from edge.wire.profile import Operator


def event(node, op, microseconds, shape=(2, 3)):
    types = [{"float": list(shape)}]
    args = {"op_name": op, "input_type_shape": types, "output_type_shape": types}
    return {"cat": "Node", "name": f"{node}_kernel_time", "dur": microseconds, "args": args}


def test_the_first_run_is_left_out_and_the_quickest_of_the_others_counts():
    events = [{"cat": "Session", "name": "session_initialization", "dur": 9000}]
    for conv, relu in ((900, 500), (40, 10), (30, 12)):
        events += [event("conv", "Conv", conv), event("relu", "Relu", relu)]
    assert [(row.op, row.seconds) for row in read(events, runs=3)] == [
        ("Conv", pytest.approx(30e-6)),
        ("Relu", pytest.approx(10e-6)),
    ]
    assert json.loads(read(events, runs=3)[0].inputs) == [{"float": [2, 3]}]


def test_nodes_of_one_name_are_a_share():
    rows = shares(
        [Operator("Mul", "a", "b", 1e-3), Operator("Conv", "a", "b", 6e-3), Operator("Mul", "c", "d", 1e-3)],
        "local",
        32,
        2,
    )
    assert [(row.op, row.calls, row.seconds, row.share) for row in rows] == [
        ("Conv", 1, 6e-3, 0.75),
        ("Mul", 2, 2e-3, 0.25),
    ]
    assert {(row.stage, row.batch, row.threads) for row in rows} == {("local", 32, 2)}


def test_operators_of_one_signature_become_one():
    assert merged([Operator("Mul", "a", "b", each) for each in (1.0, 5.0, 2.0)]) == [Operator("Mul", "a", "b", 2.0)]
