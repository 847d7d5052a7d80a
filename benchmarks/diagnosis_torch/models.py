# mypy: disallow-subclassing-any=False
"""The networks of the programs, written as people write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.diagnosis_torch.data import LETTERS


class Net(nn.Module):
    """`features` of the inputs, and a `head` that makes the outputs of them."""

    head: nn.Module

    def features(self, x: Tensor) -> Tensor:
        """What goes into the head."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Outputs."""
        return self.head(self.features(x))


def mlp(sizes: list[int], activation: Callable[[], nn.Module] = nn.ReLU,
        between: Callable[[int], list[nn.Module]] = lambda width: []) -> nn.Sequential:  # fmt: skip
    """Linear layers of these sizes, each but the last followed by what `between` gives for its width and an activation."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes[:-1]):
        layers += [nn.Linear(inputs, outputs), *between(outputs), activation()]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


class ConvNet(Net):
    """Two convolutions, with batch norm or without."""

    def __init__(self, classes: int = 10, norm: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16) if norm else nn.Identity(),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32) if norm else nn.Identity(),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
        )
        self.head = nn.Linear(128, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)


class DropoutNet(Net):
    """The network of many tutorials: fc1, dropout, fc2, dropout, fc3."""

    def __init__(self, dropout: float = 0.4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 96)
        self.fc2 = nn.Linear(96, 96)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(96, 10)

    def features(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.fc1(x.flatten(1))))
        return self.dropout(F.relu(self.fc2(x)))


class AlwaysDropoutNet(DropoutNet):
    """The same with functional dropout, which does not know of evaluation unless it is told."""

    def features(self, x: Tensor) -> Tensor:
        x = F.dropout(F.relu(self.fc1(x.flatten(1))), 0.4)
        return F.dropout(F.relu(self.fc2(x)), 0.4)


class ListNet(Net):
    """Keeps its hidden layers in a list, where PyTorch does not find them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(64, 96), nn.Linear(96, 96)]
        self.head = nn.Linear(96, 10)

    def features(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers:
            x = F.relu(layer(x))
        return x


class LogSoftmaxNet(Net):
    """Ends in log_softmax, for nll_loss, as the MNIST example of PyTorch does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 64)
        self.fc2 = nn.Linear(64, 64)
        self.head = nn.Linear(64, 10)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.fc2(F.relu(self.fc1(x.flatten(1)))))

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(super().forward(x), dim=1)


class Residual(nn.Module):
    """x + two linear layers; `skip` says whether x is added."""

    def __init__(self, width: int, skip: bool = True) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width) if skip else nn.Identity()
        self.fc1 = nn.Linear(width, width)
        self.fc2 = nn.Linear(width, width)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        out = self.fc2(F.relu(self.fc1(self.norm(x))))
        return x + out if self.skip else F.relu(out)


class ResidualNet(Net):
    """Blocks of linear layers with skip connections and functional ReLUs."""

    def __init__(self, blocks: int = 4, skip: bool = True) -> None:
        super().__init__()
        self.stem = nn.Linear(64, 48)
        self.blocks = nn.ModuleList(Residual(48, skip) for _ in range(blocks))
        self.head = nn.Linear(48, 10)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x.flatten(1)))
        for block in self.blocks:
            x = block(x)
        return x


class WaveNet(Net):
    """A recurrent network of which the last hidden state is read."""

    def __init__(self, cell: Callable[..., nn.Module] = nn.LSTM, outputs: int = 4, **settings: str) -> None:
        super().__init__()
        self.rnn = cell(1, 32, batch_first=True, **settings)
        self.head = nn.Linear(32, outputs)

    def features(self, x: Tensor) -> Tensor:
        out, _ = self.rnn(x)
        return out[:, -1]


class ReluEchoNet(WaveNet):
    """A recurrent network of ReLUs whose recurrent weights begin at `gain` times the identity."""

    def __init__(self, gain: float) -> None:
        super().__init__(nn.RNN, 1, nonlinearity="relu")
        with torch.no_grad():
            self.rnn.weight_hh_l0.copy_(gain * torch.eye(32))


class Tagger(Net):
    """A tag for every word: embedding, bidirectional LSTM, linear layer."""

    def __init__(self, words: int = 31, tags: int = 5) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 16, padding_idx=0)
        self.lstm = nn.LSTM(16, 24, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, tags)

    def features(self, x: Tensor) -> Tensor:
        out, _ = self.lstm(self.embedding(x))
        return out


class ReviewNet(Net):
    """A transformer encoder of which the mean over the words is read, with a mask for what is filled up."""

    def __init__(self, words: int = 61, classes: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 32, padding_idx=0)
        self.position = nn.Parameter(0.02 * torch.randn(16, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, classes)

    def features(self, x: Tensor) -> Tensor:
        padding = x == 0
        out = self.encoder(self.embedding(x) + self.position, src_key_padding_mask=padding)
        return (out * ~padding[:, :, None]).sum(1) / (~padding).sum(1, keepdim=True)


class Block(nn.Module):
    """A block of a transformer that looks back alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        h = self.norm1(x)
        x = x + self.attention(h, h, h, attn_mask=ahead, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class LanguageModel(Net):
    """The next letter from the letters before it."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS), width)
        self.positions = nn.Embedding(24, width)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, len(LETTERS), bias=False)

    def features(self, x: Tensor) -> Tensor:
        h = self.letters(x) + self.positions(torch.arange(x.shape[1]))
        return self.norm(self.blocks(h))


class BagOfWords(Net):
    """The mean of the embeddings of the words, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(61, 32, mode="mean")
        self.fc = nn.Linear(32, 32)
        self.head = nn.Linear(32, 4)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.fc(self.embedding(x)))


class Autoencoder(nn.Module):
    """Down to 10 numbers and up again, to pixels between 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mlp([64, 48, 10])
        self.decoder = nn.Sequential(*mlp([10, 48, 64]), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class VariationalAutoencoder(nn.Module):
    """Gives pixels, and mean and log variance of the code."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 48)
        self.mean = nn.Linear(48, 8)
        self.log_variance = nn.Linear(48, 8)
        self.fc3 = nn.Linear(8, 48)
        self.fc4 = nn.Linear(48, 64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = F.relu(self.fc1(x))
        mean, log_variance = self.mean(h), self.log_variance(h)
        noise = torch.randn_like(mean) if self.training else torch.zeros_like(mean)
        code = mean + noise * torch.exp(0.5 * log_variance)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(code)))), mean, log_variance


class Siamese(Net):
    """One encoder for both images; the head looks at their difference."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = mlp([64, 64, 24])
        self.head = nn.Linear(24, 1)

    def features(self, x: Tensor) -> Tensor:
        return torch.abs(self.encoder(x[:, 0]) - self.encoder(x[:, 1]))


class Factorisation(nn.Module):
    """The rating is the product of a user's and an item's embedding, and a bias for each."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(50, 8), nn.Embedding(60, 8)
        self.user_bias, self.item_bias = nn.Embedding(50, 1), nn.Embedding(60, 1)
        for embedding in (self.users, self.items, self.user_bias, self.item_bias):
            nn.init.normal_(embedding.weight, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        user, item = x[:, 0], x[:, 1]
        product = (self.users(user) * self.items(item)).sum(1)
        return product + self.user_bias(user).squeeze(1) + self.item_bias(item).squeeze(1)


class Segmenter(Net):
    """A logit for every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.GroupNorm(3, 12)
        self.conv2 = nn.Conv2d(12, 12, 3, padding=1)
        self.head = nn.Conv2d(12, 1, 1)

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.conv2(F.relu(self.norm(self.conv1(x)))))


class RootSiamese(Siamese):
    """The difference as the root of its square, whose gradient at 0 is not defined."""

    def features(self, x: Tensor) -> Tensor:
        return torch.sqrt((self.encoder(x[:, 0]) - self.encoder(x[:, 1])) ** 2)


def weighted(model: nn.Module) -> Iterator[nn.Module]:
    """The linear and convolutional layers, in their order."""
    return (layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d))
