"""What a training step costs beside its matrix products alone and beside PyTorch's, on one thread: run it as a script.

The network is 20 layers of 256 × 256 with ReLU, float32, batch 512, SGD with momentum. All three are timed in turn in
every round; the table gives medians with an interval of 95 % for the median.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
if __name__ == "__main__" and any(os.environ.get(name) != "1" for name in THREADS):
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))

import numpy as np  # noqa: E402 - after the threads are set

from nndiag import nn  # noqa: E402
from nndiag.statistics import Array  # noqa: E402

BATCH, WIDTH, DEPTH = 512, 256, 20
ROUNDS, WARM_UP = 120, 10
MOST_OVER_PRODUCTS, MOST_OVER_TORCH = 1.3, 1.0

Step = Callable[[], object]


def data() -> tuple[Array, Array]:
    """Inputs (512, 256) and class ids (512,)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, WIDTH)).astype(np.float32), rng.integers(WIDTH, size=BATCH)


def trainer_step() -> Step:
    """A step of nndiag's trainer without hooks."""
    x, y = data()
    model = nn.MLP([WIDTH] * (DEPTH + 1))
    trainer = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(lr=1e-3, momentum=0.9))
    return lambda: trainer.step(x, y)


def products_step() -> Step:
    """The 59 matrix products of that step, into arrays that are there already."""
    rng = np.random.default_rng(0)
    activations = [data()[0] for _ in range(DEPTH + 1)]
    gradients = [data()[0] for _ in range(DEPTH + 1)]
    weights = [rng.normal(size=(WIDTH, WIDTH)).astype(np.float32) / 16 for _ in range(DEPTH)]
    weight_gradients = [np.empty_like(weight) for weight in weights]
    forward = list(zip(pairwise(activations), weights, strict=True))
    backward = list(zip(pairwise(gradients), activations, weights, weight_gradients, strict=False))

    def products() -> None:
        for (x, z), weight in forward:
            np.matmul(x, weight.T, out=z)
        for number, ((dx, dz), x, weight, dw) in reversed(list(enumerate(backward))):
            np.matmul(dz.T, x, out=dw)
            if number:
                np.matmul(dz, weight, out=dx)

    return products


def torch_step() -> Step | None:
    """The same step in PyTorch, or None where it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(1)
    x, y = (torch.from_numpy(array) for array in data())
    layers = [layer for _ in range(DEPTH) for layer in (torch.nn.Linear(WIDTH, WIDTH), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> float:
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def milliseconds(step: Step) -> float:
    """How long one call took."""
    begun = time.perf_counter()
    step()
    return 1e3 * (time.perf_counter() - begun)


def interleaved(steps: dict[str, Step]) -> dict[str, Array]:
    """Times in ms of each step, all of them in turn in every round, in another order each time."""
    rng = np.random.default_rng(0)
    rounds: list[dict[str, float]] = []
    for _ in range(WARM_UP + ROUNDS):
        taken = {name: milliseconds(steps[name]) for name in rng.permutation(list(steps)).tolist()}
        rounds.append(taken)
    return {name: np.array([taken[name] for taken in rounds[WARM_UP:]]) for name in steps}


def median(values: Array) -> tuple[float, float, float]:
    """Median with its 95 % interval from order statistics (binomial, normal approximation)."""
    half = 0.98 * np.sqrt(len(values)) / len(values)
    middle, low, high = np.quantile(values, [0.5, max(0.0, 0.5 - half), min(1.0, 0.5 + half)])
    return float(middle), float(low), float(high)


def table(times: dict[str, Array]) -> Iterator[str]:
    """A line for each step, then one for each ratio of the trainer's to another's, round by round."""
    for name, values in times.items():
        middle, low, high = median(values)
        yield f"{name:<32} {middle:8.2f} ms   [{low:.2f}, {high:.2f}]"
    for name, limit in (("matrix products alone", MOST_OVER_PRODUCTS), ("PyTorch", MOST_OVER_TORCH)):
        if name in times:
            middle, low, high = median(times["nndiag.nn"] / times[name])
            verdict = "ok" if middle <= limit else "TOO SLOW"
            yield f"{'nndiag.nn / ' + name:<32} {middle:8.3f}      [{low:.3f}, {high:.3f}]   at most {limit}: {verdict}"


def main() -> int:
    """Print the table; 1 when the trainer is slower than it may be."""
    steps = {"nndiag.nn": trainer_step(), "matrix products alone": products_step()}
    torch = torch_step()
    if torch is None:
        print("PyTorch is absent; the comparison with it is left out")
    else:
        steps["PyTorch"] = torch
    lines = list(table(interleaved(steps)))
    print("\n".join(lines))
    return int(any("TOO SLOW" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
