"""Programs from questions of users, most of them on Stack Overflow: SO-n is question n."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.optim import Adam, NAdam, RMSprop

from benchmarks.faultbench.data import classification
from benchmarks.faultbench.program import Case
from benchmarks.faultbench_torch import data
from benchmarks.faultbench_torch.data import column, digits, images, tensors, waves
from benchmarks.faultbench_torch.layers import (
    GRU,
    LSTM,
    Apply,
    HeadInForward,
    MaskedLSTM,
    Outputs,
    last,
    one_hot_cross_entropy,
    swap,
)
from benchmarks.faultbench_torch.program import Program, hold_out

Model = Callable[[], nn.Module]
SOFTMAX1 = partial(nn.Softmax, dim=1)


def conv(inputs: int, filters: int, size: int = 3, padding: int = 0, stride: int = 1) -> tuple[nn.Module, ...]:
    """A convolution and a ReLU."""
    return nn.Conv2d(inputs, filters, size, stride, padding), nn.ReLU()


def net(*layers: nn.Module | tuple[nn.Module, ...]) -> nn.Sequential:
    """The layers one after the other."""
    return nn.Sequential(*(each for layer in layers for each in (layer if isinstance(layer, tuple) else (layer,))))


def digits_net(logit_dropout: bool) -> nn.Module:
    """Four convolutions and two linear layers, with dropout on the logits or without."""
    return net(
        conv(1, 16, padding=1), conv(16, 16), nn.MaxPool2d(2), conv(16, 32, padding=1), conv(32, 32), nn.Flatten(),
        nn.Linear(32, 50), nn.ReLU(), nn.Dropout(0.5), nn.Linear(50, 10), (nn.Dropout(0.5),) if logit_dropout else (),
    )  # fmt: skip


def ten_convolutions(head: Model) -> nn.Module:
    """Ten convolutions with five poolings between them, and one unit."""
    return net(
        conv(3, 4, 5, 2), nn.MaxPool2d(2), nn.Dropout(0.5),
        conv(4, 8, padding=1), nn.MaxPool2d(2), nn.Dropout(0.5),
        conv(8, 8, padding=1), nn.Dropout(0.5), conv(8, 16, padding=1), conv(16, 16, padding=1), nn.MaxPool2d(2),
        conv(16, 32, padding=1), conv(32, 32, padding=1), nn.MaxPool2d(2),
        conv(32, 64, padding=1), conv(64, 64, padding=1), nn.MaxPool2d(2), conv(64, 128, padding=1),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(128, 1), head(),
    )  # fmt: skip


def signal_net(head: Model) -> nn.Module:
    """One convolution along a sequence, a hidden layer, and one unit."""
    return net(
        nn.Conv1d(1, 20, 4, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(600, 50), nn.ReLU(), nn.Linear(50, 1), head(),
    )  # fmt: skip


def frames_net(head: tuple[nn.Module, ...]) -> nn.Module:
    """Eight convolutions and two linear layers under nine classes."""
    return net(
        conv(3, 8, padding=1), conv(8, 8, padding=1), nn.MaxPool2d(2),
        conv(8, 8, padding=1), conv(8, 8, padding=1), nn.MaxPool2d(2),
        conv(8, 16, padding=1), conv(16, 16, padding=1), nn.MaxPool2d(2),
        conv(16, 16, padding=1), conv(16, 16, padding=1), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 9), head,
    )  # fmt: skip


def step_net(head: tuple[nn.Module, ...]) -> nn.Module:
    """An LSTM with a target at every step."""
    return net(Outputs(nn.LSTM(4, 10, batch_first=True)), nn.Linear(10, 50), nn.Tanh(), nn.Linear(50, 1), head)


def mixed_net(activation: Model) -> nn.Module:
    """Two convolutions along a sequence, and an LSTM above them."""
    return net(
        swap(), nn.Conv1d(7, 16, 3), activation(), nn.MaxPool1d(3), nn.Conv1d(16, 16, 2), activation(), swap(),
        Outputs(nn.LSTM(16, 8, batch_first=True)), last(), nn.Linear(8, 2),
    )  # fmt: skip


def padded_net(head: tuple[nn.Module, ...]) -> nn.Module:
    """Three convolutions for small pictures, and a linear layer below the head."""
    return net(
        conv(1, 8, padding=1), nn.MaxPool2d(2), conv(8, 8, padding=1), nn.MaxPool2d(2), conv(8, 16, padding=1),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Dropout(0.5), head,
    )  # fmt: skip


def normalised_net(head: tuple[nn.Module, ...]) -> nn.Module:
    """A convolution with batch normalisation after its pooling, and a linear layer."""
    return net(
        conv(1, 16), nn.MaxPool2d(2), nn.BatchNorm2d(16), nn.Dropout(0.2), nn.Flatten(),
        nn.Linear(400, 64), nn.ReLU(), nn.Linear(64, 3), head,
    )  # fmt: skip


def faces_net() -> nn.Module:
    """Four convolutions and two linear layers under seven classes."""
    return net(
        conv(1, 16), conv(16, 32, padding=1), nn.MaxPool2d(2), nn.Dropout(0.5), conv(32, 16), nn.MaxPool2d(2),
        nn.Dropout(0.5), conv(16, 16), nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 7),
    )  # fmt: skip


def lasso(model: nn.Module) -> Tensor:
    """A hundredth of the absolute weights of the first layer."""
    return 0.01 * next(model.parameters()).abs().sum()


def pictures_net(head: tuple[nn.Module, ...]) -> nn.Module:
    """Three convolutions without padding, and a linear layer below the head."""
    return net(
        conv(1, 16), nn.MaxPool2d(2), conv(16, 16), nn.MaxPool2d(2), conv(16, 16), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.5), head,
    )  # fmt: skip


def song_net(head: tuple[nn.Module, ...]) -> nn.Module:
    """Two strided convolutions along a sequence, an LSTM, and three linear layers."""
    return net(
        nn.Conv1d(1, 16, 40, stride=20), nn.ReLU(), nn.Conv1d(16, 16, 10, stride=3), nn.ReLU(), swap(),
        Outputs(nn.LSTM(16, 32, batch_first=True)), last(),
        nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1), head,
    )  # fmt: skip


def text_net(head: Model) -> nn.Module:
    """The mean of embeddings, a linear layer, and one unit."""
    return net(
        nn.Embedding(100, 24), Apply(lambda x: x.mean(1)), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1), head()
    )


def pooled_net(head: Model) -> nn.Module:
    """A convolution along 56 steps, two linear layers at each, the largest of all steps, and one unit."""
    return net(
        swap(), nn.Conv1d(56, 32, 8), nn.ReLU(), swap(), nn.Linear(32, 150), nn.ReLU(), nn.Dropout(0.6),
        nn.Linear(150, 75), nn.ReLU(), nn.Dropout(0.6), Apply(lambda x: x.amax(1)), nn.Linear(75, 1), head(),
    )  # fmt: skip


def dropped(inputs: int, filters: int, size: int) -> tuple[nn.Module, ...]:
    """A convolution with dropout before its ReLU."""
    return nn.Conv2d(inputs, filters, size), nn.Dropout(0.5), nn.ReLU()


def hotdog_net() -> nn.Module:
    """Three convolutions with dropout, no pooling, and three linear layers."""
    return net(
        dropped(1, 8, 5), dropped(8, 16, 3), dropped(16, 32, 3), nn.Flatten(), nn.Linear(2048, 60), nn.ReLU(),
        nn.Linear(60, 30), nn.Linear(30, 2),
    )  # fmt: skip


def other_hotdog_net() -> nn.Module:
    """Two convolutions, each with pooling, and two linear layers."""
    return net(
        conv(1, 16, padding=1), nn.MaxPool2d(2), conv(16, 32, padding=1), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(512, 60), nn.ReLU(), nn.Linear(60, 2),
    )  # fmt: skip


def autoencoder(activation: type[nn.Module]) -> nn.Module:
    """Sequences (10, 5) through four numbers and back."""
    return net(
        GRU(5, 8, activation), GRU(8, 4, activation), Apply(lambda x: x[:, -1:].expand(-1, 10, -1)),
        GRU(4, 4, activation), GRU(4, 8, activation), nn.Linear(8, 5),
    )  # fmt: skip


def window_net(activation: type[nn.Module]) -> nn.Module:
    """Two LSTMs and a linear layer over all their steps."""
    return net(LSTM(1, 32, activation), LSTM(32, 16, activation), nn.Flatten(), nn.Linear(160, 1))


def price_net(head: tuple[nn.Module, ...]) -> nn.Module:
    """A GRU and a linear layer."""
    return net(Outputs(nn.GRU(1, 50, batch_first=True)), last(), nn.Dropout(0.2), nn.Linear(50, 16), head)


def features() -> tuple[nn.Module, ...]:
    """A convolution, batch normalisation and pooling of digits."""
    return (*conv(1, 8, padding=1), nn.BatchNorm2d(8), nn.MaxPool2d(2), nn.Flatten())


def eeg_net(rate: float) -> nn.Module:
    """A convolution along a sequence, with dropout before its pooling and before the head."""
    return net(
        nn.Conv1d(1, 16, 5), nn.ReLU(), nn.Dropout(0.2), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(448, 50), nn.ReLU(),
        nn.Dropout(rate), nn.Linear(50, 1), nn.Sigmoid(),
    )  # fmt: skip


def painter() -> nn.Module:
    """Nine convolutions, one of them strided, from grey to colours."""
    return net(
        conv(1, 16, padding=1), conv(16, 16, padding=1, stride=2), conv(16, 32, padding=1), conv(32, 64, padding=1),
        conv(64, 32, padding=1), conv(32, 32, padding=1), conv(32, 16, padding=1), conv(16, 8, padding=1),
        nn.Conv2d(8, 2, 3, padding=1), nn.Tanh(),
    )  # fmt: skip


CASES = (
    Case(
        "SO-44755431", ("DROPOUT_MISPLACED",), "I", "classes",
        Program(digits(), lambda: digits_net(True), nn.CrossEntropyLoss(), Adam, 3, 20, hold_out(0.2)),
        {"model": lambda: digits_net(False)},
    ),  # MNIST, six convolutions, 5 epochs
    Case(
        "SO-47704695", ("OUT_SOFTMAX1", "REG_TOO_STRONG"), "I", "classes",
        Program(images(300, 3, 32, 32, classes=2, targets=column), lambda: ten_convolutions(SOFTMAX1), nn.BCELoss(),
                partial(Adam, weight_decay=0.02), 8, split=hold_out(0.2)),
        {"model": lambda: ten_convolutions(nn.Sigmoid)}, left=("REG_TOO_STRONG",),
    ),  # 500 rows of 128 × 128 pixels, four times as many filters, a sixth pooling, 10 epochs; an L2 of 0.01 is a decay of 0.02
    Case(
        "SO-51749207", ("OUT_SOFTMAX1",), "B", "classes",
        Program(tensors(classification(549, 60), 1, 60, targets=column), lambda: signal_net(SOFTMAX1), nn.BCELoss(),
                partial(NAdam, lr=0.001), 3, 8, hold_out(0.2)),
        {"model": lambda: signal_net(nn.Sigmoid)},
    ),  # 600 steps, 100 epochs
    Case(
        "SO-51901386", ("OUT_RELU_CLS",), "I", "classes",
        Program(images(100, 3, 16, 32, classes=9), lambda: frames_net((nn.ReLU(),)), nn.CrossEntropyLoss(),
                partial(Adam, lr=1e-4), 5, 24),
        {"model": lambda: frames_net(())}, unsound="25 updates at a rate of 1e-4 stay too few",
    ),  # 180 × 320 pixels, eight times as many filters and units
    Case(
        "SO-54811239", ("OUT_BOUNDED_REG", "DATA_INPUT_SCALE", "DATA_TARGET_SCALE", "EPOCHS_LOW"), "I", "real",
        Program(data.sequences_of_integers, lambda: step_net((nn.Tanh(),)), nn.MSELoss(), Adam, 5),
        {"data": data.scaled_sequences, "model": lambda: step_net(()), "epochs": 150},
    ),
    Case(
        "SO-57516678", ("DATA_UNLEARNABLE", "DATA_IMBALANCE"), "I", "classes",
        Program(data.noise_with_rare_ones, lambda: net(LSTM(16, 32, nn.ReLU), last(), nn.Linear(32, 1), nn.Sigmoid()),
                nn.BCELoss(), partial(NAdam, lr=4e-4), 1, clip=1.0),
    ),  # 672 steps, 512 units, recurrent dropout, limits on the norms of weights
    Case(
        "SO-58043002", ("ACT_SAT_HIDDEN", "LR_LOW"), "I", "classes",
        Program(tensors(classification(1000, 70), 10, 7), lambda: mixed_net(nn.Sigmoid), nn.CrossEntropyLoss(),
                partial(Adam, lr=1e-4), 10, 50),
        {"model": lambda: mixed_net(nn.ReLU), "optimizer": partial(Adam, lr=0.003)},
    ),  # 64 filters, 100 epochs
    Case(
        "SO-60874661", ("OUT_UNITS", "LOSS_TASK", "DATA_INPUT_SCALE"), "I", "classes",
        Program(data.scaled(digits(column), 255), lambda: padded_net((nn.Linear(32, 1),)), nn.BCEWithLogitsLoss(),
                partial(RMSprop, lr=0.001), 5, split=hold_out(0.2)),
        {"data": digits(), "model": lambda: padded_net((nn.Linear(32, 10),)), "loss": nn.CrossEntropyLoss()},
    ),  # CIFAR-10, four times as many filters, 20 epochs; BCELoss refuses such labels, BCEWithLogitsLoss does not
    Case(
        "SO-61886777", ("OUT_SIGMOID_MC", "OUT_DOUBLE_ACT"), "I", "classes",
        Program(images(1000, 1, 12, 12, classes=3), lambda: normalised_net((nn.Sigmoid(),)), nn.CrossEntropyLoss(),
                Adam, 5),
        {"model": lambda: normalised_net(())},
    ),  # 28 × 28 pixels, 512 units; PyTorch's cross-entropy takes logits, so that the sigmoid is one activation too many
    Case(
        "SO-62055783", ("LABEL_ENCODING", "REG_TOO_STRONG"), "I", "classes",
        Program(images(500, 1, 20, 20, classes=7, targets=column), faces_net, one_hot_cross_entropy, Adam, 12, 64,
                hold_out(0.2), penalty=lasso),
        {"data": images(500, 1, 20, 20, classes=7), "loss": nn.CrossEntropyLoss()}, left=("REG_TOO_STRONG",),
    ),  # 48 × 48 pixels, four times as many filters, 100 epochs
    Case(
        "SO-62068109", ("OUT_UNITS", "LOSS_TASK"), "I", "classes",
        Program(images(600, 1, 24, 24, classes=4, targets=column),
                lambda: pictures_net((nn.Linear(64, 1),)), nn.BCEWithLogitsLoss(), Adam, 8, split=hold_out(0.2)),
        {"data": images(600, 1, 24, 24, classes=4), "model": lambda: pictures_net((nn.Linear(64, 4),)),
         "loss": nn.CrossEntropyLoss()},
    ),  # 64 × 64 pixels, four times as many filters, 10 epochs; as before
    Case(
        "SO-62440336", ("OUT_SOFTMAX1", "LOSS_TASK", "OUT_DOUBLE_ACT"), "I", "real",
        Program(data.songs, lambda: song_net((nn.Softmax(dim=1),)), nn.BCEWithLogitsLoss(), Adam, 30),
        {"model": lambda: song_net(())}, left=("LOSS_TASK",), unsound="real numbers stay under a loss for 0 and 1",
    ),  # 1,323,000 steps, up to 30 times as many units, 1,000 epochs
    Case(
        "SO-64413907", ("OUT_RELU_CLS", "DATA_UNLEARNABLE"), "I", "classes",
        Program(data.masked_sequences, lambda: net(MaskedLSTM(1, 1), nn.Linear(1, 3), nn.ReLU()),
                nn.CrossEntropyLoss(), Adam, 2, 1),
        {"model": lambda: net(MaskedLSTM(1, 1), nn.Linear(1, 3))}, left=("DATA_UNLEARNABLE",),
        unsound="the labels are drawn at random",
    ),  # 5 epochs
    Case(
        "SO-65669308", ("OUT_SOFTMAX1", "DATA_FEW"), "I", "classes",
        Program(data.texts, lambda: text_net(SOFTMAX1), nn.BCELoss(), Adam, 150),
        {"model": lambda: text_net(nn.Sigmoid)}, left=("DATA_FEW",),
    ),  # 1,000 epochs; some of the labels were 2, which BCELoss refuses
    Case(
        "SO-70148149", ("OUT_SOFTMAX1", "LR_LOW", "REG_TOO_STRONG"), "I", "classes",
        Program(tensors(classification(100, 3136), 56, 56, targets=column), lambda: pooled_net(SOFTMAX1), nn.BCELoss(),
                partial(Adam, lr=1e-5), 5, 150, hold_out(0.2)),
        {"model": lambda: pooled_net(nn.Sigmoid), "optimizer": Adam}, left=("REG_TOO_STRONG",),
        unsound="five updates stay too few",
    ),  # 560 × 560, ten times as many units; PyTorch refuses one unit against one-hot labels, which these were
    Case(
        "GH-hotdog", ("REG_TOO_STRONG", "ARCH_CAPACITY"), "B", "classes",
        Program(images(500, 1, 16, 16, classes=2), hotdog_net, nn.CrossEntropyLoss(), Adam, 8),
        {"model": other_hotdog_net},
    ),  # photos of 64 × 64 pixels, four times as many units, 15 epochs
    Case(
        "SO-73457069", ("EPOCHS_LOW", "LR_LOW", "DATA_FEW"), "B", "real",
        Program(data.wave_steps, lambda: net(Outputs(nn.LSTM(1, 50, batch_first=True)), nn.Linear(50, 1)),
                nn.MSELoss(), Adam, 40),
        {"loss": nn.L1Loss(), "optimizer": partial(Adam, lr=0.005), "epochs": 100}, left=("DATA_FEW",),
    ),  # 10,000 steps; fixed with 2,000 epochs
    Case(
        "SO-69364684", ("DEAD_RELU", "ACT_HIDDEN_WRONG"), "B", "real",
        Program(data.uniform_sequences, lambda: autoencoder(nn.ReLU), nn.MSELoss(), partial(Adam, lr=0.01), 8),
        {"model": lambda: autoencoder(nn.Tanh)}, unsound="four numbers hold a twelfth of fifty independent ones",
    ),  # 1,000 rows, 50 epochs; PyTorch's GRU has no ReLU, so that the cell is written by hand
    Case(
        "SO-71494820", ("ACT_HIDDEN_WRONG",), "B", "real",
        Program(waves(600, 10, 1, 1), lambda: window_net(nn.ReLU), nn.MSELoss(), Adam, 5),
        {"model": lambda: window_net(nn.Tanh)},
    ),  # 20 steps, four times as many units, 50 epochs; PyTorch's LSTM has no ReLU either
    Case(
        "SO-51971180", ("OUT_RELU_REG",), "B", "real",
        Program(waves(600, 16, 1, 16), lambda: price_net((nn.ReLU(),)), nn.MSELoss(), Adam, 6, 16),
        {"model": lambda: price_net(())},
    ),  # 1,000 rows, 50 epochs
    Case(
        "SO-74980651", ("FROZEN",), "B", "classes",
        Program(digits(), lambda: HeadInForward(*features()), nn.CrossEntropyLoss(), Adam, 4),
        {"model": lambda: net(features(), nn.Linear(128, 10))},
    ),  # pictures in colour, four times as many filters, 5 epochs
    Case(
        "SO-44184091", ("REG_TOO_STRONG",), "I", "classes",
        Program(tensors(classification(500, 60), 1, 60, targets=column), lambda: eeg_net(0.7), nn.BCELoss(), Adam, 8),
        {"model": lambda: eeg_net(0.2)},
    ),  # 600 steps, up to four times as many units, 20 epochs
    Case(
        "SO-50426349", ("ARCH_CAPACITY",), "I", "real",
        Program(data.colours, painter, nn.MSELoss(), partial(RMSprop, lr=0.001), 8),
    ),  # 32 × 32 pixels, up to eight times as many filters, 20 epochs
)  # fmt: skip
"""What was made smaller, or written otherwise, stands behind a program."""
