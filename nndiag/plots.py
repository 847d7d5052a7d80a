"""Pictures of a run: each function draws into an axes and gives it back; nothing touches pyplot or the backend."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from nndiag.errors import UnknownName
from nndiag.frames import FRAMES
from nndiag.plain import printable
from nndiag.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOGARITHMIC = {"norm", "rms", "max_abs", "gradient_rms", "ratio", "update_norm", "weight_norm", "variance",
               "batch_variance"}  # fmt: skip
"""Statistics that span orders of magnitude."""


SMALLEST = 5.0
"""Points of a letter that can still be read; where there are more names than fit, some are left out."""


FARTHEST = 1e100
"""The largest magnitude that is drawn, for what lies beyond: the ticks of an axis do not go to the end of float64."""


def losses(run: Run, ax: Axes | None = None) -> Axes:
    """Training loss by step, thin, with its running mean, and validation loss by updates done."""
    ax = ax or _axes()
    train, validation = (series.clip(-FARTHEST, FARTHEST) for series in (run.train, run.validation))
    if len(train):
        smooth = train.rolling(max(1, len(train) // 50), min_periods=1).mean()
        marker = "o" if len(train) == 1 else None
        ax.plot(train.index, train, color="C0", alpha=0.3, linewidth=0.8)
        ax.plot(smooth.index, smooth, color="C0", marker=marker, label="training")
    if len(validation):
        marker = "o" if len(validation) <= 50 else None
        ax.plot(validation.index, validation, color="C1", marker=marker, markersize=3, label="validation")
    if (broken := run.meta.broken_at) is not None:
        ax.axvline(broken, color="C3", linestyle="--", label="no longer a number")
    values = np.concatenate([train.to_numpy(), validation.to_numpy()])
    if len(values) and values.min() > 0 and values.max() > 30 * values.min():
        ax.set_yscale("log")
    _finish(ax, f"{run.meta.name}: loss", "loss")
    return ax


def layers(run: Run, frame: str, statistic: str, ax: Axes | None = None) -> Axes:
    """One line a layer (or parameter) of a statistic such as ("gradients", "norm"), dark for the first to light for the last.

    Raises UnknownName for a frame or statistic that the run does not hold.
    """
    values, ax = _values(run, frame, statistic), ax or _axes()
    shades = colormaps["viridis"](np.linspace(0.0, 0.9, values.shape[1]))
    for name, shade in zip(values, shades, strict=True):
        ax.plot(values.index, values[name], color=shade, linewidth=1.0, label=name)
    if statistic in LOGARITHMIC and (values > 0).to_numpy().any():
        ax.set_yscale("log")
        ax.set_ylim(bottom=max(ax.get_ylim()[0], 1 / FARTHEST))
    _finish(ax, f"{run.meta.name}: {statistic} of {frame}", statistic)
    return ax


def heatmap(run: Run, frame: str, statistic: str, ax: Axes | None = None) -> Axes:
    """Step × layer map of a statistic, the first layer at the top; grey where a logarithmic scale has no place for it.

    Raises UnknownName for a frame or statistic that the run does not hold.
    """
    values, ax = _values(run, frame, statistic), ax or _axes()
    grid = values.to_numpy(float).T
    grid = np.where(np.isfinite(grid), grid, np.nan)
    norm = LogNorm() if statistic in LOGARITHMIC and (grid > 0).any() else None
    shown = np.where(grid > 0, np.maximum(grid, 1 / FARTHEST), np.nan) if norm else grid
    steps = values.index.to_numpy()
    edges = np.append(steps, max(steps[-1] + 1, run.steps))  # what was read last stands until the end
    ax.set_facecolor("0.8")
    mesh = ax.pcolormesh(edges, np.arange(grid.shape[0] + 1), shown, norm=norm, cmap="viridis")
    figure = ax.get_figure()
    assert figure is not None
    figure.colorbar(mesh, ax=ax, label=statistic.replace("_", " "))
    room = 72 * ax.bbox.height / figure.dpi / max(1, len(grid))  # points for each name
    apart = max(1, math.ceil(SMALLEST / room))
    names = [_text(str(name)) for name in values]
    ax.set_yticks(np.arange(0, len(grid), apart) + 0.5, names[::apart], fontsize=min(10.0, 0.9 * apart * room))
    ax.invert_yaxis()
    ax.set_xlabel("step")
    ax.set_title(_text(f"{run.meta.name}: {statistic} of {frame}"))
    return ax


def _axes() -> Axes:
    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Axes = figure.add_subplot()
    return axes


def _values(run: Run, frame: str, statistic: str) -> pd.DataFrame:
    if frame not in FRAMES or frame == "losses":
        raise UnknownName(f"no frame {frame!r} by layer; there are {', '.join(sorted(set(FRAMES) - {'losses'}))}")
    values = run.statistic(frame, statistic)
    if values.empty:
        held = ", ".join(dict.fromkeys(run.frame(frame).columns.get_level_values(0))) or "nothing"
        raise UnknownName(f"the run holds no {statistic!r} of {frame}; it holds {held}")
    return values.dropna(axis=1, how="all").clip(-FARTHEST, FARTHEST)


def _finish(ax: Axes, title: str, ylabel: str) -> None:
    ax.set_xlabel("step")
    ax.set_ylabel(ylabel.replace("_", " "))
    ax.set_title(_text(title))
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(handles, [_text(label) for label in labels], fontsize="small", ncols=1 + len(labels) // 12)


def _text(text: str) -> str:
    """`text` literally: matplotlib would read what stands between two dollars as a formula, and has no glyphs for controls."""
    return printable(str(text)).replace("$", r"\$")
