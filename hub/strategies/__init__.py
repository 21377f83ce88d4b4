"""The training methods, one file a paper. A new one is one file and one row here."""

from hub.strategies.adasplit import AdaSplit
from hub.strategies.base import Strategy
from hub.strategies.split_learning import SplitLearning

STRATEGIES: dict[str, type[Strategy]] = {
    "adasplit": AdaSplit,
    "split_learning": SplitLearning,
}
