"""The training loop: batches, events, evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from nndiag.hooks import Hook, Hooks, Listeners
from nndiag.nn import checkpoint, data, description
from nndiag.nn.clipping import clip_by_global_norm
from nndiag.nn.losses import Loss
from nndiag.nn.metrics import Metrics, resolve
from nndiag.nn.optimizers import Optimizer
from nndiag.nn.progress_bar import ProgressBar
from nndiag.nn.sequential import ObserveForward, Sequential
from nndiag.statistics import Array


class Trainer:
    """Trains `model` on `loss` with `optimizer`, and tells `hooks` of every event.

    `metrics` are names ("accuracy", the default where the loss has classes) or a mapping from name to function of
    (outputs, targets). `clip_norm` is the largest global norm of the gradients, `seed` that of the shuffling.
    """

    rests = True
    """It keeps losses and steps to itself while `hooks` rest."""

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        hooks: Iterable[Hook] = (),
        metrics: Metrics | None = None,
        clip_norm: float | None = None,
        seed: int = 0,
    ) -> None:
        for name, given, wanted in (
            ("model", model, Sequential),
            ("loss", loss, Loss),
            ("optimizer", optimizer, Optimizer),
        ):
            if not isinstance(given, wanted):
                raise TypeError(f"Trainer({name}={given!r}): wanted an object of {wanted.__name__}")
        if clip_norm is not None and not clip_norm > 0:
            raise ValueError(f"Trainer(clip_norm={clip_norm!r}): give a positive number or None")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.metrics = resolve(metrics, loss)
        self.clip_norm = clip_norm
        self.batch_size: int | None = None
        self.samples: int | None = None
        self.seed, self.random = seed, np.random.default_rng(seed)
        self.steps = self.epochs = 0
        self.hooks = Hooks(self, hooks)
        self._began_at = 0

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        shuffle: bool = True,
        progress: bool = False,
    ) -> list[dict[str, float]]:
        """Losses and metrics, one dict an epoch, of training on inputs `x` (N, width) and targets `y` (N,) or (N, …).

        Raises `ShapeError` for data that do not fit the model or each other, and ValueError for a batch size or a
        number of epochs below 1. NaN in the data is none of its business. Where a hook's recorder asks to stop, the epoch
        under way ends there, with its validation, and is the last.
        """
        if batch_size < 1 or epochs < 1:
            raise ValueError(f"fit got batch_size={batch_size} and epochs={epochs}, wanted 1 or more of each")
        x, y = data.pair(x, y, self.model)
        if validation is not None and (not isinstance(validation, tuple | list) or len(validation) != 2):
            raise TypeError(f"fit(validation=...) wants a pair (inputs, targets), got a {type(validation).__name__}")
        held_out = None if validation is None else data.pair(*validation, self.model)
        data.check_last_batch(len(x), batch_size, self.model)
        self.batch_size, self.samples = batch_size, len(x)
        self._began_at = self.epochs
        with self._training(), ProgressBar(epochs * -(-len(x) // batch_size), shown=progress) as bar:
            if held_out is not None:
                self._tell("on_validation_data", *held_out)
            history = [self._epoch(x, y, held_out, shuffle, bar)]
            while len(history) < epochs and not self.hooks.stopping:
                history.append(self._epoch(x, y, held_out, shuffle, bar))
        return history

    def step(self, x: ArrayLike, y: ArrayLike) -> float:
        """Loss of one batch before its update: a whole training step with its events."""
        model, fire = self.model, self.hooks.fire
        x, y = data.inputs(x, model.dtype), data.targets(y, model.dtype)
        with np.errstate(all="ignore"):
            fire("on_step_begin", x, y)
            heard = self.hooks.listeners("on_step_begin"), self.hooks.listeners("on_forward")
            outputs = model.forward(x, training=True, observe=self._observer("on_forward"))
            loss = self.loss(outputs, y)
            if self.steps <= self.hooks.resting_until and isinstance(loss, float) and math.isfinite(loss):
                self.hooks.losses[self.steps] = loss
            else:
                fire("on_loss", outputs, y, loss)
            if self.hooks.listeners("on_forward") is not heard[1]:
                self._read_after_all(x, y, *heard)
            gradient = self.loss.backward()
            fire("on_output_gradient", gradient)
            model.backward(gradient, observe=self._observer("on_backward"))
            fire("on_gradients", model.parameters)
            if self.clip_norm is not None:
                clip_by_global_norm(model.parameters, self.clip_norm)
                fire("on_clipped", model.parameters)
            if self.hooks.listened("on_update_begin"):
                fire("on_update_begin", model.parameters, self.optimizer.current_lr)
            self._update()
            fire("on_update_end", model.parameters)
            self.steps += 1
            if self.steps > self.hooks.resting_until:
                fire("on_step_end")
        return loss

    def _read_after_all(self, x: Array, y: Array, began: Listeners, passed: Listeners) -> None:
        """The loss was not finite, and a step that was not to be read is read in full: hooks hear what they have missed."""
        self.hooks.fire_anew("on_step_begin", began, x, y)
        self.model.revisit(partial(self.hooks.fire_anew, "on_forward", passed))

    def _update(self) -> None:
        plain = type(self.optimizer).step is Optimizer.step  # another may change the weights once more
        self.optimizer.observe = self._observer("on_update") if plain else None
        try:
            self.optimizer.step(self.model.parameters)
        finally:
            self.optimizer.observe = None

    def evaluate(
        self, x: ArrayLike, y: ArrayLike, batch_size: int = 1024, observe: ObserveForward | None = None
    ) -> dict[str, float]:
        """Loss ("loss") and metrics over the whole set, in evaluation mode; fires no event.

        `observe(layer, x, output)` is called after each layer, for every batch.
        """
        x, y = data.pair(x, y, self.model)
        outputs = self.predict(x, batch_size, observe)
        with np.errstate(all="ignore"):
            batches = data.slices(len(x), batch_size)
            total = sum(self.loss(outputs[rows], y[rows]) * len(outputs[rows]) for rows in batches)
            return {"loss": total / len(x)} | {name: metric(outputs, y) for name, metric in self.metrics.items()}

    def predict(self, x: ArrayLike, batch_size: int = 1024, observe: ObserveForward | None = None) -> Array:
        """Raw outputs (N, width) in evaluation mode, in an array of the caller's own; `observe` sees every layer."""
        x = data.fitting_inputs(x, self.model)
        with np.errstate(all="ignore"):
            batches = data.slices(len(x), batch_size)
            return np.concatenate([self.model.forward(x[rows], observe=observe).copy() for rows in batches])

    def save(self, path: str | Path) -> None:
        """Write all that training depends on to `path`, an .npz file without pickle, whole or not at all.

        From there training goes on bit for bit, where it was saved between two calls of `fit` or at an epoch's end.
        """
        checkpoint.save(self, path)

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote; raises `CheckpointError` for another file or another architecture."""
        checkpoint.load(self, path)

    def describe(self) -> dict[str, Any]:
        """Layers, parameters, loss, optimiser and settings, fit for JSON."""
        clipping = None if self.clip_norm is None else {"max_norm": self.clip_norm, "gradients": "before"}
        return {
            "layers": description.layers(self.model),
            "parameters": description.parameters(self.model),
            "loss": self.loss.describe(),
            "optimizer": self.optimizer.describe(),
            "clipping": clipping,
            "batch_size": self.batch_size,
            "samples": self.samples,
            "seeds": {"trainer": self.seed, "model": self.model.seed},
            "dtype": str(self.model.dtype),
        }

    def _epoch(
        self, x: Array, y: Array, held_out: tuple[Array, Array] | None, shuffle: bool, bar: ProgressBar
    ) -> dict[str, float]:
        self._tell("on_epoch_begin", self.epochs)
        values: dict[str, float] = {"epoch": self.epochs, "loss": self._mean_loss(x, y, shuffle, bar)}
        if held_out is not None:
            self._tell("on_validation_begin")
            first = self._observer("on_validation_forward") if self.epochs == self._began_at else None
            validation = self.evaluate(*held_out, observe=first)
            self._tell("on_validation", validation)
            bar.validated(validation)
            values |= {f"validation_{name}": value for name, value in validation.items()}
        self._tell("on_epoch_end", self.epochs)
        self.epochs += 1
        return values

    def _mean_loss(self, x: Array, y: Array, shuffle: bool, bar: ProgressBar) -> float:
        """Mean over the samples of the losses that an epoch of steps gave; it ends early where a recorder asks for it."""
        order = self.random.permutation(len(x)) if shuffle else None
        total, seen = 0.0, 0
        for rows in data.slices(len(x), self.batch_size or len(x)):
            batch = rows if order is None else order[rows]
            loss = self.step(x[batch], y[batch])
            total += loss * (rows.stop - rows.start)
            seen = rows.stop
            bar.step(loss)
            if self.hooks.stopping:
                break
        return total / seen

    @contextmanager
    def _training(self) -> Iterator[None]:
        self._tell("on_train_begin", self)
        try:
            yield
        except Exception:
            self._tell("on_train_end", "crashed")
            raise
        except BaseException:  # Ctrl-C, sys.exit
            self._tell("on_train_end", "interrupted")
            raise
        self._tell("on_train_end", "stopped" if self.hooks.stopping else "completed")

    def _tell(self, event: str, *arguments: Any) -> None:
        with np.errstate(all="ignore"):
            self.hooks.fire(event, *arguments)

    def _observer(self, event: str) -> Any:
        return partial(self.hooks.fire, event) if self.hooks.listened(event) else None
