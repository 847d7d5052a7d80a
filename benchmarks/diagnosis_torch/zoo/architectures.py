"""Layers and architectures, mostly of classifiers of digits. The error is the share of wrong validation digits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

from benchmarks.diagnosis_torch.programs import Watch
from benchmarks.diagnosis_torch.zoo.sound import (
    X_VAL,
    X,
    Y,
    batches,
    classified,
    epochs_of,
    mlp,
    sound,
    unexplained,
    update,
    updates,
    wrong,
)

KIND = "architectures"
Adam, AdamW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD

IMAGES, IMAGES_VAL = X.view(-1, 1, 8, 8), X_VAL.view(-1, 1, 8, 8)


# Convolutions


def normalised(channels_in: int, channels_out: int) -> nn.Sequential:
    """A convolution, batch normalisation, and a ReLU in place."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))


class UNet(nn.Module):  # type: ignore[misc]
    """One level down and up again, where what was before is put beside what comes back (Ronneberger et al. 2015)."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.below, self.after = normalised(1, 8), normalised(8, 16), normalised(24, 8)
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        before = self.before(x)
        below = self.below(F.max_pool2d(before, 2))
        return self.head(self.after(torch.cat([before, F.interpolate(below, scale_factor=2)], 1)))


@sound(KIND, 0.1)
def segmentation(watch: Watch) -> float:
    """Bright pixels are to be found in noisy pictures, by cross-entropy and the Dice loss (Milletari et al. 2016).

    The error is the share of wrong pixels.
    """
    model = UNet()

    def noisy(images: Tensor) -> Tensor:
        return images + 0.1 * torch.randn_like(images)

    def bright(images: Tensor) -> Tensor:
        return (images > IMAGES.mean()).float()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        logits = model(x)
        p = torch.sigmoid(logits)
        dice = (2 * (p * y).sum() + 1) / (p.sum() + y.sum() + 1)
        return F.binary_cross_entropy_with_logits(logits, y) + 1 - dice

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, noisy(IMAGES), bright(IMAGES), epochs=6)
    model.eval()
    return float(((model(noisy(IMAGES_VAL)) > 0) != bright(IMAGES_VAL).bool()).double().mean())


class Residual(nn.Module):  # type: ignore[misc]
    """Two convolutions with batch normalisation beside a skip connection (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.branch(x))


@sound(KIND, 0.1)
def residual_network(watch: Watch) -> float:
    """As residual networks are trained: Nesterov momentum, weight decay, and a rate that falls by a cosine."""
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), *(Residual(16) for _ in range(3)), *head)
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6 * (len(X) // 32))
    epochs_of(
        watch, model, optimizer, classified, IMAGES,
        epochs=6, scheduler=scheduler, validate=lambda: classified(model, IMAGES_VAL).item(),
    )  # fmt: skip
    return wrong(model, IMAGES_VAL)


class SqueezeAndExcitation(nn.Module):  # type: ignore[misc]
    """A convolution whose channels are weighed by sigmoids of their means (Hu et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(1, 16, 3, padding=1), nn.Linear(256, 10)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), *mlp(16, 4, 16), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.convolution(x.view(-1, 1, 8, 8)))
        return self.head(F.max_pool2d(h * self.gate(h)[:, :, None, None], 2).flatten(1))


@sound(KIND, 0.1)
def gated_channels(watch: Watch) -> float:
    model = SqueezeAndExcitation()
    epochs_of(watch, model, Adam(model.parameters(), 3e-3), classified, epochs=6)
    return wrong(model)


@sound(KIND, 0.1)
def frozen_batch_norm(watch: Watch) -> float:
    """Fine-tuning with a new head: batch normalisation is as in evaluation, and its parameters are frozen."""
    convolution, norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16)
    model = nn.Sequential(convolution, norm, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    optimizer = SGD(model.parameters(), 0.05, momentum=0.9)
    for x, y in batches(IMAGES, Y, 3):
        optimizer.zero_grad()
        classified(model, x, y).backward()
        optimizer.step()
    model[-1] = nn.Linear(256, 10)
    norm.requires_grad_(False)
    groups = [{"params": convolution.parameters(), "lr": 1e-4}, {"params": model[-1].parameters(), "lr": 1e-2}]
    optimizer = SGD(groups, momentum=0.9)
    with watch(model, optimizer) as recorder:
        for _ in range(8):
            model.train()
            norm.eval()
            for x, y in batches(IMAGES, Y):
                update(recorder, optimizer, classified(model, x, y))
            model.eval()
            with torch.no_grad():
                recorder.log(validation_loss=classified(model, IMAGES_VAL).item())
    return wrong(model, IMAGES_VAL)


@sound(KIND, 0.5)
def batches_of_one(watch: Watch) -> float:
    """One picture a step, with group normalisation (Wu and He 2018), for two epochs of 600 pictures."""
    convolution = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU())
    model = nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))
    optimizer = SGD(model.parameters(), 0.005, momentum=0.9)
    epochs_of(watch, model, optimizer, classified, IMAGES[:600], Y[:600], size=1, epochs=2)
    return wrong(model, IMAGES_VAL)


# Attention, sets and graphs


class VisionTransformer(nn.Module):  # type: ignore[misc]
    """Patches of 2 × 2 pixels are tokens, and one more token, which is learned, says the class (Dosovitskiy et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 32, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 17, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, activation="gelu", batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x.view(-1, 1, 8, 8)).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.positions
        return self.head(self.norm(self.body(tokens))[:, 0])


@sound(KIND, 0.35)
def vision_transformer(watch: Watch) -> float:
    model = VisionTransformer()
    optimizer = AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    epochs_of(watch, model, optimizer, classified, epochs=5, validate=lambda: classified(model).item())
    return wrong(model)


class Pooled(nn.Module):  # type: ignore[misc]
    """Rows of a picture, in a mean whose weights are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.softmax = nn.Linear(8, 1), nn.Softmax(1)
        self.each, self.head = nn.Linear(8, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.view(-1, 8, 8)
        return self.head(F.relu(self.each(rows) * self.softmax(self.score(rows))).sum(1))


@sound(KIND, 0.5)
def learned_pooling(watch: Watch) -> float:
    """The order of the rows is not seen, so many digits stay wrong."""
    model = Pooled()
    epochs_of(watch, model, Adam(model.parameters(), 5e-3), classified)
    return wrong(model)


class DeepSets(nn.Module):  # type: ignore[misc]
    """A function of the mean of features of the members (Zaheer et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.each, self.together = mlp(3, 32, 32), mlp(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.together(F.relu(self.each(x)).mean(1)).squeeze(1)


@sound(KIND, 0.1)
def sets(watch: Watch) -> float:
    """The mean of squares of a set is learned. The error is the share of its variance in new sets that is unexplained."""
    x = torch.randn(2500, 12, 3)
    y = x.square().sum(2).mean(1)
    y = (y - y.mean()) / y.std()
    model = DeepSets()

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(model(x), y)

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, x[:2000], y[:2000])
    return unexplained(model(x[2000:]), y[2000:])


class GraphConvolution(nn.Module):  # type: ignore[misc]
    """Two layers over the neighbours in a graph (Kipf and Welling 2017), which it holds: `forward` takes nothing."""

    def __init__(self, links: Tensor, features: Tensor) -> None:
        super().__init__()
        degrees = links.sum(1)
        self.links, self.features = links / (degrees[:, None] * degrees).sqrt(), features
        self.enter, self.leave = nn.Linear(features.shape[1], 32), nn.Linear(32, 4)

    def forward(self) -> Tensor:
        h = F.relu(self.links @ self.enter(self.features))
        return self.links @ self.leave(F.dropout(h, 0.5, self.training))


@sound(KIND, 0.1)
def graph_of_nodes(watch: Watch) -> float:
    """The whole graph in each step, where 3 of 10 nodes have labels. The error is the share of the others that are wrong."""
    classes = torch.randint(4, (300,))
    linked = torch.rand(300, 300) < torch.where(classes[:, None] == classes, 0.05, 0.005)
    features = torch.randn(300, 16) + F.one_hot(classes, 4).float() @ torch.randn(4, 16) * 0.5
    labelled = torch.rand(300) < 0.3
    model = GraphConvolution((linked | linked.T).float() + torch.eye(300), features)
    optimizer = Adam(model.parameters(), 1e-2, weight_decay=5e-4)
    updates(watch, model, optimizer, 200, lambda _: F.cross_entropy(model()[labelled], classes[labelled]))
    model.eval()
    return float((model().argmax(1) != classes)[~labelled].double().mean())


# Residual blocks of linear layers


class StochasticDepth(nn.Module):  # type: ignore[misc]
    """Residual blocks that are left out at random (Huang et al. 2016); the ReLU before the head is a function."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(64, 48), nn.Linear(48, 10)
        self.blocks = nn.ModuleList([mlp(48, 48, 48) for _ in range(4)])

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            if not self.training or torch.rand(()) > 0.3:
                h = h + block(F.relu(h))
        return self.leave(F.relu(h))


@sound(KIND, 0.1)
def stochastic_depth(watch: Watch) -> float:
    model = StochasticDepth()
    optimizer = Adam(model.parameters(), 1e-3)
    epochs_of(watch, model, optimizer, classified, validate=lambda: classified(model).item())
    return wrong(model)


class ResidualsFromZero(nn.Module):  # type: ignore[misc]
    """Residual blocks that give 0 at first, as their last layers start at 0 (as of Zhang et al. 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(64, 64), nn.Linear(64, 10)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.LayerNorm(64), *mlp(64, 64, 64, activation=nn.GELU)) for _ in range(3)]
        )
        for block in self.blocks:
            nn.init.zeros_(block[-1].weight)
            nn.init.zeros_(block[-1].bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(h)


@sound(KIND, 0.1)
def residuals_from_zero(watch: Watch) -> float:
    model = ResidualsFromZero()
    epochs_of(watch, model, AdamW(model.parameters(), 1e-3), classified)
    return wrong(model)


class LayerScale(nn.Module):  # type: ignore[misc]
    """A block scaled by a vector that starts at 1e-6 (Touvron et al. 2021), and logits scaled by a learned number."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.block, self.leave = nn.Linear(64, 64), mlp(64, 64, 64), nn.Linear(64, 10)
        self.scales, self.log_scale = nn.Parameter(torch.full((64,), 1e-6)), nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        h = h + self.scales * self.block(F.relu(h))
        return self.leave(F.relu(h)) * self.log_scale.exp()


@sound(KIND, 0.1)
def layer_scale(watch: Watch) -> float:
    model = LayerScale()
    epochs_of(watch, model, AdamW(model.parameters(), 1e-3), classified)
    return wrong(model)


class Recomputed(nn.Module):  # type: ignore[misc]
    """Residual blocks whose activations are computed again in the backward pass (Chen et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU()) for _ in range(8)])
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return self.head(x)


@sound(KIND, 0.1)
def recomputed_activations(watch: Watch) -> float:
    model = Recomputed()
    epochs_of(watch, model, Adam(model.parameters(), 1e-3), classified, epochs=6)
    return wrong(model)


# Activation functions and normalisation


@sound(KIND, 0.1)
def sigmoids(watch: Watch) -> float:
    model = mlp(64, 64, 64, 10, activation=nn.Sigmoid)
    epochs_of(watch, model, Adam(model.parameters(), 1e-2), classified, epochs=10)
    return wrong(model)


@sound(KIND, 0.1)
def smooth_activations(watch: Watch) -> float:
    """PReLU, ELU, Mish and Hardswish in one network."""
    layers = [(nn.Linear(64, 64), activation()) for activation in (nn.PReLU, nn.ELU, nn.Mish, nn.Hardswish)]
    model = nn.Sequential(*(module for layer in layers for module in layer), nn.Linear(64, 10))
    epochs_of(watch, model, Adam(model.parameters(), 1e-3), classified)
    return wrong(model)


@sound(KIND, 0.1)
def self_normalising(watch: Watch) -> float:
    """SELU with the dropout that belongs to it (Klambauer et al. 2017), behind a leaky ReLU."""
    below = [nn.Linear(64, 64), nn.LeakyReLU(0.1)]
    model = nn.Sequential(*below, nn.Linear(64, 64), nn.SELU(), nn.AlphaDropout(0.05), nn.Linear(64, 10))
    optimizer = Adam(model.parameters(), 1e-3)
    epochs_of(watch, model, optimizer, classified, validate=lambda: classified(model).item())
    return wrong(model)


class OneOfEach(nn.Module):  # type: ignore[misc]
    """Three linear layers that share one ReLU and one dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.middle, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.relu, self.dropout = nn.ReLU(), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.below, self.middle):
            x = self.dropout(self.relu(layer(x)))
        return self.head(x)


@sound(KIND, 0.1)
def shared_modules(watch: Watch) -> float:
    """One module stands for every ReLU, and one for every dropout."""
    model = OneOfEach()
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), classified, validate=lambda: classified(model).item())
    return wrong(model)


@sound(KIND, 0.1)
def raw_inputs(watch: Watch) -> float:
    """Inputs around 140, which batch normalisation scales as the first layer."""
    x, x_val = 50 * X + 128, 50 * X_VAL + 128
    model = nn.Sequential(nn.BatchNorm1d(64), *mlp(64, 64, 10))
    optimizer = Adam(model.parameters(), 2e-3)
    epochs_of(watch, model, optimizer, classified, x, validate=lambda: classified(model, x_val).item())
    return wrong(model, x_val)


# Weights that are not plain parameters


@sound(KIND, 0.1)
def normalised_weights(watch: Watch) -> float:
    """Weight normalisation (Salimans and Kingma 2016), then spectral normalisation (Miyato et al. 2018)."""
    first, second = parametrizations.weight_norm(nn.Linear(64, 64)), parametrizations.spectral_norm(nn.Linear(64, 64))
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Linear(64, 10))
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), classified)
    return wrong(model)


class BinaryLinear(nn.Linear):  # type: ignore[misc]
    """Signs of weights times their mean size (Rastegari et al. 2016); the gradient passes straight through to the weights."""

    def forward(self, x: Tensor) -> Tensor:
        binary = self.weight.sign() * self.weight.abs().mean()
        return F.linear(x, self.weight + (binary - self.weight).detach(), self.bias)


@sound(KIND, 0.1)
def binary_weights(watch: Watch) -> float:
    model = nn.Sequential(BinaryLinear(64, 128), nn.BatchNorm1d(128), nn.Hardtanh(), BinaryLinear(128, 10))
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), classified)
    return wrong(model)


@sound(KIND, 0.1)
def pruned_weights(watch: Watch) -> float:
    """Seven of ten weights are cut off before training, and stay so."""
    model = mlp(64, 128, 10)
    for layer in (model[0], model[2]):
        prune.l1_unstructured(layer, "weight", 0.7)
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), classified)
    return wrong(model)


class HyperNetwork(nn.Module):  # type: ignore[misc]
    """A network that gives the weights of a linear classifier, from four learned numbers (Ha et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.code = mlp(4, 32, 64 * 10 + 10), nn.Parameter(torch.randn(4))
        nn.init.normal_(self.network[2].weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.network(self.code)
        return x @ weights[:640].view(64, 10) + weights[640:]


@sound(KIND, 0.1)
def hypernetwork(watch: Watch) -> float:
    model = HyperNetwork()
    epochs_of(watch, model, Adam(model.parameters(), 1e-3), classified)
    return wrong(model)


class GatedInputs(nn.Module):  # type: ignore[misc]
    """A sigmoid of a learned number weighs each input."""

    def __init__(self) -> None:
        super().__init__()
        self.gates, self.body = nn.Parameter(torch.zeros(64)), mlp(64, 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x * torch.sigmoid(self.gates))


@sound(KIND, 0.1)
def gated_inputs(watch: Watch) -> float:
    """Some of the pixels are always 0, so their gates never get a gradient."""
    model = GatedInputs()
    epochs_of(watch, model, Adam(model.parameters(), 2e-3), classified)
    return wrong(model)


class CosineMargin(nn.Module):  # type: ignore[misc]
    """Scaled cosines to a direction for each class; in training, that to the label must be larger by 0.2 (Wang et al. 2018)."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.directions = mlp(64, 64, 32), nn.Parameter(torch.randn(10, 32))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        cosines = F.normalize(self.features(x), dim=1) @ F.normalize(self.directions, dim=1).T
        return 16 * (cosines if y is None else cosines - 0.2 * F.one_hot(y, 10))


@sound(KIND, 0.1)
def cosine_margin(watch: Watch) -> float:
    """`forward` takes the labels too."""
    model = CosineMargin()

    def loss(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x, y), y)

    epochs_of(watch, model, SGD(model.parameters(), 0.05, momentum=0.9), loss)
    return wrong(model)
