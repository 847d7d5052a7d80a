"""What a real TensorBoard makes of exported runs, asked through its data endpoints, with both of its loaders."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary

import nndiag
from nndiag import Checklist, Recorder, Run, nn, open_run
from nndiag.exporters import TensorBoard, replay

pytestmark = pytest.mark.frameworks
pytest.importorskip("tensorboard")
pytest.importorskip("tensorboard_data_server")

TRIES = 120
PAUSE = 0.25
"""Seconds between tries: half a minute in all, where a server is up in three seconds and reloads every one."""

EVIL = "<script>alert(1)</script>![x](http://evil.test/x.png)`\x1b[31m|"
NONFINITE = (700, 1500, 2200)


class Server:
    """A TensorBoard on loopback."""

    def __init__(self, logdir: Path, load_fast: str, log: Path) -> None:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0",
                   f"--load_fast={load_fast}", "--reload_interval", "1"]  # fmt: skip
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        self._log = log
        self._url = ""

    def start(self) -> None:
        """Wait for the server to say where it listens."""
        self._url = "http://127.0.0.1:" + self.until(self._port, bool)

    def _port(self) -> str:
        text = self._log.read_text(errors="replace")
        assert self._process.poll() is None, f"TensorBoard has ended: {text}"
        match = re.search(r"http://127\.0\.0\.1:(\d+)", text)
        return match[1] if match else ""

    def stop(self) -> None:
        """End it, by force if it does not want to."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str, **query: str) -> Any:
        """The JSON at /data/`path`; None where there is nothing (yet)."""
        try:
            with urlopen(f"{self._url}/data/{path}?{urlencode(query)}", timeout=20) as response:
                return json.load(response)
        except HTTPError as refusal:
            refusal.close()
            return None
        except (URLError, ConnectionError, TimeoutError):
            return None

    def until(self, ask: Callable[[], Any], good: Callable[[Any], Any]) -> Any:
        """The first answer that is good, or else the last."""
        for _ in range(TRIES):
            if good(answer := ask()):
                break
            time.sleep(PAUSE)
        return answer

    def scalars(self, run: str, tag: str, points: int = 1) -> list[tuple[int, float]]:
        """(step, value) of one chart, as soon as there are so many points."""
        found = self.until(
            lambda: self.get("plugin/scalars/scalars", run=run, tag=tag) or [], lambda found: len(found) >= points
        )
        return [(step, float(value)) for _, step, value in found]

    def tags(self, plugin: str, run: str) -> dict[str, Any]:
        """Tag → metadata of one run, once its report, which is written last, is there."""
        self.text(run)
        found: dict[str, Any] = self.get(f"plugin/{plugin}/tags")[run]
        return found

    def text(self, run: str) -> str:
        """The report of a run as TensorBoard renders it."""
        ask = {"run": run, "tag": "nndiag/report/text_summary"}
        [event] = self.until(lambda: self.get("plugin/text/text", **ask), bool)
        text: str = event["text"]
        return text


def training(folder: Path, logdir: Path) -> Run:
    """A recorded training of 4 epochs of 6 steps, live in `logdir`/live and exported to `logdir`/later."""
    rng, y = np.random.default_rng(0), np.arange(96) % 3
    x = (rng.standard_normal((96, 8)) + 2.0 * np.eye(3, 8)[y]).astype(np.float32)
    trainer = nn.Trainer(nn.MLP([8, 16, 12, 3], seed=0), nn.SoftmaxCrossEntropy(), nn.SGD(lr=0.05, momentum=0.9))
    with nndiag.watch(trainer, run=folder, every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(logdir / "live"))
        trainer.fit(x, y, validation=(x[:30], y[:30]), epochs=4, batch_size=16)
        recorder.check()
    run = open_run(folder)
    replay(run, TensorBoard(logdir / "later"), Checklist().examine(run))
    return run


def by_hand(logdir: Path, feed: Callable[[Recorder], None]) -> None:
    """A run that `feed` makes."""
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(logdir))
        feed(recorder)
        recorder.check()


def long(recorder: Recorder) -> None:
    """3000 steps, three of which have no finite loss."""
    for step in range(3000):
        recorder.log(loss=math.nan if step in NONFINITE else 1.0 / (1 + step))
        recorder.step()


def odd(recorder: Recorder) -> None:
    """Names and numbers that are hard to show."""
    recorder.describe(name=EVIL, layers=[{"name": EVIL, "kind": "relu"}, {"name": "früh:1"}])
    for _ in range(20):
        recorder.activation(EVIL, np.zeros((4, 4)))
        recorder.activation("früh:1", np.full((4, 4), 1e-50))
        recorder.histogram(f"activations/{EVIL}", np.full(4, 1e300))
        recorder.histogram("activations/früh:1", np.array([-1e300, 1e300]))
        recorder.log(loss=1e300)
        recorder.step()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log directory."""
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def trained(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What was trained; fills the log directory."""
    by_hand(logs / "long", long)
    by_hand(logs / "odd", odd)
    return training(tmp_path_factory.mktemp("runs") / "run", logs)


@pytest.fixture(scope="module", params=["false", "true"], ids=["python-loader", "rust-loader"])
def server(
    request: pytest.FixtureRequest, logs: Path, trained: Run, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """TensorBoard over the log directory."""
    started = Server(logs, request.param, tmp_path_factory.mktemp("server") / "log.txt")
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.mark.parametrize("logdir", ["live", "later"])
def test_every_group_of_charts_is_there(logdir: str, server: Server, trained: Run) -> None:
    for tag, frame, statistic, name in (
        ("loss", "losses", "train", "train"),
        ("activation_mean/01_hidden1", "activations", "mean", "hidden1"),
        ("activation_variance/04_hidden2.relu", "activations", "variance", "hidden2.relu"),
        ("grad_norm/03_hidden2.weight", "gradients", "norm", "hidden2.weight"),
        ("update_ratio/05_output.bias", "updates", "ratio", "output.bias"),
    ):
        series = trained.series(frame, statistic, name)
        points = server.scalars(f"{logdir}/train", tag, len(series))
        assert [step for step, _ in points] == series.index.tolist(), tag
        assert [value for _, value in points] == pytest.approx(series.tolist(), rel=1e-6), tag


@pytest.mark.parametrize("logdir", ["live", "later"])
def test_two_runs_share_the_chart_of_the_loss(logdir: str, server: Server, trained: Run) -> None:
    points = server.scalars(f"{logdir}/validation", "loss", 4)

    assert [step for step, _ in points] == [6, 12, 18, 24]
    assert [value for _, value in points] == pytest.approx(trained.validation.tolist(), rel=1e-6)
    assert "loss" in server.tags("scalars", f"{logdir}/train")


def test_layers_are_numbered_in_forward_order(server: Server) -> None:
    tags = [tag for tag in server.tags("scalars", "live/train") if tag.startswith("activation_mean")]

    layers = ("01_hidden1", "02_hidden1.relu", "03_hidden2", "04_hidden2.relu", "05_output")
    assert sorted(tags) == [f"activation_mean/{layer}" for layer in layers]


def test_charts_are_explained(server: Server) -> None:
    tags = server.tags("scalars", "live/train")

    description = tags["grad_norm/01_hidden1.weight"]["description"]
    assert description == "<p><code>hidden1.weight</code>. L2 norm of the gradient, before clipping.</p>"


def test_histograms_are_there(server: Server, trained: Run) -> None:
    tags = server.tags("histograms", "live/train")
    ask = {"run": "live/train", "tag": "weights/01_hidden1.weight"}
    (_, step, buckets), *_ = server.get("plugin/histograms/histograms", **ask)

    assert {"activations/02_hidden1.relu", "gradients/05_output.bias", "weights/01_hidden1.weight"} <= set(tags)
    row = trained.histograms.xs("weights/hidden1.weight", axis=1, level="tensor").loc[step]
    assert (buckets[0][0], buckets[-1][1]) == pytest.approx((row["low"], row["high"]), rel=1e-6)
    assert sum(count for _, _, count in buckets) == 16 * 8


def test_the_report_is_rendered(server: Server) -> None:
    text = server.text("live/train")

    assert re.search(r"<h1>[A-Z]+: run: 24 steps", text)
    assert text.count("<th>reason</th>") == text.count("<th>the six points</th>") == 1
    assert re.search(r"<td>\w+ ND001 nonfinite-input</td>\s*<td>inputs and targets are finite</td>", text)
    assert "gradient norms are tracked by layer" in text


def test_nonfinite_losses_survive_the_sampling(server: Server) -> None:
    totals = server.scalars("long/train", "nndiag/nonfinite_total", 900)

    assert len(totals) <= 1001 < 3000
    assert {total for _, total in totals} == {0.0, 1.0, 2.0, 3.0}
    for count, step in enumerate(NONFINITE):
        assert max(at for at, total in totals if total == count) < step
    assert totals[-1] == (2999, 3.0)


def test_names_are_shown_as_text_and_never_as_html(server: Server) -> None:
    text = server.text("odd/train")
    tags = server.tags("scalars", "odd/train")

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    for shown in (text, *(tags[tag]["description"] for tag in tags)):
        assert not re.search(r"<(script|img|a)\b|[\x00-\x08\x0b-\x1f]", shown)
    assert all(re.fullmatch(r"[-/\w.]+", tag) for tag in tags)
    assert "&lt;script&gt;" in next(tags[tag]["description"] for tag in tags if tag.startswith("activation_dead/01_"))


def test_tags_with_letters_of_any_language_can_be_read(server: Server) -> None:
    points = server.scalars("odd/train", "activation_mean/02_früh_1", 20)

    assert len(points) == 20
    assert all(0 < value < 1e-37 for _, value in points)


def test_the_largest_numbers_stay_finite(server: Server) -> None:
    points = server.scalars("odd/train", "loss", 20)
    histograms = [server.get("plugin/histograms/histograms", run="odd/train", tag=tag)
                  for tag in server.tags("histograms", "odd/train")]  # fmt: skip

    assert [value for _, value in points] == pytest.approx([3.4e38] * 20, rel=0.01)
    assert len(histograms) == 2
    for histogram in histograms:
        assert np.isfinite(np.array([buckets for _, _, buckets in histogram], float)).all()


def test_a_growing_run_is_seen_before_it_ends(server: Server, logs: Path, request: pytest.FixtureRequest) -> None:
    name = f"growing-{request.node.callspec.id}"
    with Recorder(every=1, strict=True, flush_seconds=1e9) as recorder:
        recorder.add_exporter(TensorBoard(logs / name))
        for count in (30, 60):
            while recorder.step_number < count:
                recorder.log(loss=float(recorder.step_number))
                recorder.step()
            recorder.flush()

            assert server.scalars(f"{name}/train", "loss", count) == [(i, float(i)) for i in range(count)]


def test_other_peoples_growing_files_are_still_followed(
    server: Server, logs: Path, request: pytest.FixtureRequest
) -> None:
    """The Python loader follows only the last file of a folder, so that theirs must not get one of ours beside it."""
    name = f"shared-{request.node.callspec.id}"
    (logs / name / "train").mkdir(parents=True)
    theirs = EventsWriter(str(logs / name / "train" / "events"))
    with Recorder(every=1, strict=True) as recorder:
        recorder.add_exporter(TensorBoard(logs / name))
        for step in range(3):
            theirs.write_event(Event(wall_time=time.time(), step=step, summary=Summary(
                value=[Summary.Value(tag="theirs", simple_value=step)])))  # fmt: skip
            theirs.flush()
            recorder.log(loss=float(step))
            recorder.step()
            recorder.flush()

            assert server.scalars(f"{name}/train", "theirs", step + 1) == [(i, float(i)) for i in range(step + 1)]
            assert server.scalars(f"{name}/train-2", "loss", step + 1) == [(i, float(i)) for i in range(step + 1)]
    theirs.close()
