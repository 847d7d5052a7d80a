"""The demonstration: an MLP on handwritten digits, sound or with one of the classical faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nndiag import nn
from nndiag.adapters import watch
from nndiag.datasets import Split, digits
from nndiag.errors import UnknownName
from nndiag.nn.layers import Layer
from nndiag.recorder import Recorder
from nndiag.report import Report


@dataclass
class Program:
    """What the demo trains; a fault changes some of it before it is built, or the model after."""

    data: Split
    seed: int
    hidden: list[int] = field(default_factory=lambda: [128, 64])
    init: str | Callable[..., object] = "he_normal"
    lr: float = 0.1
    epochs: int = 20
    batch_size: int = 64
    hidden_bias: float = 0.0
    last: list[Layer] = field(default_factory=list)

    def trainer(self) -> nn.Trainer:
        """The model and its trainer, as described."""
        model = nn.MLP([self.data.x.shape[1], *self.hidden, 10], init=self.init, seed=self.seed)  # type: ignore[arg-type]
        for parameter in model.parameters:
            if parameter.kind == "bias" and not parameter.name.startswith("output"):
                parameter.value[...] = self.hidden_bias
        whole = nn.Sequential([*model.layers, *self.last], seed=self.seed) if self.last else model
        return nn.Trainer(whole, nn.SoftmaxCrossEntropy(), nn.SGD(self.lr, momentum=0.9), seed=self.seed)


def lr_too_high(program: Program) -> None:
    """Learning rate × 30."""
    program.lr *= 30


def lr_too_low(program: Program) -> None:
    """Learning rate × 1e-5."""
    program.lr *= 1e-5


def dead_relu(program: Program) -> None:
    """Hidden biases start at −3."""
    program.hidden_bias = -3.0


def vanishing_gradients(program: Program) -> None:
    """12 hidden layers, weights from N(0, 0.02²)."""
    program.hidden, program.init = [64] * 12, nn.normal(0.02)


def exploding_gradients(program: Program) -> None:
    """12 hidden layers, weights from N(0, 0.5²)."""
    program.hidden, program.init = [64] * 12, nn.normal(0.5)


def zero_init(program: Program) -> None:
    """All weights equal: zero."""
    program.init = nn.constant(0.0)


def unscaled_input(program: Program) -> None:
    """Pixels from 0 to 255, and the most varied one × 1e4."""
    scale = np.full(program.data.x.shape[1], 255.0)
    scale[program.data.x.var(axis=0).argmax()] *= 1e4
    program.data = program.data._replace(
        x=(program.data.x * scale).astype(np.float32), x_val=(program.data.x_val * scale).astype(np.float32)
    )


def overfitting(program: Program) -> None:
    """100 training samples, 30 % of them with a wrong label, three layers of 512 units, 400 epochs at lr × 2."""
    x, y = program.data.x[:100], program.data.y[:100].copy()
    rng = np.random.default_rng([program.seed, 1])
    wrong = rng.permutation(100)[:30]
    y[wrong] = (y[wrong] + rng.integers(1, 10, 30)) % 10
    program.data = program.data._replace(x=x, y=y)
    program.hidden, program.epochs, program.lr = [512] * 3, 400, 0.2


def nan_input(program: Program) -> None:
    """One NaN in one training row."""
    x = program.data.x.copy()
    x[len(x) // 2, 10] = np.nan
    program.data = program.data._replace(x=x)


def double_softmax(program: Program) -> None:
    """A softmax layer before softmax cross-entropy."""
    program.last = [nn.Softmax()]


def shuffled_labels(program: Program) -> None:
    """Training labels permuted, no more of them right than by chance: what a lucky draw leaves right can be learned."""
    rng, y = np.random.default_rng([program.seed, 1]), program.data.y
    permuted = rng.permutation(y)
    while np.mean(permuted == y) > 0.1:
        permuted = rng.permutation(y)
    program.data = program.data._replace(y=permuted)


FAULTS: dict[str, Callable[[Program], None]] = {
    fault.__name__.replace("_", "-"): fault
    for fault in (lr_too_high, lr_too_low, dead_relu, vanishing_gradients, exploding_gradients, zero_init, unscaled_input,
                  overfitting, nan_input, double_softmax, shuffled_labels)
}  # fmt: skip
"""What `nndiag demo --fault NAME` can break."""


def program(fault: str | None = None, *, epochs: int | None = None, seed: int = 0) -> Program:
    """The demo's program, with `fault` if given. Raises UnknownName for a fault that there is not."""
    built = Program(digits(seed), seed)
    if fault is not None:
        if fault not in FAULTS:
            raise UnknownName(f"no fault is called {fault!r}; there are {', '.join(FAULTS)}")
        FAULTS[fault](built)
    built.epochs = epochs or built.epochs
    return built


def train(
    built: Program, recorder: Recorder, trainer: nn.Trainer, *, probes: bool = True, progress: bool = False
) -> None:
    """Run the probes, then train as `built` says."""
    from nndiag import probes as all_probes

    data = built.data
    if probes:
        all_probes.run_all(trainer, data.x, data.y, recorder)
    trainer.fit(data.x, data.y, validation=(data.x_val, data.y_val), epochs=built.epochs, batch_size=built.batch_size,
                progress=progress)  # fmt: skip


def demo(
    out: str | Path | None = None,
    *,
    fault: str | None = None,
    epochs: int | None = None,
    seed: int = 0,
    probes: bool = True,
    tensorboard: bool = False,
    progress: bool = False,
) -> tuple[Report, Recorder]:
    """Train the demo's program into the run folder `out` (or in memory); its report, and the closed recorder.

    With `tensorboard`, a live log goes to the folder `tensorboard` inside the run folder.
    """
    built = program(fault, epochs=epochs, seed=seed)
    trainer = built.trainer()
    with watch(trainer, run=out, every=1) as recorder:
        if tensorboard and recorder.path:
            from nndiag.exporters import TensorBoard

            recorder.add_exporter(TensorBoard(recorder.path / "tensorboard"))
        train(built, recorder, trainer, probes=probes, progress=progress)
        report = recorder.check()
    return report, recorder
