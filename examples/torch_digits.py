"""PyTorch: a small convolutional network reads digits, watched in one line and judged at the end.

`every=1` keeps the clock out of it, so that this prints the same every time; without, nndiag reads as often as its budget
of 2 % of the training time allows.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nndiag
from nndiag.datasets import digits


def loaders(seed: int = 0) -> tuple[DataLoader, TensorDataset]:
    """Batches of 8 × 8 images and their digits, and the held-out rest."""
    x, y, x_val, y_val = (torch.from_numpy(np.asarray(part)) for part in digits())
    train = TensorDataset(x.float().reshape(-1, 1, 8, 8), y.long())
    held_out = TensorDataset(x_val.float().reshape(-1, 1, 8, 8), y_val.long())
    order = torch.Generator().manual_seed(seed)
    return DataLoader(train, batch_size=64, shuffle=True, generator=order), held_out


def network() -> nn.Module:
    """Two convolutions and two linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", help="folder to record into; in memory without")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    loader, held_out = loaders()
    model, loss_fn = network(), nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    with nndiag.watch(model, optimizer, run=options.run, every=1) as recorder:
        for epoch in range(8):
            recorder.log(epoch=epoch)
            model.train()
            for x, y in loader:
                loss = loss_fn(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                x, y = held_out.tensors
                outputs = model(x)
                right = (outputs.argmax(1) == y).float().mean()
                recorder.log(validation_loss=loss_fn(outputs, y), validation_accuracy=right)
    print(recorder.check())


if __name__ == "__main__":
    main()
