"""The TensorBoard exporter, its event files read back without TensorBoard."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorboardX

import nndiag
from nndiag import Checklist, Recorder, Run, RunError, nn, open_run, synthetic
from nndiag.exporters import TensorBoard, event_files, replay
from nndiag.exporters.event_files import LARGEST, SMALLEST, single
from nndiag.frames import EVALUATION, LOOP
from nndiag.statistics import Array

Read = Callable[[Path], Any]
Data = tuple[Array, Array]


def fit(trainer: nn.Trainer, data: Data, target: Any, run: Path | None = None, epochs: int = 3) -> Recorder:
    """A short training of 6 steps an epoch, with histograms, exported live to `target`."""
    x, y = data
    hooks = [nndiag.DataHook(), nndiag.ActivationHook(), nndiag.GradientHook(), nndiag.UpdateHook(), nndiag.LossHook(),
             nndiag.HistogramHook(every=6)]  # fmt: skip
    with nndiag.watch(trainer, hooks=hooks, run=run, every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(target))
        trainer.fit(x, y, validation=(x[:30], y[:30]), epochs=epochs, batch_size=16)
        recorder.check()
    return recorder


def by_hand(logdir: Path, **logged: list[float]) -> Recorder:
    """A recorder that has logged these series, exported live and closed."""
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(logdir))
        for values in zip(*logged.values(), strict=True):
            recorder.log(**dict(zip(logged, values, strict=True)))
            recorder.step()
    return recorder


# What is shown


def test_every_group_of_charts_holds_the_recorded_values(
    trainer: nn.Trainer, data: Data, tmp_path: Path, read: Read
) -> None:
    run = fit(trainer, data, tmp_path).run

    events = read(tmp_path)
    for tag, frame, statistic, name in (
        ("activation_mean/01_hidden1", "activations", "mean", "hidden1"),
        ("activation_variance/04_hidden2.relu", "activations", "variance", "hidden2.relu"),
        ("activation_dead/02_hidden1.relu", "activations", "dead_fraction", "hidden1.relu"),
        ("grad_norm/03_hidden2.weight", "gradients", "norm", "hidden2.weight"),
        ("update_ratio/05_output.bias", "updates", "ratio", "output.bias"),
    ):
        series = run.series(frame, statistic, name)
        assert events.scalars["train", tag] == list(zip(series.index, series.astype(np.float32), strict=True)), tag


def test_losses_of_training_and_validation_share_a_tag_in_two_runs(
    trainer: nn.Trainer, data: Data, tmp_path: Path, read: Read
) -> None:
    run = fit(trainer, data, tmp_path).run

    events = read(tmp_path)
    assert [step for step, _ in events.scalars["train", "loss"]] == list(range(18))
    assert [value for _, value in events.scalars["train", "loss"]] == pytest.approx(run.train.tolist())
    assert [step for step, _ in events.scalars["validation", "loss"]] == [6, 12, 18]
    assert [value for _, value in events.scalars["validation", "loss"]] == pytest.approx(run.validation.tolist())


def test_histograms_hold_bounds_and_counts(trainer: nn.Trainer, data: Data, tmp_path: Path, read: Read) -> None:
    run = fit(trainer, data, tmp_path).run

    events = read(tmp_path)
    histograms = events.histograms["train", "weights/01_hidden1.weight"]
    assert [step for step, _ in histograms] == [0, 6, 12]
    row = run.histograms.xs("weights/hidden1.weight", axis=1, level="tensor").loc[6]
    histogram = histograms[1][1]
    assert (histogram.min, histogram.max) == pytest.approx((row["low"], row["high"]))
    assert list(histogram.bucket) == row.drop(["low", "high"]).tolist()
    assert len(histogram.bucket_limit) == 30
    assert histogram.bucket_limit[-1] == histogram.max
    assert (histogram.num, sum(histogram.bucket)) == (16 * 8, 16 * 8)
    groups = {tag.split("/")[0] for _, tag in events.histograms}
    assert groups == {"activations", "gradients", "weights"}


def test_moments_of_a_histogram_are_those_of_its_bins() -> None:
    histogram = event_files.Histogram("h", 0.0, 4.0, [1.0, 0.0, 0.0, 3.0])

    tag, low, high, number, total, squares, limits, counts = event_files._raw(histogram)
    assert (tag, low, high, number) == ("h", 0.0, 4.0, 4)
    assert (total, squares) == (0.5 + 3 * 3.5, 0.25 + 3 * 12.25)
    assert (limits, counts) == ([1.0, 2.0, 3.0, 4.0], [1.0, 0.0, 0.0, 3.0])


def test_the_report_stands_in_the_text_tab_and_its_findings_in_charts(
    trainer: nn.Trainer, data: Data, tmp_path: Path, read: Read
) -> None:
    recorder = fit(trainer, data, tmp_path)

    events = read(tmp_path)
    [(step, text)] = events.texts["train", "nndiag/report/text_summary"]
    assert step == 18
    assert "gradient norms are tracked by layer" in text
    assert re.search(r"(?m)^\| PASS ND001 nonfinite-input \| inputs and targets are finite \|$", text)
    assert "| check | reason |\n| --- | --- |\n" in text
    fails = Checklist().examine(recorder.run).counts["fail"]
    assert events.scalars["train", "nndiag/findings_fail"] == [(18, fails)]


def test_units_can_be_dead_only_in_relu_layers(trainer: nn.Trainer, data: Data, tmp_path: Path, read: Read) -> None:
    fit(trainer, data, tmp_path)

    dead = [tag for tag in read(tmp_path).tags() if tag.startswith("activation_dead")]
    assert dead == ["activation_dead/02_hidden1.relu", "activation_dead/04_hidden2.relu"]


def test_a_chart_is_explained_once(trainer: nn.Trainer, data: Data, tmp_path: Path, read: Read) -> None:
    fit(trainer, data, tmp_path)

    help = read(tmp_path).help
    assert help["grad_norm/01_hidden1.weight"] == ["`hidden1.weight`. L2 norm of the gradient, before clipping."]
    assert help["nndiag/nonfinite_total"][0].startswith("Values that were NaN or infinite")


def test_metrics_go_to_the_run_of_their_split(tmp_path: Path, read: Read) -> None:
    by_hand(tmp_path, accuracy=[0.5, 0.75], validation_accuracy=[0.25, 0.5], lr=[1.0, 0.5])

    events = read(tmp_path)
    assert events.scalars["train", "accuracy"] == [(0, 0.5), (1, 0.75)]
    assert events.scalars["validation", "accuracy"] == [(0, 0.25), (1, 0.5)]
    assert events.scalars["train", "lr"] == [(0, 1.0), (1, 0.5)]


@pytest.mark.parametrize(("scales", "shown"), [([1.0, 1.0], []), ([2.0, 1.0], [(0, 2.0), (1, 1.0)])])
def test_the_scale_of_the_loss_is_shown_where_there_is_one(
    scales: list[float], shown: list[tuple[int, float]], tmp_path: Path, read: Read
) -> None:
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(tmp_path))
        for scale in scales:
            recorder.row.buffers["loop"].put("", LOOP, (1, 1, 0, 0, 0, scale))
            recorder.row.buffers["loop"].put("", EVALUATION, (0,))
            recorder.step()

    assert read(tmp_path).scalars["train", "loop/loss_scale"] == shown


# Numbers that TensorBoard cannot hold


def test_nonfinite_losses_are_marked_and_counted(tmp_path: Path, read: Read) -> None:
    by_hand(tmp_path, loss=[1.0, math.nan, 2.0, math.inf, 3.0])

    events = read(tmp_path)
    assert [str(value) for _, value in events.scalars["train", "loss"]] == ["1.0", "nan", "2.0", "inf", "3.0"]
    assert events.scalars["train", "nndiag/nonfinite_total"] == [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2)]


def test_a_loss_that_was_not_taken_is_not_marked(tmp_path: Path, read: Read) -> None:
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(tmp_path))
        recorder.activation("h1", np.array([[math.nan, 1.0]]))
        recorder.step()

    events = read(tmp_path)
    assert "loss" not in events.tags()
    assert events.scalars["train", "nndiag/nonfinite_total"] == [(0, 1)]


@pytest.mark.parametrize("sign", [1, -1])
def test_float32_keeps_what_is_finite_finite_and_what_is_not_zero_off_zero(sign: int) -> None:
    assert single(sign * 1e-50) == sign * SMALLEST
    assert single(sign * 1e300) == sign * LARGEST
    assert single(sign * 0.1) == sign * 0.1
    assert single(sign * math.inf) == sign * math.inf
    assert single(0.0) == 0.0
    assert math.isnan(single(math.nan))


def test_tiny_and_huge_values_survive_the_file(tmp_path: Path, read: Read) -> None:
    by_hand(tmp_path, loss=[1e-50, 1e300], lr=[-1e-50, -1e300])

    scalars = read(tmp_path).scalars
    assert [value for _, value in scalars["train", "loss"]] == [SMALLEST, LARGEST]
    assert [value for _, value in scalars["train", "lr"]] == [-SMALLEST, -LARGEST]


def test_histograms_of_extreme_values_stay_finite(tmp_path: Path, read: Read) -> None:
    values = np.array([-1e300, 0.0, 1e300])
    with Recorder(every=1, strict=True) as recorder:
        recorder.histogram("weights/w", values)
    replay(recorder.run, TensorBoard(tmp_path))  # outside of the recorder, where an overflow would warn

    [(_, histogram)] = read(tmp_path).histograms["train", "weights/w"]
    assert np.isfinite([histogram.min, histogram.max, histogram.sum, histogram.sum_squares]).all()
    assert np.isfinite(np.array(histogram.bucket_limit, np.float32)).all()


# Tags


def test_layers_sort_in_forward_order(tmp_path: Path, read: Read) -> None:
    names = [f"block{i}" for i in range(120)]
    with Recorder(every=1, strict=True) as recorder:
        recorder.describe(layers=[{"name": name} for name in names])
        recorder.add_exporter(TensorBoard(tmp_path, layers=200))
        for name in names:
            recorder.activation(name, np.ones((2, 2)))

    tags = [tag for tag in read(tmp_path).tags() if tag.startswith("activation_mean")]
    assert tags == [f"activation_mean/{i + 1:03d}_block{i}" for i in range(120)]


def test_of_many_layers_evenly_spaced_ones_get_charts_and_it_says_so(
    tmp_path: Path, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"block{i}" for i in range(100)]
    with Recorder(every=1, strict=True) as recorder:
        recorder.describe(
            layers=[{"name": name} for name in names],
            parameters=[{"name": f"{name}.weight", "layer": name} for name in names],
        )
        recorder.add_exporter(TensorBoard(tmp_path))
        for name in names:
            recorder.activation(name, np.ones((2, 2)))
            recorder.gradient(f"{name}.weight", np.ones((2, 2)))
            recorder.histogram(f"weights/{name}.weight", np.ones((2, 2)))
        recorder.describe(batch_size=2)

    events = read(tmp_path)
    shown = [int(tag.removeprefix("activation_mean/")[:3]) for tag in events.tags() if "activation_mean" in tag]
    assert (len(shown), shown[0], shown[-1]) == (40, 1, 100)
    assert set(np.diff(shown)) == {2, 3}
    assert len([tag for tag in events.tags() if tag.startswith("grad_norm")]) == 40
    assert len(events.histograms) == 40
    assert [r.message for r in caplog.records if r.levelno == logging.WARNING] == [
        "TensorBoard gets charts of 40 of the 100 layers; the run holds all"
    ]


def test_names_that_the_run_does_not_describe_get_charts_too(tmp_path: Path, read: Read) -> None:
    with Recorder(every=1, strict=True) as recorder:
        recorder.describe(layers=[{"name": "h1"}])
        recorder.add_exporter(TensorBoard(tmp_path))
        recorder.activation("h1", np.ones((2, 2)))
        recorder.gradient("scale", np.ones(2))
        recorder.histogram("attention", np.ones(2))

    events = read(tmp_path)
    assert {"activation_mean/01_h1", "grad_norm/scale"} <= set(events.tags())
    assert ("train", "attention") in events.histograms


ODD = [
    "layers[0]/mean",
    "layers_0_/mean",
    "a b",
    "a:b",
    "früh",
    "<script>alert(1)</script>",
    "x\x1b[31m\x00\n`y`",
    "\ud800",
]


def test_odd_characters_are_cleaned_and_collisions_kept_apart(tmp_path: Path, read: Read) -> None:
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(tmp_path))
        for step in range(2):
            for number, name in enumerate(ODD):
                recorder.activation(name, np.full((1, 2), step + number))
            recorder.step()

    events = read(tmp_path)
    means = {tag: values for (_, tag), values in events.scalars.items() if tag.startswith("activation_mean/")}
    assert all(re.fullmatch(r"[-/\w.]+", tag) for tag in means)
    assert sorted(means.values()) == [[(0, i), (1, i + 1)] for i in range(len(ODD))]
    assert means["activation_mean/layers_0_/mean_2"] == [(0, 1), (1, 2)]
    assert means["activation_mean/früh"] == [(0, 4), (1, 5)]


def test_help_shows_names_as_text_only(tmp_path: Path, read: Read) -> None:
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(tmp_path))
        for name in ODD:
            recorder.activation(name, np.ones((1, 2)))

    help = read(tmp_path).help
    texts = [texts[0] for tag, texts in help.items() if tag.startswith("activation_mean")]
    assert len(texts) == len(ODD)
    assert all(text.isprintable() and text.count("`") == 2 for text in texts)


def test_a_metric_cannot_take_the_tag_of_something_else(tmp_path: Path, read: Read) -> None:
    names = ["/loss", "nndiag/nonfinite_total", "activation_mean/h1"]
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(tmp_path))
        recorder.log(loss=1.0, **dict.fromkeys(names, 7.0))
        recorder.activation("h1", np.ones((1, 2)))

    scalars = read(tmp_path).scalars
    assert all(len(points) == 1 and not tag.startswith("/") for (_, tag), points in scalars.items())
    assert scalars["train", "loss"] == [(0, 1.0)]
    assert scalars["train", "nndiag/nonfinite_total"] == [(0, 0.0)]
    assert [value for [(_, value)] in scalars.values()].count(7.0) == 3


# Files


def test_what_is_flushed_is_on_disk(tmp_path: Path, read: Read) -> None:
    with Recorder(every=1, strict=True, flush_seconds=1e9) as recorder:
        recorder.add_exporter(TensorBoard(tmp_path))
        for step in range(500):
            recorder.log(loss=float(step))
            recorder.step()
        recorder.flush()

        assert len(read(tmp_path).scalars["train", "loss"]) == 500


def test_a_resumed_log_directory_keeps_other_peoples_files(tmp_path: Path, read: Read) -> None:
    theirs = [tmp_path / "events.out.tfevents.1.theirs", tmp_path / "train" / "events.out.tfevents.1.theirs"]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        with tensorboardX.SummaryWriter(str(file.parent)) as writer:
            writer.add_scalar("theirs", 1.0, 0)

    by_hand(tmp_path, loss=[1.0, 2.0], validation_loss=[1.5, 2.5])

    events = read(tmp_path)
    assert events.scalars[".", "theirs"] == events.scalars["train", "theirs"] == [(0, 1.0)]
    assert events.scalars["train-2", "loss"] == [(0, 1.0), (1, 2.0)]
    assert events.scalars["validation-2", "loss"] == [(0, 1.5), (1, 2.5)]


def test_exporters_of_the_same_second_do_not_erase_each_other(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    recorders = [Recorder(every=1, strict=True) for _ in range(3)]
    for recorder in recorders:
        recorder.add_exporter(TensorBoard(tmp_path))
    for number, recorder in enumerate(recorders):
        recorder.log(loss=float(number))
        recorder.close()

    events = read(tmp_path)
    scalars = events.scalars
    assert len({file.name for file in events.files}) == 3
    assert {run: scalars[run, "loss"] for run, tag in list(scalars) if tag == "loss"} == {
        "train": [(0, 0.0)], "train-2": [(0, 1.0)], "train-3": [(0, 2.0)],
    }  # fmt: skip


def test_a_change_of_the_working_directory_moves_nothing(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exporter = TensorBoard("logs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    replay(synthetic.run(steps=3, train=1.0, validation={2: 0.5}), exporter)

    assert len(read(tmp_path / "logs").scalars["train", "loss"]) == 3
    assert read(tmp_path / "logs").scalars["validation", "loss"] == [(2, 0.5)]


@pytest.mark.parametrize("below", ["", "logs", "a/b"])
def test_a_directory_that_cannot_be_made_is_refused(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match=r"cannot write TensorBoard events to .*file"):
        TensorBoard(tmp_path / "file" / below)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(event_files, "EventFile", refuse)  # the superuser of a test machine may write anywhere

    with pytest.raises(RunError, match=r"cannot write TensorBoard events to .*: Permission denied"):
        TensorBoard(tmp_path)


@pytest.mark.parametrize("url", ["s3://bucket/logs", "gs://bucket/logs", Path("s3://bucket/logs")])
def test_a_url_is_refused(url: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RunError, match="give a local directory"):
        TensorBoard(url)
    assert not list(tmp_path.iterdir())


def test_what_is_no_target_is_refused() -> None:
    with pytest.raises(TypeError, match="wants a log directory or a SummaryWriter, got int"):
        TensorBoard(7)


# A SummaryWriter of the user's


def writers() -> list[Any]:
    return [
        pytest.param(lambda path: tensorboardX.SummaryWriter(path), id="tensorboardX"),
        pytest.param(
            lambda path: pytest.importorskip("torch.utils.tensorboard").SummaryWriter(path),
            id="torch",
            marks=pytest.mark.frameworks,
        ),
    ]


@pytest.mark.parametrize("writer", writers())
def test_a_users_writer_gets_everything_and_stays_open(
    writer: Callable[[str], Any], trainer: nn.Trainer, data: Data, tmp_path: Path, read: Read
) -> None:
    theirs = writer(str(tmp_path))
    theirs.add_scalar("theirs", 1.0, 0)
    run = fit(trainer, data, theirs).run
    theirs.add_scalar("theirs", 2.0, 1)
    theirs.close()

    events = read(tmp_path)
    assert events.scalars[".", "theirs"] == [(0, 1.0), (1, 2.0)]
    assert [value for _, value in events.scalars[".", "loss/train"]] == pytest.approx(run.train.tolist())
    assert [value for _, value in events.scalars[".", "loss/validation"]] == pytest.approx(run.validation.tolist())
    assert len(events.scalars[".", "grad_norm/01_hidden1.weight"]) == 18
    assert [step for step, _ in events.histograms[".", "weights/01_hidden1.weight"]] == [0, 6, 12]
    assert "six points" in events.texts[".", "nndiag/report/text_summary"][0][1]
    assert len(events.files) == 1


@pytest.mark.parametrize("writer", writers())
def test_a_users_writer_is_not_bothered_with_nonfinite_values(
    writer: Callable[[str], Any], tmp_path: Path, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    with writer(str(tmp_path)) as theirs, Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(theirs))
        for loss in (1.0, math.nan, math.inf, 1e300):
            recorder.log(loss=loss)
            recorder.step()

    scalars = read(tmp_path).scalars
    assert scalars[".", "loss/train"] == [(0, 1.0), (3, LARGEST)]
    assert scalars[".", "nndiag/nonfinite_total"] == [(0, 0), (1, 1), (2, 2), (3, 2)]
    assert not caplog.records


# Afterwards


def test_exported_afterwards_is_what_was_shown_live(
    trainer: nn.Trainer, data: Data, tmp_path: Path, read: Read
) -> None:
    recorder = fit(trainer, data, tmp_path / "live", run=tmp_path / "run")
    run = open_run(tmp_path / "run")
    replay(run, TensorBoard(tmp_path / "later"), Checklist().examine(run))

    live, later = read(tmp_path / "live"), read(tmp_path / "later")
    assert later.scalars == live.scalars
    assert later.histograms == live.histograms
    assert later.help == live.help
    assert later.texts.keys() == live.texts.keys()
    assert recorder.meta.faults == ()


def test_nonfinite_losses_are_the_same_afterwards(tmp_path: Path, read: Read) -> None:
    loss = [1.0, math.nan, math.inf, 2.0]
    recorder = by_hand(tmp_path / "live", loss=loss, validation_loss=[2.0, 2.0, math.inf, 2.0])
    replay(recorder.run, TensorBoard(tmp_path / "later"))

    live, later = read(tmp_path / "live"), read(tmp_path / "later")
    assert str(sorted(later.scalars.items())) == str(sorted(live.scalars.items()))


def test_an_empty_run_is_exported(tmp_path: Path, read: Read) -> None:
    run = Run()
    replay(run, TensorBoard(tmp_path), Checklist().examine(run))

    events = read(tmp_path)
    assert events.tags() == ["nndiag/findings_fail", "nndiag/findings_warn"]
    assert "NOT CHECKED" in events.texts["train", "nndiag/report/text_summary"][0][1]


def test_a_run_of_one_step_is_exported(tmp_path: Path, read: Read) -> None:
    replay(synthetic.run(steps=1, train=2.0, gradients={"norm": {"w": 3.0}}), TensorBoard(tmp_path))

    scalars = read(tmp_path).scalars
    assert scalars["train", "loss"] == [(0, 2.0)]
    assert scalars["train", "grad_norm/w"] == [(0, 3.0)]


# When it fails


def test_a_replay_that_fails_closes_its_exporter(tmp_path: Path) -> None:
    class Full(TensorBoard):
        closed = False

        def write(self, step: int, rows: Any) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            super().close()
            self.closed = True

    full = Full(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        replay(synthetic.run(steps=1, train=1.0), full)
    assert full.closed


def test_an_exporter_that_fails_is_detached_and_the_training_is_the_same(
    data: Data, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(TensorBoard):
        def write(self, step: int, rows: Any) -> None:
            if step == 4:
                raise OSError(28, "No space left on device")
            super().write(step, rows)

    def trained(exporter: TensorBoard | None) -> tuple[Recorder, list[Array]]:
        model = nn.MLP([8, 16, 3], seed=0)
        trainer = nn.Trainer(model, nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.05))
        with nndiag.watch(trainer, every=1) as recorder:
            if exporter:
                recorder.add_exporter(exporter)
            trainer.fit(*data, epochs=2, batch_size=16)
        return recorder, [parameter.value for parameter in model.parameters]

    full = Full(tmp_path)
    recorder, weights = trained(full)
    full.close()

    assert all(np.array_equal(a, b) for a, b in zip(weights, trained(None)[1], strict=True))
    assert recorder.run.steps == 12
    assert [fault["part"] for fault in recorder.meta.faults] == ["Full"]
    assert "Full failed and is detached; training goes on" in caplog.text
