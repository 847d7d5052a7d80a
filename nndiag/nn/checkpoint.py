"""A trainer on disk: one .npz file, without pickle, from which training goes on bit for bit."""

from __future__ import annotations

import json
import os
import zipfile
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nndiag.errors import NndiagError
from nndiag.statistics import Array

if TYPE_CHECKING:
    from nndiag.nn.trainer import Trainer

FORMAT = "nndiag.trainer/1"


class CheckpointError(NndiagError):
    """A file that holds no trainer, or one of another architecture."""


def save(trainer: Trainer, path: str | Path) -> None:
    """Write `trainer` to `path`, whole or not at all: a file that was there stays until the new one is complete."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            arrays: dict[str, Any] = {"meta": np.array(json.dumps(_meta(trainer)))} | _arrays(trainer)
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def load(trainer: Trainer, path: str | Path) -> None:
    """Bring `trainer` to where the saved one was; raises `CheckpointError` and changes nothing where it cannot be."""
    saved = _read(Path(path))
    meta = json.loads(str(saved.pop("meta")))
    _compare(meta["architecture"], _architecture(trainer), path)
    for key, array in _model_arrays(trainer).items():
        array[...] = saved.pop(key)
    trainer.optimizer.load_state({key.removeprefix("optimizer/"): array for key, array in saved.items()})
    for name, random in _generators(trainer).items():
        random.bit_generator.state = meta["random"][name]
    trainer.steps, trainer.epochs = meta["steps"], meta["epochs"]


def _read(path: Path) -> dict[str, Array]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            saved = dict(file)
        form = json.loads(str(saved["meta"]))["format"] if "meta" in saved else "an .npz file of another kind"
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {path}") from None
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as fault:
        raise CheckpointError(f"{path} cannot be read as a saved trainer: {fault}") from fault
    if form != FORMAT:
        raise CheckpointError(f"{path} is {form}, wanted {FORMAT}")
    return saved


def _meta(trainer: Trainer) -> dict[str, Any]:
    random = {name: random.bit_generator.state for name, random in _generators(trainer).items()}
    return {
        "format": FORMAT,
        "architecture": _architecture(trainer),
        "random": json.loads(json.dumps(random, default=np.ndarray.tolist)),
        "steps": trainer.steps,
        "epochs": trainer.epochs,
    }


def _architecture(trainer: Trainer) -> list[str]:
    """What must be the same in both trainers, one fact a line."""
    model = trainer.model
    return [
        f"dtype {model.dtype}",
        *(f"layer {layer.name} ({layer.kind})" for layer in model.layers),
        *(f"parameter {parameter.name} {parameter.value.shape}" for parameter in model.parameters),
        f"optimiser {type(trainer.optimizer).__name__}",
    ]


def _compare(saved: list[str], here: list[str], path: str | Path) -> None:
    for theirs, ours in zip_longest(saved, here, fillvalue="nothing more"):
        if theirs != ours:
            raise CheckpointError(f"{path} was saved from another model: it has {theirs} where this one has {ours}")


def _arrays(trainer: Trainer) -> dict[str, Array]:
    optimizer = {f"optimizer/{key}": array for key, array in trainer.optimizer.state().items()}
    return _model_arrays(trainer) | optimizer


def _model_arrays(trainer: Trainer) -> dict[str, Array]:
    """The live arrays of the model, by the key they have in the file."""
    parameters = {f"parameter/{parameter.name}": parameter.value for parameter in trainer.model.parameters}
    state = {
        f"state/{layer.name}.{key}": array for layer in trainer.model.layers for key, array in layer.state().items()
    }
    return parameters | state


def _generators(trainer: Trainer) -> dict[str, np.random.Generator]:
    layers = {layer.name: layer.random for layer in trainer.model.layers if layer.random is not None}
    return {"": trainer.random} | layers
