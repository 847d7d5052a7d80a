"""Learned representations, similarities and rankings. The error is the share of new pairs that are matched or ordered wrongly."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis_torch.programs import Watch
from benchmarks.diagnosis_torch.zoo.sound import X_VAL, Y_VAL, X, Y, epochs_of, follow, mlp, sound, unexplained, updates

KIND = "representation"
Adam, AdamW = torch.optim.Adam, torch.optim.AdamW


def noisy(x: Tensor, noise: float = 0.1) -> Tensor:
    """Another view of the same pictures."""
    return x + noise * torch.randn_like(x)


def unmatched(one: Tensor, other: Tensor) -> float:
    """Share of the rows of `one` for which another row of `other` is at least as near, by the angle, as the same row."""
    cosines = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T
    right = cosines.diag().clone()
    cosines.fill_diagonal_(-torch.inf)
    return float((cosines.amax(1) >= right).double().mean())


def kept_apart(one: Tensor, other: Tensor) -> float:
    """How far rows of `one` are from those of `other`, by the angle, as a share of how far from the row after."""
    one, other = one.detach(), other.detach()
    same, different = F.cosine_similarity(one, other), F.cosine_similarity(one, other.roll(1, 0))
    return float((1 - same).mean() / (1 - different).mean())


@sound(KIND, 0.25)
def contrastive(watch: Watch) -> float:
    """Two views of a picture are to be nearer than views of different pictures (van den Oord et al. 2018).

    The error is the cross-entropy of finding a picture among all, as a share of that of a uniform answer.
    """
    model = mlp(64, 64, 32)

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        one, other = (F.normalize(model(noisy(x)), dim=1) for _ in range(2))
        return F.cross_entropy(one @ other.T / 0.1, torch.arange(len(x)))

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, epochs=6)
    return float(loss(model, X_VAL, Y_VAL).detach()) / math.log(len(X_VAL))


@sound(KIND, 0.1)
def contrastive_without_self(watch: Watch) -> float:
    """Both views of all pictures among each other, where none is compared with itself (Chen et al. 2020)."""
    model = nn.Sequential(*mlp(64, 64, 32), nn.ReLU(), nn.Linear(32, 16))

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        z = F.normalize(model(torch.cat([noisy(x, 0.2), noisy(x, 0.2)])), dim=1)
        itself = torch.eye(len(z), dtype=torch.bool)
        partner = torch.arange(len(z)).roll(len(x))
        return F.cross_entropy((z @ z.T / 0.2).masked_fill(itself, -torch.inf), partner)

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss)
    return unmatched(model(X_VAL), model(noisy(X_VAL)))


@sound(KIND, 0.2)
def own_targets(watch: Watch) -> float:
    """The targets are given by a slow copy of the network, without negatives (Grill et al. 2020).

    The error is how far the prediction is from the target of its picture, as a share of how far from that of another.
    """
    online, predictor = mlp(64, 64, 32), mlp(32, 32, 32)
    target = copy.deepcopy(online).requires_grad_(False)
    model = nn.ModuleDict({"online": online, "predictor": predictor})

    def loss(_model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = target(noisy(x))
        return 2 - 2 * F.cosine_similarity(predictor(online(noisy(x))), wanted).mean()

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, after=lambda: follow(target, online, 0.01))
    return kept_apart(predictor(online(noisy(X_VAL))), target(noisy(X_VAL)))


@sound(KIND, 0.6)
def centred_teacher(watch: Watch) -> float:
    """A student follows the sharpened and centred outputs of a slow copy of itself (Caron et al. 2021).

    The error is its cross-entropy as a share of that of an answer that is the same for all pictures.
    """
    student = mlp(64, 64, 16)
    teacher = copy.deepcopy(student).requires_grad_(False)
    centre = torch.zeros(16)

    def taught(x: Tensor) -> tuple[Tensor, Tensor]:
        """What is taught about one view, and what the student says of another."""
        logits = teacher(noisy(x))
        wanted, answered = F.softmax((logits - centre) / 0.04, 1), F.log_softmax(student(noisy(x)) / 0.1, 1)
        centre.lerp_(logits.mean(0), 0.1)
        return wanted, answered

    def loss(_model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        wanted, answered = taught(x)
        return -(wanted * answered).sum(1).mean()

    epochs_of(watch, student, AdamW(student.parameters(), 1e-3), loss, after=lambda: follow(teacher, student, 0.004))
    with torch.no_grad():
        wanted, answered = taught(X_VAL)
    same_for_all = wanted.mean(0)
    return float((wanted * answered).sum(1).mean() / torch.xlogy(same_for_all, same_for_all).sum())


@sound(KIND, 0.1)
def triplets(watch: Watch) -> float:
    """A digit is to be nearer to one of its class than to one of another, by a margin (Schroff et al. 2015)."""
    model = mlp(64, 64, 16)

    def drawn(x: Tensor, y: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of anchors, and of what is to be near and far, the representations."""
        classes = torch.randint(10, (number,))
        others = (classes + torch.randint(1, 10, (number,))) % 10
        anchors, near, far = (
            model(x[torch.multinomial((y == wanted[:, None]).double(), 1).squeeze(1)])
            for wanted in (classes, classes, others)
        )
        return anchors, near, far

    def loss(_: int) -> Tensor:
        return F.triplet_margin_loss(*drawn(X, Y, 32), margin=1.0)

    updates(watch, model, Adam(model.parameters(), 1e-3), 400, loss)
    anchors, near, far = drawn(X_VAL, Y_VAL, 1000)
    return float(((anchors - near).norm(dim=1) >= (anchors - far).norm(dim=1)).double().mean())


class TwoEncoders(nn.Module):  # type: ignore[misc]
    """Cosines between pictures and noisy descriptions, over a learned temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures, self.descriptions = mlp(64, 64, 16), mlp(10, 32, 16)
        self.log_scale = nn.Parameter(torch.tensor(2.6))

    def forward(self, x: Tensor, described: Tensor) -> Tensor:
        pictures, descriptions = self.pictures(x), self.descriptions(described)
        return F.normalize(pictures, dim=1) @ F.normalize(descriptions, dim=1).T * self.log_scale.exp()


@sound(KIND, 0.1)
def two_encoders(watch: Watch) -> float:
    """Pictures and descriptions find each other in a batch (Radford et al. 2021), in which classes come repeatedly.

    The error is the share of digits that match the description of another class better.
    """
    model = TwoEncoders()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        scores = model(x, noisy(F.one_hot(y, 10).float()))
        same = torch.arange(len(x))
        return (F.cross_entropy(scores, same) + F.cross_entropy(scores.T, same)) / 2

    epochs_of(watch, model, AdamW(model.parameters(), 2e-3), loss)
    return float((model(X_VAL, torch.eye(10)).argmax(1) != Y_VAL).double().mean())


class Factors(nn.Module):  # type: ignore[misc]
    """Inner products of what is learned for each user and each item, and a bias for each item."""

    def __init__(self, users: int, items: int) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(users, 16), nn.Embedding(items, 16)
        self.biases = nn.Embedding(items, 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return (self.users(users) * self.items(items)).sum(1) + self.biases(items).squeeze(1)


@sound(KIND, 0.15)
def ratings(watch: Watch) -> float:
    """Ratings that users give to items. The error is the share of their variance that is unexplained."""
    tastes, traits = torch.randn(200, 4), torch.randn(300, 4)
    model = Factors(200, 300)

    def rated(number: int = 256) -> tuple[Tensor, Tensor, Tensor]:
        users, items = torch.randint(200, (number,)), torch.randint(300, (number,))
        return users, items, noisy((tastes[users] * traits[items]).sum(1) / 2)

    def loss(_: int) -> Tensor:
        users, items, stars = rated()
        return F.mse_loss(model(users, items), stars)

    updates(watch, model, Adam(model.parameters(), 1e-2), 1500, loss)
    users, items, stars = rated(4096)
    return unexplained(model(users, items), stars)


class Preferences(nn.Module):  # type: ignore[misc]
    """Inner products of users and items, which start small."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(100, 16), nn.Embedding(200, 16)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return (self.users(users) * self.items(items)).sum(1)


@sound(KIND, 0.1)
def ranked_pairs(watch: Watch) -> float:
    """What a user likes is to come before items drawn at random, some of which are liked too (Rendle et al. 2009)."""
    model = Preferences()

    def drawn(number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Users, for each an item that is liked, and one from anywhere."""
        users = torch.randint(100, (number,))
        return users, users % 10 * 20 + torch.randint(20, (number,)), torch.randint(200, (number,))

    def loss(_: int) -> Tensor:
        users, liked, drawn_items = drawn(128)
        return -F.logsigmoid(model(users, liked) - model(users, drawn_items)).mean()

    updates(watch, model, Adam(model.parameters(), 5e-3), 600, loss)
    users, liked, items = drawn(4096)
    unliked = items // 20 != users % 10
    return float((model(users, liked) <= model(users, items))[unliked].double().mean())


class WordVectors(nn.Module):  # type: ignore[misc]
    """Scores of contexts for words, from two tables whose gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.contexts = (nn.Embedding(100, 16, sparse=True) for _ in range(2))
        nn.init.uniform_(self.words.weight, -0.03, 0.03)
        nn.init.zeros_(self.contexts.weight)

    def forward(self, words: Tensor, contexts: Tensor) -> Tensor:
        return torch.einsum("bd,bkd->bk", self.words(words), self.contexts(contexts))


@sound(KIND, 0.15)
def word_vectors(watch: Watch) -> float:
    """Skip-grams with negative sampling (Mikolov et al. 2013): words come in ten groups, and one table starts at 0.

    The error is the share of contexts from other groups that score no lower than one from the word's own group.
    """
    model = WordVectors()
    targets = F.one_hot(torch.zeros(64, dtype=torch.long), 6).float()

    def spoken() -> tuple[Tensor, Tensor]:
        """Words, and for each a context of its group with five contexts from anywhere."""
        words = torch.randint(100, (64,))
        near = words // 10 * 10 + torch.randint(10, (64,))
        return words, torch.cat([near[:, None], torch.randint(100, (64, 5))], 1)

    def loss(_: int) -> Tensor:
        return F.binary_cross_entropy_with_logits(model(*spoken()), targets)

    updates(watch, model, torch.optim.SparseAdam(list(model.parameters()), 1e-2), 600, loss)
    words, contexts = spoken()
    scores = model(words, contexts)
    foreign = contexts // 10 != words[:, None] // 10
    return float((scores >= scores[:, :1])[foreign].double().mean())
