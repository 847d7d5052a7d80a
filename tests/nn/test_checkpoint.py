"""Saving and loading a trainer."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag import nn
from nndiag.errors import NndiagError

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(50, 6)), rng.integers(3, size=50)
OPTIMIZERS = {"SGD": lambda: nn.SGD(nn.Cosine(0.1, 20), 0.9), "Adam": lambda: nn.Adam(0.01, weight_decay=0.1)}


def trainer(optimizer="SGD", sizes=(6, 8, 8, 3), seed=0, **settings) -> nn.Trainer:
    model = nn.MLP(list(sizes), **({"norm": "batch", "dropout": 0.3, "seed": seed} | settings))
    return nn.Trainer(model, nn.SoftmaxCrossEntropy(), OPTIMIZERS[optimizer](), seed=seed)


def weights(of: nn.Trainer) -> list[list[float]]:
    return [parameter.value.ravel().tolist() for parameter in of.model.parameters]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_goes_on_bit_for_bit(tmp_path, optimizer):
    first, second = trainer(optimizer), trainer(optimizer, seed=9)
    first.fit(X, Y, epochs=2)
    first.save(tmp_path / "model.npz")

    second.load(tmp_path / "model.npz")
    histories = [each.fit(X, Y, validation=(X, Y), epochs=3) for each in (first, second)]

    assert histories[0] == histories[1]
    assert weights(first) == weights(second)
    assert (second.steps, second.epochs, second.optimizer.updates) == (10, 5, 10)


def test_trainer_that_never_trained_can_be_saved(tmp_path):
    trainer().save(tmp_path / "model.npz")
    second = trainer(seed=9)

    second.load(str(tmp_path / "model.npz"))

    assert weights(second) == weights(trainer())


def test_file_is_the_only_thing_written(tmp_path):
    for _ in range(2):
        trainer().save(tmp_path / "model")

    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    trainer().save(path)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        trainer(seed=9).save(path)

    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (
            {"sizes": (6, 8, 7, 3)},
            r"parameter hidden2.weight \(8, 8\) where this one has .* \(7, 8\)",
        ),
        ({"sizes": (6, 8, 3)}, r"layer hidden2 \(affine\) where this one has layer output \(affine\)"),
        ({"activation": "tanh"}, r"layer hidden1.relu \(relu\) where this one has layer hidden1.tanh \(tanh\)"),
        ({"dtype": np.float64}, "dtype float32 where this one has dtype float64"),
        ({"optimizer": "Adam"}, "optimiser SGD where this one has optimiser Adam"),
    ],
)
def test_other_architecture_is_refused_by_its_first_difference(tmp_path, other, text):
    trainer().save(tmp_path / "model.npz")
    untouched = trainer(**other)
    before = weights(untouched)

    with pytest.raises(nn.CheckpointError, match=f"was saved from another model: it has {text}"):
        untouched.load(tmp_path / "model.npz")

    assert weights(untouched) == before


def test_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NndiagError, match=r"there is no file .*model\.npz"):
        trainer().load(tmp_path / "model.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04 torn"])
def test_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "model.npz"
    path.write_bytes(content)

    with pytest.raises(nn.CheckpointError, match="cannot be read as a saved trainer"):
        trainer().load(path)


def test_npz_file_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=X)

    with pytest.raises(nn.CheckpointError, match=r"is an \.npz file of another kind, wanted nndiag\.trainer/1"):
        trainer().load(tmp_path / "data.npz")


def test_torn_file_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    trainer().save(path)
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(nn.CheckpointError, match="cannot be read as a saved trainer"):
        trainer().load(path)
