"""The healthy zoo in PyTorch: sound programs of kinds that the bases do not have, each with a loop of its own.

`sound` says what a program is; each other module puts the programs of its kind into `ZOO`.
"""

from benchmarks.diagnosis_torch.zoo import (  # noqa: F401
    architectures,
    classification,
    generative,
    optimisation,
    regression,
    reinforcement,
    representation,
    sequences,
)
from benchmarks.diagnosis_torch.zoo.sound import SEEDS, ZOO, examine, train

__all__ = ["SEEDS", "ZOO", "examine", "train"]
