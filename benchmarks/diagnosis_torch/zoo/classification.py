"""Classifiers of digits: schedules, regularisers, labels and heads. The error is the share of wrong validation digits."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler, swa_utils

from benchmarks.diagnosis_torch.programs import Watch
from benchmarks.diagnosis_torch.zoo.sound import (
    X_VAL,
    Y_VAL,
    X,
    Y,
    batches,
    classified,
    epochs_of,
    mlp,
    sound,
    update,
    updates,
    wrong,
)

KIND = "classification"
Adam, AdamW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD


def one_epoch(recorder: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Updates for all digits."""
    model.train()
    for x, y in batches(X, Y):
        update(recorder, optimizer, classified(model, x, y))


def validation_loss(model: nn.Module) -> float:
    """Cross-entropy of the validation digits, as in evaluation."""
    model.eval()
    with torch.no_grad():
        return float(classified(model))


def trained_before(model: nn.Module, rate: float, epochs: int, label_smoothing: float = 0.0) -> None:
    """Train `model` with Adam while nobody watches."""
    optimizer = Adam(model.parameters(), rate)
    for x, y in batches(X, Y, epochs):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y, label_smoothing=label_smoothing).backward()
        optimizer.step()


# Schedules


def scheduled(watch: Watch, model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any) -> float:
    """Epochs with a step of `scheduler` after each update."""
    epochs_of(watch, model, optimizer, classified, scheduler=scheduler, validate=lambda: classified(model).item())
    return wrong(model)


@sound(KIND, 0.1)
def gradual_unfreezing(watch: Watch) -> float:
    """Only the head learns at first, then the layer below too, and then all (Howard and Ruder 2018)."""
    model = mlp(64, 64, 64, 10)
    parameters = list(model.parameters())
    for parameter in parameters[:-2]:
        parameter.requires_grad = False
    optimizer = Adam(parameters, 1e-3)
    with watch(model, optimizer) as recorder:
        for epoch in range(12):
            if epoch in (4, 8):
                for parameter in parameters[2:] if epoch == 4 else parameters:
                    parameter.requires_grad = True
            one_epoch(recorder, model, optimizer)
    return wrong(model)


@sound(KIND, 0.1)
def resting_base(watch: Watch) -> float:
    """The base rests, by a learning rate of 0 for its group, until the head has learned."""
    model = nn.Sequential(*mlp(64, 64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = Adam([{"params": model[:-1].parameters(), "lr": 0.0}, {"params": model[-1].parameters()}], 3e-3)
    rows = list(batches(X, Y, 12))

    def after(step: int) -> None:
        if step == 400:
            optimizer.param_groups[0]["lr"] = 1e-3

    updates(watch, model, optimizer, len(rows), lambda step: classified(model, *rows[step]), after=after)
    return wrong(model)


@sound(KIND, 0.1)
def one_cycle(watch: Watch) -> float:
    """The learning rate rises to 0.3 and falls again, while the momentum falls and rises (Smith 2018)."""
    model = mlp(64, 128, 64, 10)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    scheduler = lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=12 * (len(X) // 32) + 5)
    return scheduled(watch, model, optimizer, scheduler)


@sound(KIND, 0.1)
def warm_restarts(watch: Watch) -> float:
    """The learning rate falls by a cosine and is put back every 100 steps (Loshchilov and Hutter 2017)."""
    model = mlp(64, 128, 64, 10)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 100)
    return scheduled(watch, model, optimizer, scheduler)


@sound(KIND, 0.1)
def warm_up_and_decay(watch: Watch) -> float:
    """The learning rate rises for 50 steps, and then falls to 0 in a line."""
    model = mlp(64, 128, 64, 10)
    optimizer = AdamW(model.parameters(), 2e-3)
    number = 12 * (len(X) // 32)
    scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 50, max(0, (number - step) / number)))
    return scheduled(watch, model, optimizer, scheduler)


@sound(KIND, 0.1)
def rate_by_plateaus(watch: Watch) -> float:
    """The learning rate falls to a tenth whenever the validation loss has not fallen for two epochs."""
    model = mlp(64, 64, 10)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=1)
    with watch(model, optimizer) as recorder:
        for _ in range(25):
            one_epoch(recorder, model, optimizer)
            loss = validation_loss(model)
            recorder.log(validation_loss=loss)
            scheduler.step(loss)
    return wrong(model)


@sound(KIND, 0.1)
def best_weights_restored(watch: Watch) -> float:
    """The weights of the best epoch are put back at the end, while still watched, and a test loss is logged."""
    model = mlp(64, 128, 10)
    optimizer = Adam(model.parameters(), 3e-3)
    lowest, best = float("inf"), model.state_dict()
    with watch(model, optimizer) as recorder:
        for _ in range(15):
            one_epoch(recorder, model, optimizer)
            loss = validation_loss(model)
            recorder.log(validation_loss=loss)
            if loss < lowest:
                lowest, best = loss, copy.deepcopy(model.state_dict())
        model.load_state_dict(best)
        recorder.log(test_loss=validation_loss(model))
    return wrong(model)


@sound(KIND, 0.1)
def averaged_weights(watch: Watch) -> float:
    """A moving average of the weights is validated, not what is trained. The error is that of the average."""
    model = mlp(64, 128, 10)
    average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.99))
    epochs_of(
        watch, model, Adam(model.parameters(), 1e-3), classified,
        after=lambda: average.update_parameters(model), validate=lambda: classified(average).item(),
    )  # fmt: skip
    return wrong(average)


# Samples


@sound(KIND, 0.1)
def mixup(watch: Watch) -> float:
    """Pictures and labels are mixed in pairs (Zhang et al. 2018), and labels are smoothed."""
    model = mlp(64, 128, 10)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        other = torch.randperm(len(x))
        part = float(torch.distributions.Beta(0.4, 0.4).sample())
        logits = model(part * x + (1 - part) * x[other])
        one, two = (F.cross_entropy(logits, labels, label_smoothing=0.1) for labels in (y, y[other]))
        return part * one + (1 - part) * two

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, validate=lambda: classified(model).item())
    return wrong(model)


@sound(KIND, 0.1)
def weighted_samples(watch: Watch) -> float:
    """Two of the classes are drawn five times as often as the others."""
    model = mlp(64, 64, 10)
    weights = torch.where(Y < 2, 5.0, 1.0)

    def loss(_: int) -> Tensor:
        rows = torch.multinomial(weights, 32, replacement=True)
        return classified(model, X[rows], Y[rows])

    updates(watch, model, Adam(model.parameters(), 2e-3), 500, loss)
    return wrong(model)


@sound(KIND, 0.1)
def curriculum(watch: Watch) -> float:
    """The pictures nearest to the mean come first, and farther ones join by and by (Bengio et al. 2009)."""
    model = mlp(64, 64, 10)
    ordered = (X - X.mean(0)).square().sum(1).argsort()

    def loss(step: int) -> Tensor:
        rows = ordered[torch.randint(min(len(X), 200 + 3 * step), (32,))]
        return classified(model, X[rows], Y[rows])

    updates(watch, model, Adam(model.parameters(), 2e-3), 600, loss)
    return wrong(model)


@sound(KIND, 0.25)
def pseudo_labels(watch: Watch) -> float:
    """A quarter has labels; from the fifth epoch on, sure predictions for the rest are labels too (Lee 2013)."""
    model = mlp(64, 64, 10)
    optimizer = Adam(model.parameters(), 2e-3)
    labelled = len(X) // 4
    unlabelled = X[labelled:]

    def of_unlabelled() -> Tensor:
        x = unlabelled[torch.randint(len(unlabelled), (32,))]
        with torch.no_grad():
            sureness, labels = F.softmax(model(x), 1).max(1)
        losses = F.cross_entropy(model(x + 0.1 * torch.randn_like(x)), labels, reduction="none")
        return ((sureness > 0.9).float() * losses).mean()

    with watch(model, optimizer) as recorder:
        for epoch in range(10):
            for x, y in batches(X[:labelled], Y[:labelled]):
                loss = classified(model, x, y)
                if epoch > 3:
                    loss = loss + 0.5 * of_unlabelled()
                update(recorder, optimizer, loss)
    return wrong(model)


# Losses and labels


def rare_digit(watch: Watch, pos_weight: Tensor | None) -> float:
    """One of the digits against all others, which are nine times as many; the mean of both shares that are wrong."""
    model = mlp(64, 64, 1)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(x).squeeze(1), y, pos_weight=pos_weight)

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, X, (Y == 3).float())
    positive = model(X_VAL).squeeze(1) > 0
    missed, false = ~positive[Y_VAL == 3], positive[Y_VAL != 3]
    return float(missed.double().mean() + false.double().mean()) / 2


@sound(KIND, 0.2)
def rare_class(watch: Watch) -> float:
    """The error is the mean of the shares of the rare digit and of the others that are wrong; a half is chance."""
    return rare_digit(watch, None)


@sound(KIND, 0.2)
def weighted_rare_class(watch: Watch) -> float:
    """The rare digit weighs nine times as much. The error is the mean of its share that is wrong and that of the others."""
    return rare_digit(watch, torch.tensor(9.0))


@sound(KIND, 0.1)
def focal_loss(watch: Watch) -> float:
    """Samples that are right already count for less (Lin et al. 2017)."""
    model = mlp(64, 64, 10)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        losses = F.cross_entropy(model(x), y, reduction="none")
        return ((1 - torch.exp(-losses)) ** 2 * losses).mean()

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss)
    return wrong(model)


@sound(KIND, 0.1)
def asymmetric_loss(watch: Watch) -> float:
    """Each class is a label of its own, and easy negatives hardly count (Ridnik et al. 2021)."""
    model = mlp(64, 64, 10)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        p = torch.sigmoid(model(x))
        of_positive = y * (1 - p) * torch.log(p.clamp(1e-8))
        of_negative = (1 - y) * p**4 * torch.log((1 - p).clamp(1e-8))
        return -(of_positive + of_negative).mean()

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, X, F.one_hot(Y, 10).float())
    return wrong(model)


@sound(KIND, 0.15)
def hinge_loss(watch: Watch) -> float:
    """The digits from 5 on against the others: a sample that is right by a margin gives no gradient at all."""
    model = mlp(64, 32, 1)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.relu(1 - y * model(x).squeeze(1)).mean()

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, X, 2 * (Y > 4).float() - 1)
    return float(((model(X_VAL).squeeze(1) > 0) != (Y_VAL > 4)).double().mean())


@sound(KIND, 0.55)
def ordered_levels(watch: Watch) -> float:
    """Each output says whether the level is above one of four bounds (Frank and Hall 2001).

    The error is the share of new samples that are given a wrong one of the five levels.
    """
    x = torch.randn(2500, 10)
    score = torch.sin(x[:, 0]) + x[:, 1] * x[:, 2] + 0.3 * torch.randn(2500)
    bounds = torch.tensor([-1.0, -0.3, 0.3, 1.0])
    above = ((score - score.mean()) / score.std())[:, None] > bounds
    model = mlp(10, 64, 4)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(x), y)

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, x[:2000], above[:2000].float())
    levels = (model(x[2000:]) > 0).sum(1)
    return float((levels != above[2000:].sum(1)).double().mean())


@sound(KIND, 0.1)
def distillation(watch: Watch) -> float:
    """A small network learns from labels and from the softened answers of a larger one (Hinton et al. 2015)."""
    teacher = mlp(64, 128, 10)
    trained_before(teacher, 2e-3, epochs=8)
    teacher.requires_grad_(False)
    student = mlp(64, 32, 10)

    def loss(student: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            answers = F.softmax(teacher(x) / 2, 1)
        logits = student(x)
        softened = F.kl_div(F.log_softmax(logits / 2, 1), answers, reduction="batchmean")
        return 0.5 * F.cross_entropy(logits, y) + 0.5 * 2**2 * softened

    epochs_of(watch, student, Adam(student.parameters(), 2e-3), loss)
    return wrong(student)


class TwoTasks(nn.Module):  # type: ignore[misc]
    """The class and the brightness of a picture, from the same features."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.digit, self.brightness = mlp(64, 64, 64), nn.Linear(64, 10), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = F.relu(self.trunk(x))
        return self.digit(h), self.brightness(h).squeeze(1)


@sound(KIND, 0.1)
def two_tasks(watch: Watch) -> float:
    model = TwoTasks()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits, brightness = model(x)
        return F.cross_entropy(logits, y) + 0.5 * F.mse_loss(brightness, x.mean(1))

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss)
    return float((model(X_VAL)[0].argmax(1) != Y_VAL).double().mean())


# Outputs and heads


@sound(KIND, 0.15)
def linear_from_zero(watch: Watch) -> float:
    """Softmax regression whose weights all start at 0."""
    model = nn.Linear(64, 10)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    epochs_of(watch, model, SGD(model.parameters(), 0.1, momentum=0.9), classified)
    return wrong(model)


@sound(KIND, 0.1)
def many_unused_classes(watch: Watch) -> float:
    """A thousand outputs, of which ten are ever the label."""
    model = mlp(64, 64, 1000)
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), classified)
    return wrong(model)


class Masked(nn.Module):  # type: ignore[misc]
    """Logits of twelve classes; those of the last two, which cannot be, are `fill`."""

    def __init__(self, fill: float) -> None:
        super().__init__()
        self.body, self.fill = mlp(64, 64, 12), fill

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).masked_fill(torch.arange(12) > 9, self.fill)


@sound(KIND, 0.1)
def infinite_mask(watch: Watch) -> float:
    """Two of the logits are always -inf."""
    model = Masked(-torch.inf)
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), classified)
    return wrong(model)


@sound(KIND, 0.1)
def huge_mask(watch: Watch) -> float:
    """Two of the logits are always -1e9."""
    model = Masked(-1e9)
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), classified)
    return wrong(model)


class Cosines(nn.Module):  # type: ignore[misc]
    """Cosines between features and a learned direction for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.directions = mlp(64, 64, 16), nn.Parameter(torch.randn(10, 16))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.features(x), dim=1) @ F.normalize(self.directions, dim=1).T


@sound(KIND, 0.1)
def scaled_cosines(watch: Watch) -> float:
    """The loss scales the cosines by 16, so what the model gives stays below 1 (Wang et al. 2017)."""
    model = Cosines()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(16 * model(x), y)

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, epochs=6)
    return wrong(model)


class Prototypes(nn.Module):  # type: ignore[misc]
    """Minus the squared distances of features to a learned point for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.points = mlp(64, 64, 16), nn.Parameter(torch.randn(10, 16))

    def forward(self, x: Tensor) -> Tensor:
        return -(self.features(x)[:, None] - self.points).square().sum(2)


@sound(KIND, 0.1)
def learned_prototypes(watch: Watch) -> float:
    """The nearest point says the class, so all logits are below 0 (as of Snell et al. 2017)."""
    model = Prototypes()
    epochs_of(watch, model, Adam(model.parameters(), 3e-3), classified, epochs=6)
    return wrong(model)


class LowRank(nn.Module):  # type: ignore[misc]
    """A frozen linear layer with an update of low rank beside it (Hu et al. 2022)."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.down = nn.Parameter(0.1 * torch.randn(4, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, 4))
        self.base = base.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.T @ self.up.T


@sound(KIND, 0.15)
def low_rank_adaptation(watch: Watch) -> float:
    """A trained network learns other labels, each one class on, by updates of low rank alone."""
    trained = mlp(64, 64, 32, 10)
    trained_before(trained, 3e-3, epochs=6, label_smoothing=0.3)
    model = nn.Sequential(*(LowRank(layer) if isinstance(layer, nn.Linear) else layer for layer in trained))
    optimizer = Adam([parameter for parameter in model.parameters() if parameter.requires_grad], 2e-3)
    epochs_of(watch, model, optimizer, classified, X, (Y + 1) % 10)
    return wrong(model, y=(Y_VAL + 1) % 10)
