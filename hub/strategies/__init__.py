"""The training methods, one file a paper. A new one is one file and one row here."""

from hub.strategies.adasplit import AdaSplit
from hub.strategies.base import Strategy
from hub.strategies.fedavg import FedAvg
from hub.strategies.fednova import FedNova
from hub.strategies.fedprox import FedProx
from hub.strategies.frozen import Frozen
from hub.strategies.locfedmix import LocFedMix
from hub.strategies.locsplitfed import LocSplitFed
from hub.strategies.one_shot import OneShot
from hub.strategies.parallel_split_learning import ParallelSplitLearning
from hub.strategies.scaffold import Scaffold
from hub.strategies.split_learning import SplitLearning
from hub.strategies.splitfed import SplitFed

STRATEGIES: dict[str, type[Strategy]] = {
    "adasplit": AdaSplit,
    "frozen": Frozen,
    "split_learning": SplitLearning,
    "parallel_split_learning": ParallelSplitLearning,
    "splitfed": SplitFed,
    "locsplitfed": LocSplitFed,
    "locfedmix": LocFedMix,
    "one_shot": OneShot,
    "fedavg": FedAvg,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "fednova": FedNova,
}
