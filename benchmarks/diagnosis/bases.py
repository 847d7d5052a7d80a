"""The sound programs into which faults are put."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.diagnosis import data
from benchmarks.diagnosis.programs import Program
from nndiag import nn
from nndiag.nn.schedules import Schedule


def warm(lr: float, updates: int) -> Schedule:
    """Up over the first tenth, then down to zero along half a cosine."""
    rise = max(1, updates // 10)
    return nn.WarmUp(nn.Cosine(lr, max(1, updates - rise)), rise)


def cosine(lr: float, updates: int) -> Schedule:
    """Down to zero along half a cosine."""
    return nn.Cosine(lr, updates)


def _named(programs: Iterable[Program]) -> dict[str, Program]:
    return {program.name: program for program in programs}


MOMENTUM = {"momentum": 0.9}

BASES = _named(
    [
        Program("digits-relu", "classes", data.digits, 10, (64, 32), lr=0.03, settings=MOMENTUM, batch_size=64,
                epochs=12),
        Program("digits-tanh", "classes", data.digits, 10, (48, 48, 48), "tanh", lr=0.03, settings=MOMENTUM,
                batch_size=64),
        Program("digits-batchnorm", "classes", data.digits, 10, (48,) * 4, norm="batch", optimizer=nn.Adam, lr=3e-3,
                batch_size=64, epochs=8),
        Program("digits-dropout", "classes", data.digits, 10, (96,), dropout=0.3, optimizer=nn.Adam, lr=4e-3,
                batch_size=64, epochs=12),
        Program("digits-probabilities", "classes", data.digits, 10, (48,), "leaky_relu", dtype="float64",
                head=(nn.Softmax,), loss=nn.CrossEntropy, optimizer=nn.Adam, lr=4e-3, batch_size=48),
        Program("digits-deep", "classes", data.digits, 10, (48,) * 6, lr=0.04, settings=MOMENTUM, schedule=warm,
                batch_size=64, epochs=12),
        Program("cancer-relu", "binary", data.cancer, 1, (24,), loss=nn.BCEWithLogits, decide="sign",
                optimizer=nn.Adam, lr=3e-3, settings={"weight_decay": 0.1}, epochs=14),
        Program("cancer-sigmoid", "binary", data.cancer, 1, (16,), "sigmoid", loss=nn.BCEWithLogits, decide="sign",
                lr=0.05, settings={**MOMENTUM, "weight_decay": 1e-3}, epochs=14),
        Program("diabetes-relu", "real", data.diabetes, 1, (12,), loss=nn.MSE, decide="real", optimizer=nn.Adam,
                lr=4e-3, settings={"weight_decay": 0.1}, epochs=20),
        Program("iris-tanh", "classes", data.iris, 3, (16,), "tanh", lr=0.05, settings=MOMENTUM, epochs=25,
                batch_size=16),
        Program("wine-layernorm", "classes", data.wine, 3, (24, 24), norm="layer", optimizer=nn.Adam, lr=1e-3,
                settings={"weight_decay": 0.1}, epochs=20, batch_size=16),
        Program("spirals-relu", "classes", data.spirals, 2, (48, 48), optimizer=nn.Adam, lr=0.01, epochs=20),
        Program("blobs-plain", "classes", data.blobs, 6, (32,), "leaky_relu", dtype="float64", lr=0.1),
        Program("sine-tanh", "real", data.sine, 1, (32, 32), "tanh", loss=nn.MSE, decide="real", optimizer=nn.Adam,
                lr=5e-3, schedule=cosine, epochs=20),
        Program("words-relu", "classes", data.words, 4, (24,), optimizer=nn.Adam, lr=4e-3,
                settings={"weight_decay": 0.1}, epochs=8),
        Program("tags-relu", "labels", data.tags, 6, (32, 32), loss=nn.BCEWithLogits, decide="sign",
                optimizer=nn.Adam, lr=4e-3, settings={"weight_decay": 0.1}),
        Program("faint-linear", "real", data.faint, 1, (8,), loss=nn.MSE, decide="real", lr=0.02, batch_size=64),
        Program("rare-oversampled", "binary", data.rare, 1, (16,), loss=nn.BCEWithLogits, decide="sign", lr=0.01,
                settings=MOMENTUM, batch_size=64),
    ]
)  # fmt: skip
