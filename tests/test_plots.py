"""Pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from nndiag import Run, UnknownName, plots, synthetic


def test_losses_draws_both_curves(run: Run) -> None:
    ax = plots.losses(run)

    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation"]
    np.testing.assert_allclose(ax.lines[-1].get_ydata(), run.validation)


def test_layers_draws_one_line_a_parameter(run: Run) -> None:
    ax = plots.layers(run, "gradients", "norm")

    assert len(ax.lines) == 6
    assert ax.get_yscale() == "log"


def test_heatmap_has_the_first_layer_on_top(run: Run) -> None:
    ax = plots.heatmap(run, "activations", "variance")

    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["hidden1", "hidden1.relu", "hidden2", "hidden2.relu", "output"]
    assert ax.yaxis_inverted()


def test_pictures_go_into_axes_that_are_given(run: Run, tmp_path: Path) -> None:
    figure = Figure(figsize=(8, 3))
    left, middle, right = figure.subplots(1, 3)

    assert plots.losses(run, ax=left) is left
    assert plots.layers(run, "activations", "mean", ax=middle) is middle
    assert plots.heatmap(run, "updates", "ratio", ax=right) is right
    figure.savefig(tmp_path / "all.png")
    assert (tmp_path / "all.png").stat().st_size > 1000


@pytest.mark.parametrize("draw", [lambda r: plots.losses(r), lambda r: plots.layers(r, "gradients", "norm"),
                                  lambda r: plots.heatmap(r, "gradients", "norm")])  # fmt: skip
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan, np.inf, -1.0])
def test_odd_values_can_be_drawn(draw: object, value: float, tmp_path: Path) -> None:
    norm = np.full(10, 1.0)
    norm[3:] = value
    odd = synthetic.run(steps=10, train=norm, gradients={"norm": {"$x_{$": norm, "b": 1.0}})

    draw(odd).figure.savefig(tmp_path / "odd.png")  # type: ignore[operator]


@pytest.mark.parametrize("values", [np.geomspace(1e-3, 1e307, 100), np.geomspace(1e-307, 1e3, 100)])
def test_any_number_of_decades_can_be_drawn(values: np.ndarray, tmp_path: Path) -> None:
    run = synthetic.run(train=values, gradients={"norm": {"h1.weight": values, "output.weight": values[::-1]}})
    for ax in (plots.losses(run), plots.layers(run, "gradients", "norm"), plots.heatmap(run, "gradients", "norm")):
        ax.figure.savefig(tmp_path / "picture.png")
        assert (tmp_path / "picture.png").stat().st_size > 1000


def test_an_empty_run_has_an_empty_picture() -> None:
    assert not plots.losses(Run()).lines


@pytest.mark.parametrize(
    ("frame", "statistic", "words"), [("gradient", "norm", "no frame 'gradient'"), ("gradients", "mean", "no 'mean'")]
)
def test_what_is_not_there_is_refused(frame: str, statistic: str, words: str, run: Run) -> None:
    with pytest.raises(UnknownName, match=words):
        plots.layers(run, frame, statistic)


def test_pyplot_and_the_backend_are_left_alone() -> None:
    code = (
        "import sys, nndiag; nndiag.plots.losses(nndiag.synthetic.run(train=1.0)).figure.savefig('/dev/null', format='png')\n"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "False"


@pytest.mark.parametrize(("layers", "least"), [(3, 3), (30, 30), (90, 30), (400, 30)])
def test_names_of_layers_do_not_touch(layers: int, least: int) -> None:
    run = synthetic.run(gradients={"norm": {f"layer{i}": 1.0 + i for i in range(layers)}})
    ax = plots.heatmap(run, "gradients", "norm")
    labels = ax.get_yticklabels()

    assert len(labels) >= least
    assert len(labels) * labels[0].get_fontsize() <= 72 * ax.bbox.height / ax.figure.dpi
    assert labels[0].get_fontsize() >= 4.5
