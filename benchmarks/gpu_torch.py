"""What watching costs a language model of 124 million parameters on a GPU: step times with nndiag over those without, in turns.

    python benchmarks/gpu_torch.py                       # on the first GPU, eager, bfloat16 autocast, batches of 8 × 1024 tokens
    python benchmarks/gpu_torch.py --compile             # the model compiled
    python benchmarks/gpu_torch.py --tiny                # a toy of the same make, also on a CPU: shows only that it runs

Each way of watching trains the same model from the same seed in a process of its own, one after the other for a few steps in
every round, so that whatever else slows the machine slows all of them. "naive" are the hooks that one would write: norm,
mean and share of zeros of every output, gradient and weight with `.item()`, and a histogram of each gradient and weight every
100 steps. The ratio is that of the sums of step times over all rounds, with the spread of the rounds beside it; "memory" is
the peak beyond that without, "own share" what nndiag itself says of its cost.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import nndiag

SIZES = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50257, "length": 1024, "batch": 8}
TINY = {"layers": 2, "width": 32, "heads": 2, "vocabulary": 101, "length": 16, "batch": 2}


class Attention(nn.Module):  # type: ignore[misc]  # mypy does not look into PyTorch
    """Causal self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(width, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, length, width))
        return out


class Block(nn.Module):  # type: ignore[misc]  # mypy does not look into PyTorch
    """Attention and a feed-forward part, each normalised before and added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2, self.fc = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.gelu, self.proj = nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        out: torch.Tensor = x + self.proj(self.gelu(self.fc(self.norm2(x))))
        return out


class Language(nn.Module):  # type: ignore[misc]  # mypy does not look into PyTorch
    """A language model of the make of GPT-2 (Radford et al. 2019): 124 million parameters with `SIZES`."""

    def __init__(self, layers: int, width: int, heads: int, vocabulary: int, length: int, batch: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(self.norm(x))
        return out


class Naive:
    """Hooks that read every value as they go."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.step = model, 0
        self.values: dict[str, Any] = {}
        self.handles: list[Any] = []
        for name, module in model.named_modules():
            if not list(module.children()):
                self.handles.append(module.register_forward_hook(self._hook(name)))

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            self._take(f"activations/{name}", output.detach())

        return hook

    def _take(self, name: str, tensor: torch.Tensor) -> None:
        tensor = tensor.float()
        self.values[name] = tensor.norm().item(), tensor.mean().item(), (tensor == 0).float().mean().item()

    def after_backward(self) -> None:
        """Gradients and weights."""
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                for kind, tensor in (("gradients", parameter.grad), ("weights", parameter.detach())):
                    self._take(f"{kind}/{name}", tensor)
                    if self.step % 100 == 0:
                        self.values[f"{kind}/{name}/bins"] = torch.histc(tensor.float(), 64).cpu()
        self.step += 1

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()


class Training:
    """One way of watching, and the model that is trained so."""

    def __init__(self, way: str, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.way, self.options, self.total = way, options, 0.0
        self.sizes = TINY if options.tiny else SIZES
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = Language(**self.sizes).to(self.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-4, fused=self.device.type == "cuda")
        self.called: Any = torch.compile(self.model) if options.compile else self.model
        self.recorder: nndiag.Recorder | None = None
        self.naive: Naive | None = None
        every: Any = {"every step": 1, "every 10th": 10, "default": "auto"}.get(way)
        if every is not None:
            self.recorder = nndiag.watch(self.model, self.optimizer, every=every)
        elif way == "naive":
            self.naive = Naive(self.model)
        shape = self.sizes["batch"], self.sizes["length"] + 1
        self.ids = torch.randint(0, self.sizes["vocabulary"], shape, device=self.device)

    def step(self) -> None:
        """One update."""
        x, y = self.ids[:, :-1], self.ids[:, 1:]
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.called(x)
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        if self.recorder is not None:
            self.recorder.log(loss=loss)
        loss.backward()
        if self.naive is not None:
            self.naive.after_backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def seconds(self, steps: int) -> float:
        """Time of so many steps, the device's work included."""
        self._wait()
        begun = perf_counter()
        for _ in range(steps):
            self.step()
        self._wait()
        took = perf_counter() - begun
        self.total += took
        return took

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> float:
        """Most memory of the device, in MiB, that two steps have in use beyond what lies there before."""
        if self.device.type != "cuda":
            return math.nan
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        self.seconds(2)
        return float(torch.cuda.max_memory_allocated() - before) / 2**20

    def share(self) -> float:
        """nndiag's own time over all time, as it sees that itself."""
        return math.nan if self.recorder is None else self.recorder.cost["seconds"] / self.total

    def describe(self) -> str:
        """What is trained where."""
        name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        size = sum(parameter.numel() for parameter in self.model.parameters())
        return f"{size / 1e6:.1f} M parameters, {name}, torch {torch.__version__}"

    def close(self) -> None:
        """Watch no more."""
        if self.recorder is not None:
            self.recorder.close()
        if self.naive is not None:
            self.naive.close()


WAYS = ("bare", "every step", "every 10th", "default", "naive")


class Worker:
    """A training in a process of its own, which rests unless it is asked for something."""

    def __init__(self, way: str, options: argparse.Namespace) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, way, options), daemon=True)
        self._process.start()

    def ask(self, what: str, *arguments: Any) -> Any:
        """Call a method of the training, and wait for the answer."""
        self._pipe.send((what, arguments))
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer


def serve(pipe: Any, way: str, options: argparse.Namespace) -> None:
    """Do as a `Worker` asks, until it closes."""
    if options.later:
        from nndiag_torch.loop import TorchLoop

        TorchLoop.deferred = True
    training = Training(way, options)
    what = ""
    while what != "close":
        what, arguments = pipe.recv()
        try:
            pipe.send(getattr(training, what)(*arguments))
        except Exception as fault:
            pipe.send(fault)


def rounds(workers: dict[str, Worker], options: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Step times of each way, one round after the other."""
    for number in range(options.rounds):
        order = list(workers) if number % 2 == 0 else list(workers)[::-1]
        yield {way: workers[way].ask("seconds", options.steps) / options.steps for way in order}


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a toy model, which also a CPU trains in a second")
    parser.add_argument("--compile", action="store_true", help="compile the model")
    parser.add_argument("--later", action="store_true", help="on a CPU, too, as on a GPU")
    parser.add_argument(
        "--warm", type=int, default=60, help="steps before anything is timed: nndiag reads the first 50 (60)"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="steps of each way in a round")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    options = parser.parse_args()
    workers: dict[str, Worker] = {}
    for way in dict.fromkeys(["bare", *options.ways]):
        workers[way] = Worker(way, options)
        workers[way].ask("seconds", options.warm)
    times = list(rounds(workers, options))
    peaks = {way: worker.ask("peak") for way, worker in workers.items()}
    print(workers["bare"].ask("describe"))
    print(f"{'':12}{'ms/step':>10}{'ratio':>8}{'spread of rounds':>20}{'memory MiB':>12}{'own share':>11}")
    for way, worker in workers.items():
        ratios = sorted(one[way] / one["bare"] for one in times)
        mean = sum(one[way] for one in times) / len(times)
        ratio = mean * len(times) / sum(one["bare"] for one in times)
        print(f"{way:12}{1e3 * mean:10.2f}{ratio:8.3f}{f'{ratios[0]:.3f} … {ratios[-1]:.3f}':>20}"
              f"{peaks[way] - peaks['bare']:12.0f}{worker.ask('share'):11.3f}")  # fmt: skip
        worker.ask("close")
    return 0


if __name__ == "__main__":
    sys.exit(main())
