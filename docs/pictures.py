"""Makes the README's pictures: `python docs/pictures.py` writes them to docs/images."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nndiag import plots
from nndiag.demo import demo

IMAGES = Path(__file__).parent / "images"


def sick_run() -> Figure:
    """A network of 12 hidden layers with weights from N(0, 0.02²): its losses, and δ by step and layer."""
    _, recorder = demo(fault="vanishing-gradients", probes=False)
    run = recorder.run.thinned(200)
    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    plots.losses(run, ax=left).set_title("the loss stays at ln 10 …")
    plots.heatmap(run, "activations", "gradient_rms", ax=right)
    right.set_title("… because no gradient reaches the first layers (grey: exactly 0)")
    return figure


def sound_run() -> Figure:
    """The sound demo: losses, and gradient norms by parameter."""
    _, recorder = demo(probes=False)
    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    plots.losses(recorder.run, ax=left)
    plots.layers(recorder.run, "gradients", "norm", ax=right)
    return figure


def main() -> None:
    """Write all pictures."""
    IMAGES.mkdir(exist_ok=True)
    for draw in (sick_run, sound_run):
        draw().savefig(IMAGES / f"{draw.__name__}.png")


if __name__ == "__main__":
    main()
