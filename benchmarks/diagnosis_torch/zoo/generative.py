"""Generators, autoencoders and densities. The error is the share of the variance of each pixel that a reconstruction leaves."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis_torch.programs import Watch
from benchmarks.diagnosis_torch.zoo.sound import X_VAL, X, Y, batches, epochs_of, mlp, sound, unexplained, update, wrong

KIND = "generative"
Adam = torch.optim.Adam


def lost(reconstruction: Tensor, images: Tensor = X_VAL) -> float:
    """Share of the variance of the pixels, each about its mean, that `reconstruction` leaves; 1 is the mean image."""
    return float((reconstruction.detach() - images).square().mean() / images.var(0).mean())


@sound(KIND, 0.8)
def autoencoder(watch: Watch) -> float:
    """Eight numbers at the narrowest, and a sigmoid before the binary cross-entropy with grey pixels."""
    model = nn.Sequential(*mlp(64, 32, 8), nn.ReLU(), *mlp(8, 32, 64), nn.Sigmoid())

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        return F.binary_cross_entropy(model(x), x)

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, epochs=15)
    return lost(model(X_VAL))


@sound(KIND, 0.7)
def autoencoder_with_tanh(watch: Watch) -> float:
    """Pixels from -1 to 1, most of them at -1, where the tanh at the end saturates."""
    model = nn.Sequential(*mlp(64, 32, 8), nn.ReLU(), *mlp(8, 32, 64), nn.Tanh())

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        return F.mse_loss(model(x), x)

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, 2 * X - 1, epochs=15)
    return lost(model(2 * X_VAL - 1), 2 * X_VAL - 1)


class VariationalAutoencoder(nn.Module):  # type: ignore[misc]
    """Draws of normal distributions in eight dimensions, decoded into logits of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp(64, 64, 16), mlp(8, 64, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        means, logs = self.encoder(x).chunk(2, 1)
        return self.decoder(means + torch.randn_like(means) * (logs / 2).exp()), means, logs


@sound(KIND, 0.9)
def annealed_variational_autoencoder(watch: Watch) -> float:
    """Kingma and Welling 2014, where the divergence counts more with each of the first 300 steps (Bowman et al. 2016).

    What is reconstructed is the mean, without noise.
    """
    model = VariationalAutoencoder()
    step = 0

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        nonlocal step
        step += 1
        logits, means, logs = model(x)
        reconstruction = F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        divergence = -0.5 * (1 + logs - means * means - logs.exp()).sum(1)
        return (reconstruction + min(1, step / 300) * divergence).mean()

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, epochs=15)
    means, _ = model.encoder(X_VAL).chunk(2, 1)
    return lost(torch.sigmoid(model.decoder(means)))


class Quantized(nn.Module):  # type: ignore[misc]
    """Each image becomes the nearest of 32 learned codes; gradients pass by that choice as though it were not there."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.codes, self.decoder = mlp(64, 64, 16), nn.Embedding(32, 16), mlp(16, 64, 64)
        nn.init.uniform_(self.codes.weight, -1 / 32, 1 / 32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        code = self.codes(torch.cdist(z, self.codes.weight).argmin(1))
        commitment = F.mse_loss(code, z.detach()) + 0.25 * F.mse_loss(z, code.detach())
        return self.decoder(z + (code - z).detach()), commitment


@sound(KIND, 0.9)
def quantized_autoencoder(watch: Watch) -> float:
    """Codes of a book that is learned too (van den Oord et al. 2017)."""
    model = Quantized()

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        reconstruction, commitment = model(x)
        return F.mse_loss(reconstruction, x) + commitment

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, epochs=15)
    return lost(model(X_VAL)[0])


@sound(KIND, 0.5)
def diffusion(watch: Watch) -> float:
    """Noise is to be told from images at random times (Ho et al. 2020). The error is the share of it that is not."""
    model = mlp(65, 128, 128, 64, activation=nn.SiLU)

    def noise_told(x: Tensor) -> tuple[Tensor, Tensor]:
        """The noise that the model sees in noisy images, and what there is."""
        times, noise = torch.rand(len(x), 1), torch.randn_like(x)
        noisy = torch.cos(times * math.pi / 2) * x + torch.sin(times * math.pi / 2) * noise
        return model(torch.cat([noisy, times], 1)), noise

    def loss(_model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        return F.mse_loss(*noise_told(x))

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, epochs=20)
    return unexplained(*noise_told(X_VAL))


@sound(KIND, 0.8)
def adversaries(watch: Watch) -> float:
    """A generator and a discriminator with an optimiser each (Goodfellow et al. 2014), where no loss is logged.

    The error is the distance of the mean of what is generated from the mean image, as a share of that of a grey image.
    """
    generator = mlp(8, 64, 64)
    discriminator = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    generating = Adam(generator.parameters(), 2e-4, betas=(0.5, 0.999))
    discriminating = Adam(discriminator.parameters(), 2e-4, betas=(0.5, 0.999))
    both = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    entropy, real, made = F.binary_cross_entropy_with_logits, torch.ones(32, 1), torch.zeros(32, 1)
    with watch(both, [generating, discriminating]):
        for x, _ in batches(X, Y, 10):
            images = generator(torch.randn(32, 8))
            loss = entropy(discriminator(x), real) + entropy(discriminator(images.detach()), made)
            discriminating.zero_grad()
            loss.backward()
            discriminating.step()
            loss = entropy(discriminator(images), real)
            generating.zero_grad()
            loss.backward()
            generating.step()
    return unexplained(generator(torch.randn(1000, 8)).mean(0), X_VAL.mean(0))


@sound(KIND, 0.1)
def critic_with_clipped_weights(watch: Watch) -> float:
    """The critic of Arjovsky et al. 2017 against noise: its loss falls below 0, and its weights end at their bounds.

    The error is the share of pairs of a digit and noise that it gets in the wrong order.
    """
    critic = mlp(64, 64, 1)
    optimizer = torch.optim.RMSprop(critic.parameters(), 5e-5)
    with watch(critic, optimizer) as recorder:
        for x, _ in batches(X, Y, 12):
            update(recorder, optimizer, critic(torch.randn(32, 64)).mean() - critic(x).mean())
            with torch.no_grad():
                for parameter in critic.parameters():
                    parameter.clamp_(-0.01, 0.01)
    return float((critic(X_VAL) <= critic(torch.randn(1000, 64)).T).double().mean())


@sound(KIND, 0.1)
def gradient_penalty(watch: Watch) -> float:
    """The gradient of the loss by its inputs is to be small (Drucker and LeCun 1992): double backward.

    The error is the share of digits that are wrong.
    """
    model = mlp(64, 64, 10)

    def loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        entropy = F.cross_entropy(model(x), y)
        (gradient,) = torch.autograd.grad(entropy, x, create_graph=True)
        return entropy + 10 * gradient.square().sum(1).mean()

    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss)
    return wrong(model)


class Couplings(nn.Module):  # type: ignore[misc]
    """Scales and shifts one of two numbers by what the other says, in turns; gives the logarithm of the scaling too."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList([mlp(1, 32, 2, activation=nn.Tanh) for _ in range(4)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved = x.split(1, 1)
        log_scaling = torch.zeros(len(x))
        for step in self.steps:
            log_scale, shift = step(kept).chunk(2, 1)
            log_scale = torch.tanh(log_scale)
            kept, moved = moved * log_scale.exp() + shift, kept
            log_scaling = log_scaling + log_scale.squeeze(1)
        return torch.cat([kept, moved], 1), log_scaling


@sound(KIND, 0.15)
def normalizing_flow(watch: Watch) -> float:
    """The density of points near a parabola by affine couplings (Dinh et al. 2017): the loss falls below 0.

    The error is the divergence from the true density, as a share of that of a normal distribution of the same variances.
    """
    model = Couplings()

    def points(number: int) -> Tensor:
        """Points of mean 0 and variance 1."""
        a = torch.randn(number, 1)
        return torch.cat([a, (a.square() - 1 + 0.1 * torch.randn(number, 1)) / math.sqrt(2.01)], 1)

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        z, log_scaling = model(x)
        return (0.5 * z.square().sum(1) - log_scaling).mean()

    epochs_of(watch, model, Adam(model.parameters(), 2e-3), loss, points(4000), torch.zeros(4000), epochs=15, size=128)
    normal, true = 1.0, 1.0 + math.log(0.1 / math.sqrt(2.01))
    return (float(loss(model, points(4000), torch.zeros(4000)).detach()) - true) / (normal - true)


@sound(KIND, 0.1)
def noise_contrast(watch: Watch) -> float:
    """A density, learned as what tells its points from noise (Gutmann and Hyvärinen 2010).

    The error is how far the loss is above that of the true densities, as a share of how far that of a guess is.
    """
    model = mlp(2, 64, 1, activation=nn.SiLU)
    spread, wide = torch.tensor([1.0, 0.2]), torch.tensor([1.5, 1.5])

    def true_logit(x: Tensor) -> Tensor:
        density, noise = (torch.distributions.Normal(0, width).log_prob(x).sum(1) for width in (spread, wide))
        return density - noise

    def contrast(logit: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return F.softplus(-logit(x)).mean() + F.softplus(logit(wide * torch.randn_like(x))).mean()

    def loss(model: nn.Module, x: Tensor, _: Tensor) -> Tensor:
        return contrast(model, x)

    points = spread * torch.randn(4000, 2)
    epochs_of(watch, model, Adam(model.parameters(), 1e-3), loss, points, torch.zeros(4000), epochs=40, size=128)
    points = spread * torch.randn(10_000, 2)
    true, guess = float(contrast(true_logit, points)), 2 * math.log(2)
    return (float(contrast(model, points).detach()) - true) / (guess - true)
