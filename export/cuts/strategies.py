"""What a round of a strategy has for one device: steps, uploads, gradients, weights. One small function each.

The source of each is the strategy's own `turn` in `hub/strategies/NAME.py`, which names its paper; `tests/hub/test_traffic.py`
compares them. Means over a run and over the fleet, with every device there and the strategy's defaults but for what `Plan` says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from export.errors import ExportError


@dataclass(frozen=True)
class Plan:
    """The run that is to be predicted."""

    batches: int = 10
    """Steps of a round: a local epoch."""
    rounds: int = 20
    devices: int = 10
    kappa: float = 0.6
    """AdaSplit's κ: share of the rounds in which nobody sends."""
    eta: float = 0.6
    """AdaSplit's η: share of the devices that send in an iteration."""


@dataclass(frozen=True)
class Round:
    """A device's round, in the mean."""

    objective: str
    """What the bundle must have been built with."""
    runs: Mapping[str, float]
    """How often each kind of graph runs."""
    uploads: float = 0.0
    gradients: float = 0.0
    parts: tuple[str, ...] = ()
    """Which parts of the device's model travel as weights."""
    weights_up: float = 0.0
    """How often they do."""
    weights_down: float = 0.0
    orders: float = 1.0
    """Orders, and as many reports."""
    trains: bool = True


def adasplit(plan: Plan) -> Round:
    """κ of the rounds are silent; in the others k = max(1, ηN) of N devices send in each iteration (arXiv 2112.01637, section 3)."""
    silent = int(plan.kappa * plan.rounds + 1e-9)
    loud = (plan.rounds - silent) / plan.rounds
    share = max(1, round(plan.eta * plan.devices)) / plan.devices
    return Round(
        "contrastive", {"local": plan.batches}, loud * share * plan.batches, orders=1 - loud + loud * plan.batches
    )


def frozen(plan: Plan) -> Round:
    """Everybody sends every batch through a lower segment that does not learn; an order each (an ablation of AdaSplit)."""
    return Round("gradient", {"forward": plan.batches}, plan.batches, orders=plan.batches, trains=False)


def split_learning(plan: Plan) -> Round:
    """Every batch goes up and its gradient down; the lower segment comes from one device and goes to the next (arXiv 1810.06060)."""
    # All but the very first to train get them; one that is alone has them already.
    down = 1 - 1 / (plan.rounds * plan.devices) if plan.devices > 1 else 0.0
    return replace(_exchange(plan, ("lower",)), weights_down=down)


def parallel_split_learning(plan: Plan) -> Round:
    """Every batch goes up and its gradient down; no weights."""
    return _exchange(plan, ())


def splitfed(plan: Plan) -> Round:
    """As parallel split learning, and the lower segments are averaged every round (arXiv 2004.12088)."""
    return _exchange(plan, ("lower",))


def locfedmix(plan: Plan) -> Round:
    """As SplitFed, and the decoder is averaged too (WWW 2022, DOI 10.1145/3485447.3512153)."""
    return _exchange(plan, ("head", "lower"), "decoder")


def locsplitfed(plan: Plan) -> Round:
    """Every batch goes up and nothing down; lower segment and classifier are averaged every round (Han et al., 2021)."""
    n = plan.batches
    first = (plan.rounds - 1) / plan.rounds
    return Round("auxiliary", {"local": n}, n, parts=("head", "lower"), weights_up=1, weights_down=first)


def one_shot(plan: Plan) -> Round:
    """Averaged local training; in the last round every batch goes up once (arXiv 2507.07130)."""
    last = 1 / plan.rounds
    runs = {"local": plan.batches * (1 - last), "forward": plan.batches * last}
    return Round(
        "auxiliary", runs, plan.batches * last, parts=("head", "lower"), weights_up=1 - last, weights_down=1 - last
    )


def _exchange(plan: Plan, parts: tuple[str, ...], objective: str = "gradient") -> Round:
    n = plan.batches
    # Nobody needs weights to load before the first round: they are the bundle's.
    down = (plan.rounds - 1) / plan.rounds if parts else 0.0
    return Round(objective, {"forward": n, "backward": n}, n, n, parts, 1.0 if parts else 0.0, down)


STRATEGIES: dict[str, Callable[[Plan], Round]] = {
    "adasplit": adasplit,
    "frozen": frozen,
    "split_learning": split_learning,
    "parallel_split_learning": parallel_split_learning,
    "splitfed": splitfed,
    "locsplitfed": locsplitfed,
    "locfedmix": locfedmix,
    "one_shot": one_shot,
}
WHOLE = ("fedavg", "fedprox", "scaffold", "fednova")
"""Those that train the whole model on the device."""


def round_of(strategy: str, plan: Plan) -> Round:
    """A device's round of a strategy.

    Raises:
        ExportError: there is none of that name, or it cuts nothing.
    """
    if strategy in WHOLE:
        raise ExportError(f"{strategy} trains the whole model on the device: there is no cut to choose")
    if strategy not in STRATEGIES:
        raise ExportError(f"there is no strategy '{strategy}'; known are {', '.join(STRATEGIES)}")
    return STRATEGIES[strategy](plan)
