from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edge import bundle
from edge.memory import PROCESS_BYTES, Room
from edge.segment import Segment, SegmentError
from edge.wire.manifest import Layout
from tests.tiny import write_bundle

RNG = np.random.default_rng(0)
X = np.array([[1, 2], [3, 4], [5, 6]], np.float32)
Y = np.zeros(3, np.int64)


@pytest.fixture(params=[("local",), ()], ids=["in place", "two buffers"])
def segment(request, tmp_path):
    write_bundle(tmp_path / "b", in_place=request.param)
    return Segment(bundle.load(tmp_path / "b"))


def run(segment, kind="local", x=X, **others):
    others.setdefault("settings", {})
    inputs = {"batch.x": x, "batch.y": Y, **others.pop("inputs", {})}
    return segment.run(kind, inputs, others.pop("settings"), RNG, **others)


def test_a_local_step_moves_the_state_and_hands_out_what_was_before(segment):
    result = run(segment)
    # w = (1, 2): smashed = x·w; the gradient is w·Σx² = (35, 112); lr = 0.01
    np.testing.assert_array_equal(result.up["smashed"], X * [1, 2])
    assert result.metrics["loss"] == (1 + 16 + 9 + 64 + 25 + 144) / 2
    np.testing.assert_allclose(segment.tensors({"lower"})["scale.weight"], [1 - 0.35, 2 - 1.12], rtol=1e-6)


def test_many_steps_stay_exact(segment):
    for _ in range(7):
        run(segment, settings={"lr": 0.02})
    # each step multiplies w by 1 - 0.02·(35, 56)
    np.testing.assert_allclose(segment.tensors({"lower"})["scale.weight"], [0.3**7, 2 * (-0.12) ** 7], rtol=1e-4)


def test_any_batch_size(segment):
    for rows in (1, 2, 3):
        assert run(segment, "evaluate", X[:rows]).up["smashed"].shape == (rows, 2)


def test_a_step_that_sends_nothing_hands_nothing_out(segment):
    assert run(segment, up=False).up == {}
    np.testing.assert_allclose(segment.tensors({"lower"})["scale.weight"], [0.65, 0.88], rtol=1e-6)


def test_backward_follows_the_gradient_from_above(segment):
    gradient = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    run(segment, "backward", inputs={"down.gradient": gradient})
    # Σ x·g = (1 + 5, 4 + 6)
    np.testing.assert_allclose(segment.tensors({"lower"})["scale.weight"], [1 - 0.06, 2 - 0.1], rtol=1e-6)


def test_forward_and_evaluate_leave_the_state_alone(segment):
    run(segment, "forward")
    run(segment, "evaluate")
    np.testing.assert_array_equal(segment.tensors({"lower"})["scale.weight"], [1, 2])


def test_a_snapshot_brings_the_same_future_back(segment):
    run(segment)
    kept = segment.snapshot()
    after = run(segment).metrics["loss"]
    segment.restore(kept)
    assert run(segment).metrics["loss"] == after


def test_a_snapshot_does_not_move_with_the_state(segment):
    kept = segment.snapshot()
    run(segment)
    np.testing.assert_array_equal(kept["weights"], [1, 2])


def test_lower_weights_from_the_hub_replace_ours(segment):
    segment.load({"scale.weight": np.array([5, 7], np.float32)})
    np.testing.assert_array_equal(run(segment, "evaluate").up["smashed"], X * [5, 7])


def test_weights_that_do_not_fit_change_nothing(segment):
    with pytest.raises(SegmentError, match=r"'scale.weight' with shape \(3,\); here it has \(2,\)"):
        segment.load({"scale.weight": np.zeros(3, np.float32)})
    with pytest.raises(SegmentError, match="'other', which this device's model does not have"):
        segment.load({"scale.weight": np.zeros(2, np.float32), "other": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(segment.tensors({"lower"})["scale.weight"], [1, 2])


def test_divergence_is_said_not_sent(segment):
    with pytest.raises(SegmentError, match="not finite: training has diverged"):
        run(segment, "forward", np.array([[np.inf, 1]], np.float32))


def test_a_graph_the_bundle_lacks_is_named(segment):
    with pytest.raises(SegmentError, match="no 'decode' graph; it has backward, evaluate, forward, local"):
        run(segment, "decode")


def test_a_missing_input_is_named(segment):
    with pytest.raises(SegmentError, match=r"the graph wants 'down.gradient'"):
        run(segment, "backward")


def test_stored_state_of_another_bundle_is_refused(segment):
    with pytest.raises(SegmentError, match="stored state 'weights' is missing"):
        segment.restore({})


def test_segments_that_share_sessions_share_no_state(tmp_path):
    write_bundle(tmp_path / "b")
    loaded, sessions = bundle.load(tmp_path / "b"), {}
    one, other = (Segment(loaded, sessions=sessions) for _ in range(2))
    run(one)
    run(one, settings={"lr": 0.0})
    assert list(sessions) == ["local"]
    np.testing.assert_array_equal(other.tensors({"lower"})["scale.weight"], [1, 2])
    run(other)
    np.testing.assert_array_equal(other.tensors({"lower"})["scale.weight"], one.tensors({"lower"})["scale.weight"])


def test_each_step_has_the_settings_of_its_order(segment):
    for lr in (0.0, 0.01, 0.01, 0.0):
        run(segment, settings={"lr": lr})
    # two steps with 0.01: w·(1 - 0.35)² and w·(1 - 0.56)²
    np.testing.assert_allclose(segment.tensors({"lower"})["scale.weight"], [0.65**2, 2 * 0.44**2], rtol=1e-6)
    run(segment)
    np.testing.assert_allclose(segment.tensors({"lower"})["scale.weight"], [0.65**3, 2 * 0.44**3], rtol=1e-6)


def test_a_graph_too_large_for_the_memory_is_never_loaded(tmp_path):
    needs = {kind: {"fixed_bytes": 0, "sample_bytes": 1000} for kind in ("local", "forward")}
    write_bundle(tmp_path / "b", memory=needs)
    sessions = {}
    room = Room(PROCESS_BYTES + 4500, None, None, "no control group limits it")
    segment = Segment(bundle.load(tmp_path / "b"), sessions=sessions, room=room)
    with pytest.raises(SegmentError, match=r"the local graph with a batch of 5 needs about .* a batch of 4 fits"):
        run(segment, x=np.zeros((5, 2), np.float32))
    assert not sessions
    run(segment)
    # Three samples of `local` stay in its session: one more of another graph fits, two do not.
    assert segment.too_large("forward", 1) is None
    assert "a batch of 2 needs" in segment.too_large("forward", 2)
    assert segment.too_large("evaluate", 1000) is None, "the bundle does not say what it needs"


def probing(block):
    """A graph whose output has so many channels, as a probe of an onnxruntime with such blocks would."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, count, 1, 1)) for name, count in (("in", 1), ("out", block))]  # fmt: skip
    times = helper.make_tensor("times", TensorProto.INT64, (4,), [1, block, 1, 1])
    graph = helper.make_graph(
        [helper.make_node("Tile", ["in", "times"], ["out"])], "probe", ports[:1], ports[1:], [times]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


@pytest.mark.parametrize(
    ("probe", "blocked"), [(probing(16), True), (probing(8), False), (b"operators this onnxruntime lacks", False)]
)
def test_a_graph_for_blocks_runs_only_where_the_probe_finds_its_block(tmp_path, probe, blocked):
    write_bundle(tmp_path / "b")
    plain = bundle.load(tmp_path / "b")
    # The graph for blocks is told apart by its loss, which is twice the other's.
    twice = onnx.load_from_string(plain.graphs["local"])
    half = next(tensor for tensor in twice.graph.initializer if tensor.name == "half")
    half.CopyFrom(helper.make_tensor("half", TensorProto.FLOAT, [], [1.0]))
    manifest = replace(plain.manifest, layout=Layout(16, "probe"))
    both = replace(plain, manifest=manifest, blocked={"local": twice.SerializeToString()}, probe=probe)
    assert run(Segment(both)).metrics["loss"] == (2 if blocked else 1) * run(Segment(plain)).metrics["loss"]
