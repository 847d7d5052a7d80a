"""The sound programs into which faults are put, and the losses and judges that they use."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, RMSprop
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR, StepLR

from benchmarks.diagnosis import data as tables
from benchmarks.diagnosis_torch import data, loops, models
from benchmarks.diagnosis_torch.programs import Program, head_parameters

# Losses: outputs and targets, as scripts call them


def binary(outputs: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of one logit a sample."""
    return F.binary_cross_entropy_with_logits(outputs.squeeze(1), y.float())


def weighted_binary(outputs: Tensor, y: Tensor) -> Tensor:
    """The same with nine times the weight for the rare positives."""
    return F.binary_cross_entropy_with_logits(outputs.squeeze(1), y.float(), pos_weight=torch.tensor(9.0))


def labels(outputs: Tensor, y: Tensor) -> Tensor:
    """Binary cross-entropy of a logit for each label, or pixel."""
    return F.binary_cross_entropy_with_logits(outputs, y.float())


def squared(outputs: Tensor, y: Tensor) -> Tensor:
    """Squared error of one output a sample."""
    return F.mse_loss(outputs.squeeze(1), y)


def by_word(outputs: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of (N, T, C) against (N, T)."""
    return F.cross_entropy(outputs.transpose(1, 2), y)


def by_letter(outputs: Tensor, y: Tensor) -> Tensor:
    """The same with words and samples in one axis, as language models do."""
    return F.cross_entropy(outputs.view(-1, outputs.size(-1)), y.view(-1))


def evidence(outputs: tuple[Tensor, Tensor, Tensor], y: Tensor) -> Tensor:
    """Reconstruction and divergence, summed over pixels and code, averaged over samples (Kingma & Welling 2014)."""
    pixels, mean, log_variance = outputs
    reconstruction = F.binary_cross_entropy(pixels, y, reduction="sum")
    divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
    return (reconstruction + divergence) / len(y)


# Judges: how wrong the outputs are


def wrong_class(outputs: Tensor, y: Tensor) -> float:
    """Share of samples, words or letters of another class than the largest output says; places without a tag aside."""
    return float((outputs.argmax(-1) != y)[y >= 0].float().mean())


def wrong_sign(outputs: Tensor, y: Tensor) -> float:
    """Share of wrong decisions by a logit."""
    return float(((outputs.reshape(y.shape) > 0) != (y > 0)).float().mean())


def unbalanced(outputs: Tensor, y: Tensor) -> float:
    """Mean of the shares of wrong decisions among negatives and positives."""
    wrong = (outputs.squeeze(1) > 0) != (y > 0)
    shares = [wrong[y == label].float().mean() for label in (0, 1) if bool((y == label).any())]
    return float(torch.stack(shares).mean())


def unexplained(outputs: Tensor, y: Tensor) -> float:
    """1 − R²."""
    wanted = y.reshape(outputs.shape)
    return float(torch.mean((outputs - wanted) ** 2) / torch.var(wanted, unbiased=False))


def unexplained_pixels(outputs: tuple[Tensor, Tensor, Tensor], y: Tensor) -> float:
    """1 − R² of the pixels that a variational autoencoder gives."""
    return unexplained(outputs[0], y)


# Schedules: of the optimiser and the batches of an epoch


def cosine(epochs: int, optimizer: Any, batches: int) -> Any:
    """Down to zero along half a cosine, with every batch."""
    return CosineAnnealingLR(optimizer, T_max=epochs * batches)


def one_cycle(epochs: int, optimizer: Any, batches: int) -> Any:
    """Up and down again (Smith 2018), with every batch."""
    return OneCycleLR(optimizer, max_lr=optimizer.param_groups[0]["lr"], total_steps=epochs * batches)


def warm_up(optimizer: Any, batches: int) -> Any:
    """Up over the first 30 batches."""
    return LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30))


def halved(optimizer: Any, batches: int) -> Any:
    """Half the learning rate after every five epochs."""
    return StepLR(optimizer, 5, 0.5)


# Models that need more than their class


def pretrained() -> models.Net:
    """A network for the digits 5 to 9, of which all but the head has learned the digits 0 to 4 and is frozen."""
    model = models.ConvNet(5, norm=True)
    model.load_state_dict(low_digits_state())
    for parameter in model.body.parameters():
        parameter.requires_grad = False
    model.head = nn.Linear(128, 5)
    model.eval()
    return model


@cache
def low_digits_state() -> dict[str, Tensor]:
    """What a network knows that can tell the digits 0 to 4."""
    random = torch.get_rng_state()
    loop, _ = PRETRAINING.loop(PRETRAINING.data(0), 0, None)
    for _ in range(PRETRAINING.epochs):
        PRETRAINING.epoch(loop)
        PRETRAINING.evaluate(loop)
    torch.set_rng_state(random)
    return dict(loop.model.state_dict())


def batch_norm(width: int) -> list[nn.Module]:
    """Batch norm between a linear layer and its activation."""
    return [nn.BatchNorm1d(width)]


def flat(model: nn.Module) -> nn.Sequential:
    """`model` behind a Flatten."""
    return nn.Sequential(nn.Flatten(), *model)


CLASSES: dict[str, Any] = {"task": "classes", "loss": F.cross_entropy, "judge": wrong_class}
BINARY: dict[str, Any] = {"task": "binary", "loss": binary, "judge": wrong_sign}
REAL: dict[str, Any] = {"task": "real", "loss": squared, "judge": unexplained}

PRETRAINING = Program("digits-low", load=data.low_digits, build=partial(models.ConvNet, 5, norm=True), **CLASSES,
                      lr=3e-3, epochs=5)  # fmt: skip

PROGRAMS = [
    Program("digits-convnet", load=data.images, build=models.ConvNet, **CLASSES, optimizer=SGD, lr=0.03,
            settings={"momentum": 0.9}, epochs=12, batch_size=64),
    Program("digits-batchnorm", load=data.images, build=partial(models.ConvNet, norm=True), **CLASSES, lr=2e-3, epochs=8,
            batch_size=64),
    Program("digits-dropout", load=data.images, build=models.DropoutNet, **CLASSES, lr=2e-3, epochs=15, batch_size=64,
            schedule=halved, epoch=loops.each_epoch),
    Program("digits-logsoftmax", load=data.images, build=models.LogSoftmaxNet, **{**CLASSES, "loss": F.nll_loss},
            optimizer=SGD, lr=0.03, settings={"momentum": 0.9}, epochs=12, batch_size=64, slices=True),
    Program("digits-residual", load=data.images, build=models.ResidualNet, **CLASSES, optimizer=AdamW, epochs=10,
            batch_size=64, schedule=partial(cosine, 10), epoch=loops.scheduled),
    Program("digits-onecycle", load=data.images, build=lambda: flat(models.mlp([64, 48, 48, 48, 10])), **CLASSES,
            optimizer=SGD, lr=0.15, settings={"momentum": 0.9}, epochs=12, batch_size=64, schedule=partial(one_cycle, 12),
            epoch=loops.scheduled),
    Program("digits-finetune", load=data.high_digits, build=pretrained, **CLASSES, lr=0.01, epochs=15,
            epoch=loops.frozen_body, optimised=head_parameters),
    Program("digits-autocast", load=data.images, build=models.ConvNet, **CLASSES, optimizer=SGD, lr=0.03,
            settings={"momentum": 0.9}, epochs=12, batch_size=64, epoch=loops.autocast),
    Program("digits-accumulate", load=data.images, build=lambda: flat(models.mlp([64, 64, 10])), **CLASSES,
            optimizer=SGD, lr=0.1, settings={"momentum": 0.9}, epochs=12, batch_size=16, epoch=loops.accumulating),
    Program("digits-autoencoder", load=data.pixels, build=models.Autoencoder, task="real", loss=F.mse_loss,
            judge=unexplained, lr=3e-3, epochs=15, batch_size=64),
    Program("digits-variational", load=data.pixels, build=models.VariationalAutoencoder, task="real", loss=evidence,
            judge=unexplained_pixels, lr=3e-3, epochs=15, batch_size=64, slices=True),
    Program("digits-siamese", load=data.couples, build=models.Siamese, **BINARY, epochs=15),
    Program("waves-lstm", load=data.waves, build=models.WaveNet, **CLASSES, lr=0.01, epochs=20),
    Program("waves-gru", load=data.waves, build=partial(models.WaveNet, nn.GRU), **CLASSES, optimizer=RMSprop,
            lr=3e-3, epochs=18, epoch=loops.clipped),
    Program("echoes-rnn", load=data.echoes, build=partial(models.WaveNet, nn.RNN, 1), **REAL, optimizer=SGD, lr=0.05,
            epochs=15, epoch=loops.clipped, slices=True),
    Program("reviews-transformer", load=data.reviews, build=models.ReviewNet, **CLASSES, optimizer=AdamW,
            settings={"weight_decay": 0.05}, lr=1e-3, epochs=10, schedule=warm_up, epoch=loops.scheduled),
    Program("text-transformer", load=data.text, build=models.LanguageModel, **{**CLASSES, "loss": by_letter},
            optimizer=AdamW, lr=5e-3, epochs=15, schedule=partial(cosine, 15), epoch=loops.scheduled),
    Program("phrases-tagger", load=data.phrases, build=models.Tagger, **{**CLASSES, "loss": by_word}, lr=0.01, epochs=15,
            epoch=loops.zero_last),
    Program("bags-embedding", load=data.bags, build=models.BagOfWords, **CLASSES, lr=4e-3, epochs=8,
            epoch=loops.zero_last),
    Program("ratings-factors", load=data.ratings, build=models.Factorisation, task="real", loss=F.mse_loss,
            judge=unexplained, lr=0.01, settings={"weight_decay": 1e-4}, epochs=12, batch_size=64),
    Program("friedman-mlp", load=data.friedman, build=lambda: models.mlp([10, 48, 48, 1]), **REAL, lr=3e-3,
            settings={"weight_decay": 1e-4}, epochs=15, slices=True, epoch=loops.zero_filled),
    Program("diabetes-huber", load=tables.diabetes, build=lambda: models.mlp([10, 16, 1], nn.Tanh),
            **{**REAL, "loss": lambda outputs, y: F.huber_loss(outputs.squeeze(1), y)}, optimizer=SGD, lr=0.02,
            settings={"momentum": 0.9}, epochs=15),
    Program("cancer-binary", load=tables.cancer, build=lambda: models.mlp([30, 16, 1]), **BINARY, lr=3e-3,
            epochs=15, epoch=loops.zero_last),
    Program("skewed-weighted", load=data.skewed, build=lambda: models.mlp([6, 16, 1]), task="binary",
            loss=weighted_binary, judge=unbalanced, lr=3e-3, epochs=8),
    Program("tags-multilabel", load=tables.tags, build=lambda: models.mlp([16, 48, 48, 6]), task="labels",
            loss=labels, judge=wrong_sign, lr=3e-3, epochs=10),
    Program("masks-segmenter", load=data.masks, build=models.Segmenter, task="labels", loss=labels, judge=wrong_sign,
            lr=0.01, epochs=10),
    Program("wine-batchnorm", load=tables.wine, build=lambda: models.mlp([13, 32, 32, 3], between=batch_norm), **CLASSES,
            lr=3e-3, epochs=20, batch_size=16),
    Program("iris-fullbatch", load=tables.iris, build=lambda: models.mlp([4, 16, 3]), **CLASSES, lr=0.02,
            epochs=150, batch_size=1000, slices=True),
    Program("spirals-tanh", load=tables.spirals, build=lambda: models.mlp([2, 48, 48, 2], nn.Tanh), **CLASSES,
            optimizer=AdamW, lr=0.02, epochs=25, schedule=partial(cosine, 25), epoch=loops.scheduled),
]  # fmt: skip

BASES = {program.name: program for program in PROGRAMS}
