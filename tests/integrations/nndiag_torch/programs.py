"""Small PyTorch programs for the tests: models of every kind, and loops as people write them."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Blocks whose functions work in place and are added up in place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.second = nn.Linear(16, 16)
        self.relu = nn.ReLU(inplace=True)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        x = self.relu(self.first(x))
        summed = self.second(x)
        summed += x
        return self.out(self.relu(summed))


class Convolutional(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten()
        )
        self.out = nn.Linear(4 * 4 * 4, 3)

    def forward(self, x):
        return self.out(self.body(x.reshape(-1, 1, 8, 8)))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM):
        super().__init__()
        self.rnn = kind(8, 12, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        states, _ = self.rnn(x.reshape(len(x), -1, 8))
        return self.out(states[:, -1])


class Transformer(nn.Module):
    def __init__(self, dropout=0.1):
        super().__init__()
        self.embed = nn.Linear(8, 16)
        block = nn.TransformerEncoderLayer(16, 2, 32, dropout, batch_first=True)
        self.body = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(self.body(self.embed(x.reshape(len(x), -1, 8))).mean(1))


class Functional(nn.Module):
    """Activation functions that are no modules."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(8, 16)
        self.fc2 = nn.Linear(16, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.fc2(F.relu(self.fc1(x)))))


def mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))


MODELS = {
    "mlp": (mlp, 8),
    "residual": (Residual, 8),
    "convolutional": (Convolutional, 64),
    "lstm": (Recurrent, 40),
    "gru": (lambda: Recurrent(nn.GRU), 40),
    "transformer": (Transformer, 40),
    "functional": (Functional, 8),
}
"""Name → how to make the model, and the width of its inputs."""


def batches(width, count=12, size=16, seed=0, classes=3):
    """Batches of standard normal inputs and class ids."""
    random = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, width, generator=random), torch.randint(0, classes, (size,), generator=random))
        for _ in range(count)
    ]


def train(model, optimizer, data, recorder=None, loss_fn=None, evaluate=None, amp=nullcontext, clip=None):
    """The loop of the README; the losses."""
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    losses = []
    for x, y in data:
        model.train()
        with amp():
            loss = loss_fn(model(x), y)
        if recorder is not None:
            recorder.log(loss=loss)
        loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        if evaluate is not None:
            model.eval()
            with torch.no_grad():
                losses.append(loss_fn(model(evaluate[0]), evaluate[1]).item())
            if recorder is not None:
                recorder.log(validation_loss=losses[-1])
    return losses
