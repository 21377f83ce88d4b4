"""A model as two files: `device.bundle` (graphs, initial state, manifest) and `hub.bundle` (the upper segment's state)."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from edge.wire.manifest import PARTS, File, Graph, Layout, Manifest, TensorSpec
from export import archive
from export.builder import OPSET
from export.cost import cost_below, training_cost
from export.cut import Split, load_factory, split, uncut
from export.errors import ExportError
from export.geometry import Site
from export.graphs import Graph as OnnxGraph
from export.graphs import trace_step, write_graph
from export.heads import Place, channels_last
from export.in_place import unsafe_states
from export.lowering import blocked
from export.lowering.convolution import BY_BLOCKS
from export.memory import need
from export.objectives import OBJECTIVES
from export.optimizers import OPTIMIZERS
from export.step import Learner, StepMaker
from export.trace import Program
from export.tuning import Effort, Tuning, block_here, tune

FORMAT = 1


@dataclass(frozen=True)
class BuildSpec:
    """What to build.

    Attributes:
        model: Factory, as ``package.module:factory``.
        cut: Layer behind which to cut; the model's ``default_cut`` if None. Of no meaning where the device trains the whole model.
        objective: A row of `OBJECTIVES`.
        optimizer: A row of `OPTIMIZERS`.
        arguments: Keyword arguments of the factory.
        input_shape: Shape of one sample; the model's ``input_shape`` if None.
        dtype: float32, or int64 for token ids; the model's ``input_dtype`` or float32 if None.
        classes: Number of classes; the length of the model's last dimension if None.
        seed: Seed of the initial weights.
        name: Name of the bundle; made of model and cut if None.
    """

    model: str
    cut: str | None = None
    objective: str = "contrastive"
    optimizer: str = "adam"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    input_shape: tuple[int, ...] | None = None
    dtype: str | None = None
    classes: int | None = None
    seed: int = 0
    name: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A model, cut and ready to trace."""

    spec: BuildSpec
    model: nn.Module
    halves: Split
    steps: StepMaker
    classes: int


@dataclass(frozen=True)
class Built:
    """What `build` has written."""

    device: Path
    hub: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """The bundle's id."""
        return self.manifest.id


@dataclass(frozen=True)
class HubBundle:
    """The hub's half of a bundle: how to remake the model, and the initial state of its upper segment."""

    bundle: str
    name: str
    model: str
    arguments: Mapping[str, Any]
    cut: str
    objective: str
    optimizer: str
    classes: int
    input: TensorSpec
    smashed: TensorSpec
    seed: int
    given: Mapping[str, Mapping[str, tuple[int, ...]]]
    """Shapes of what devices may be asked for, by name: of each part of the model, and under `end` what that graph hands out."""
    upper: Mapping[str, np.ndarray]
    start: Mapping[str, np.ndarray] = field(default_factory=dict)
    """The weights and buffers that devices begin with, by name; none in a bundle of an older release."""


def example_input(model: nn.Module, shape: tuple[int, ...] | None, dtype: str | None, batch: int = 2) -> Tensor:
    """Return a batch of zeros such as ``model`` takes.

    Raises:
        ExportError: Neither the caller nor the model says the shape.
    """
    shape = shape or getattr(model, "input_shape", None)
    if shape is None:
        raise ExportError(
            "the shape of one input sample is unknown: give it, such as --input 3,32,32, or set input_shape on the model"
        )
    kind = dtype or getattr(model, "input_dtype", "float32")
    if kind not in ("float32", "int64"):
        raise ExportError(f"inputs of type '{kind}' are not supported; use float32, or int64 for token ids")
    return torch.zeros(batch, *shape, dtype=getattr(torch, kind))


def prepare(spec: BuildSpec) -> Prepared:
    """Make the model from its seed, cut it and add the objective's head.

    Raises:
        ExportError: See `load_factory` and `split`; also an unknown objective or optimizer.
    """
    for kind, name, known in (("objective", spec.objective, OBJECTIVES), ("optimizer", spec.optimizer, OPTIMIZERS)):
        if name not in known:
            raise ExportError(f"there is no {kind} '{name}'; known are {', '.join(known)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = load_factory(spec.model, **spec.arguments)
        x = example_input(model, spec.input_shape, spec.dtype)
        objective = OBJECTIVES[spec.objective]
        halves = uncut(model, x) if objective.whole else split(model, _cut(spec, model), x)
        classes = spec.classes or _classes(model, x)
        shape, floats = tuple(x.shape[1:]), x.is_floating_point()
        head = objective.head(Place(shape, floats, halves.smashed_shape, channels_last(halves.lower), classes))
    steps = StepMaker(Learner(halves.lower, head, objective), OPTIMIZERS[spec.optimizer], x, halves.smashed_shape)
    return Prepared(spec, model, halves, steps, classes)


def build(
    spec: BuildSpec, out: Path, *, checked: bool = True, tuning: Tuning | None = None, effort: Effort | None = None
) -> Built:
    """Write `device.bundle` and `hub.bundle` into the folder ``out``, after the graphs have passed their check.

    Args:
        spec: What to build.
        out: Folder.
        checked: False writes graphs that nobody has compared with PyTorch.
        tuning: Recorded choices of formulations, to be taken again.
        effort: How to measure which formulations are fastest here; without it and without ``tuning`` the usual ones are taken.

    Raises:
        ExportError: The model cannot be cut or exported, or a graph fails its check; nothing is written then.
    """
    prepared = prepare(spec)
    steps = prepared.steps
    programs = {kind: trace_step(steps, kind) for kind in steps.learner.objective.kinds}
    if tuning is None:
        tuning = _tune(steps, programs, effort) if effort else Tuning()
    graphs = {kind: write_graph(steps, kind, program, tuning.portable) for kind, program in programs.items()}
    summary = _check(prepared, graphs) if checked else {}
    fast = _blocked_graphs(steps, programs, graphs, tuning)
    if checked and fast:
        _check(prepared, fast)
    members = {
        f"graphs/{kind}.onnx": graph.model.SerializeToString(deterministic=True) for kind, graph in graphs.items()
    }
    if fast:
        members["graphs/probe.onnx"] = blocked.probe()
        members |= {
            f"graphs/{kind}.blocked.onnx": graph.model.SerializeToString(deterministic=True)
            for kind, graph in fast.items()
        }
    members |= {
        f"state/{name}.npy": archive.array_bytes(value.numpy())
        for name, value in prepared.steps.initial_state().items()
    }
    manifest = _manifest(prepared, graphs, members, summary, fast, tuning)
    out.mkdir(parents=True, exist_ok=True)
    archive.write(out / "device.bundle", {**members, "manifest.json": manifest.serialize()})
    archive.write(out / "hub.bundle", _hub_members(prepared, manifest))
    return Built(out / "device.bundle", out / "hub.bundle", manifest)


def load_hub_bundle(path: Path) -> HubBundle:
    """Read and verify a hub.bundle.

    Raises:
        ExportError: It is missing, damaged, or of another format.
    """
    members = archive.read(path)
    try:
        fields = json.loads(members["hub.json"])
        if fields["format"] != FORMAT:
            raise ExportError(
                f"the bundle {path} has format {fields['format']}; this release reads format {FORMAT}: "
                "install the release of cutlayer that built it, or build the bundle anew"
            )
        for name, digest in {**fields["files"], **fields.get("start", {})}.items():
            if archive.sha256(members[name]) != digest:
                raise ExportError(f"the bundle {path} is damaged: '{name}' does not have its hash")
        upper = _arrays(members, fields["files"], "upper/")
        # Apart from `files`, all of which an older hub takes for the upper segment.
        start = _arrays(members, fields.get("start", {}), "start/")
        specs = {key: TensorSpec(tuple(fields[key]["shape"]), fields[key]["dtype"]) for key in ("input", "smashed")}
        kept = {
            key: fields[key]
            for key in ("bundle", "name", "model", "arguments", "cut", "objective", "optimizer", "classes", "seed")
        }
        given = {
            part: {name: tuple(shape) for name, shape in tensors.items()} for part, tensors in fields["given"].items()
        }
        return HubBundle(input=specs["input"], smashed=specs["smashed"], given=given, upper=upper, start=start, **kept)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise ExportError(f"the bundle {path} is damaged: {error}") from error


def _arrays(members: Mapping[str, bytes], names: Iterable[str], folder: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(folder).removesuffix(".npy"): archive.array(members[name]) for name in names}


def _tune(steps: StepMaker, programs: Mapping[str, Program], effort: Effort) -> Tuning:
    block = block_here()
    sites: dict[Site, set[str]] = {}
    for kind, program in programs.items():
        for site in write_graph(steps, kind, program, block=block).sites:
            sites.setdefault(site, set()).update(_layers(steps, site))
    return tune({site: sorted(layers) for site, layers in sites.items()}, block, effort)


def _layers(steps: StepMaker, site: Site) -> list[str]:
    """Names of the convolutions whose weight and geometry are a site's."""
    found = []
    for name, module in steps.learner.named_modules():
        if isinstance(module, CONVOLUTIONS) and tuple(module.weight.shape) in (site.right, site.out):
            parts = (module.stride, module.dilation, module.groups)
            if parts == (site.geometry.stride, site.geometry.dilation, site.geometry.groups):
                found.append(name.removeprefix("lower."))
    return found


CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def _blocked_graphs(
    steps: StepMaker, programs: Mapping[str, Program], graphs: Mapping[str, OnnxGraph], tuning: Tuning
) -> dict[str, OnnxGraph]:
    """The graphs that are to go by blocks where a device can."""
    chosen = {choice.site for choice in tuning.choices if choice.formulation == BY_BLOCKS}
    kinds = [kind for kind, graph in graphs.items() if any(site.name in chosen for site in graph.sites)]
    return {kind: write_graph(steps, kind, programs[kind], tuning.best, tuning.block) for kind in kinds}


def _check(prepared: Prepared, graphs: Mapping[str, OnnxGraph]) -> dict[str, Any]:
    from export.check import check_graphs  # noqa: PLC0415  onnxruntime is only needed to check

    report = check_graphs(prepared.steps, graphs)
    if not report.passed:
        raise ExportError(f"the graphs differ from PyTorch, so no bundle is written: {'; '.join(report.failures)}")
    return report.summary()


def _cut(spec: BuildSpec, model: nn.Module) -> str:
    cut = spec.cut or getattr(model, "default_cut", None)
    if not isinstance(cut, str):
        raise ExportError("no cut was given and the model has no default_cut: name a layer, such as --cut layer1")
    return cut


def _classes(model: nn.Module, x: Tensor) -> int:
    training = model.training
    with torch.no_grad():
        output = model.eval()(x)
    model.train(training)
    if not isinstance(output, Tensor) or output.dim() < 2:
        raise ExportError("the number of classes cannot be read from the model's output; give it with --classes")
    return int(output.shape[-1])


def _manifest(
    prepared: Prepared,
    graphs: Mapping[str, OnnxGraph],
    members: Mapping[str, bytes],
    summary: dict[str, Any],
    fast: Mapping[str, OnnxGraph],
    tuning: Tuning,
) -> Manifest:
    spec, steps = prepared.spec, prepared.steps
    state = steps.initial_state()
    return Manifest(
        name=_name(prepared),
        model=spec.model,
        cut=prepared.halves.cut,
        objective=spec.objective,
        optimizer=spec.optimizer,
        input=TensorSpec(tuple(steps.x.shape[1:]), str(steps.x.dtype).removeprefix("torch.")),
        classes=prepared.classes,
        smashed=TensorSpec(prepared.halves.smashed_shape, "float32"),
        settings=dict(steps.settings),
        state={name: TensorSpec(tuple(value.shape), "float32") for name, value in state.items()},
        slices=tuple(replace(piece, name=piece.name.removeprefix("lower.")) for piece in steps.slices),
        graphs={
            kind: Graph(
                f"graphs/{kind}.onnx",
                tuple(graph.inputs),
                tuple(graph.outputs),
                in_place=not unsafe_states(graph.model) and not (kind in fast and unsafe_states(fast[kind].model)),
                random={name: noise.shape for name, noise in graph.noise.items()},
                blocked=f"graphs/{kind}.blocked.onnx" if kind in fast else "",
            )
            for kind, graph in graphs.items()
        },
        files={name: File(len(data), archive.sha256(data)) for name, data in members.items()},
        flops={"forward": float(cost_below(prepared.halves.lower, steps.x).forward), "training": training_cost(steps)},
        check=summary,
        memory={kind: need([graph, *([fast[kind]] if kind in fast else [])], state) for kind, graph in graphs.items()},
        versions={"torch": torch.__version__, "onnx": onnx.__version__, "opset": OPSET},
        layout=Layout(tuning.block, "graphs/probe.onnx") if fast else None,
        tuning=tuning.record,
    )


def _name(prepared: Prepared) -> str:
    return (
        prepared.spec.name
        or f"{prepared.spec.model.rpartition(':')[2]}-{prepared.halves.cut}-{prepared.spec.objective}"
    )


def _given(manifest: Manifest) -> dict[str, dict[str, tuple[int, ...]]]:
    given = {part: {piece.name: piece.shape for piece in manifest.pieces({part})} for part in PARTS}
    handed = manifest.graphs["end"].outputs if "end" in manifest.graphs else ()
    whole = manifest.state["weights"].shape
    return {**given, "end": {name.removeprefix("up."): whole for name in handed if name.startswith("up.")}}


def _start(prepared: Prepared, manifest: Manifest) -> dict[str, np.ndarray]:
    state = {name: value.numpy().reshape(-1) for name, value in prepared.steps.initial_state().items()}
    return {
        piece.name: state[piece.state][piece.offset : piece.offset + piece.size].reshape(piece.shape)
        for piece in manifest.slices
    }


def _hub_members(prepared: Prepared, manifest: Manifest) -> dict[str, bytes]:
    upper = prepared.halves.upper.state_dict()
    members = {f"upper/{name}.npy": archive.array_bytes(value.numpy()) for name, value in upper.items()}
    start = {f"start/{name}.npy": archive.array_bytes(value) for name, value in _start(prepared, manifest).items()}
    fields = {
        "format": FORMAT,
        "bundle": manifest.id,
        "name": manifest.name,
        "model": manifest.model,
        "arguments": dict(prepared.spec.arguments),
        "cut": manifest.cut,
        "objective": manifest.objective,
        "optimizer": manifest.optimizer,
        "classes": manifest.classes,
        "input": {"shape": manifest.input.shape, "dtype": manifest.input.dtype},
        "smashed": {"shape": manifest.smashed.shape, "dtype": manifest.smashed.dtype},
        "seed": prepared.spec.seed,
        "given": _given(manifest),
        "files": {name: archive.sha256(data) for name, data in members.items()},
        "start": {name: archive.sha256(data) for name, data in start.items()},
    }
    return {**members, **start, "hub.json": json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()}
