"""The progress bar over all steps of a fit, on stderr, or none."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self


class ProgressBar:
    """A tqdm bar of `steps` steps that shows the loss and the validation accuracy; does nothing unless `shown`."""

    def __init__(self, steps: int, shown: bool) -> None:
        self._bar: Any = _bar(steps) if shown else None
        self._values: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, loss: float) -> None:
        """One step further, with this loss."""
        if self._bar is not None:
            self._show(loss=loss)
            self._bar.update()

    def validated(self, values: Mapping[str, float]) -> None:
        """An evaluation gave `values`."""
        if self._bar is not None and "accuracy" in values:
            self._show(validation_accuracy=values["accuracy"])

    def _show(self, **values: float) -> None:
        self._values |= {name: f"{value:.4g}" for name, value in values.items()}
        self._bar.set_postfix(self._values, refresh=False)


def _bar(steps: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=steps, unit="step")
