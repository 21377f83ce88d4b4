import onnx
import pytest
from onnx import TensorProto, helper

from export.in_place import unsafe_states


def graph(*nodes):
    def info(name):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])

    named = [
        helper.make_node(op, inputs, outputs, name=f"{op}.{place}") for place, (op, inputs, outputs) in enumerate(nodes)
    ]
    body = helper.make_graph(named, "test", [info("state.w"), info("x")], [info("state.w.next"), info("y")])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)])


SAFE = {
    "the only reader writes": [("Sub", ["state.w", "x"], ["state.w.next"]), ("Neg", ["x"], ["y"])],
    "the other reader comes first": [("Mul", ["state.w", "x"], ["y"]), ("Sub", ["state.w", "y"], ["state.w.next"])],
    "through a view": [
        ("Reshape", ["state.w", "s"], ["v"]),
        ("Mul", ["v", "x"], ["y"]),
        ("Sub", ["state.w", "y"], ["state.w.next"]),
    ],
}
UNSAFE = {
    "a reader that may run later": (
        [("Sub", ["state.w", "x"], ["state.w.next"]), ("Mul", ["state.w", "x"], ["y"])],
        "Mul.1 reads",
    ),
    "a view that may be taken later": (
        [("Reshape", ["state.w", "s"], ["v"]), ("Sub", ["state.w", "x"], ["state.w.next"]), ("Mul", ["v", "x"], ["y"])],
        "Reshape.0 reads",
    ),
    "a writer that is not elementwise": (
        [("CumSum", ["state.w", "x"], ["state.w.next"]), ("Neg", ["x"], ["y"])],
        "not element by element",
    ),
    "nobody writes": ([("Neg", ["x"], ["y"])], "no node writes"),
}


@pytest.mark.parametrize("case", SAFE)
def test_safe(case):
    assert unsafe_states(graph(*SAFE[case])) == {}


@pytest.mark.parametrize("case", UNSAFE)
def test_unsafe(case):
    nodes, reason = UNSAFE[case]
    assert reason in unsafe_states(graph(*nodes))["state.w"]


def test_states_of_different_shape_are_unsafe():
    model = graph(*SAFE["the only reader writes"])
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 5
    assert isinstance(model, onnx.ModelProto)
    assert "differ in shape" in unsafe_states(model)["state.w"]
