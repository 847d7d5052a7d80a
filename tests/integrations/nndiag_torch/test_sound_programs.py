"""Sound programs of kinds that have made nndiag cry wolf: not one finding in any of them."""

from __future__ import annotations

from functools import partial

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.frameworks

import nndiag  # noqa: E402
from benchmarks.diagnosis_torch import zoo  # noqa: E402

AT_EVERY_STEP = (
    "scaled-cosines", "contrastive", "learned-prototypes", "low-rank-adaptation", "counts", "q-learning-with-a-slow-copy",
    "learned-pooling", "steps-first", "gated-channels", "sigmoids", "stochastic-depth", "infinite-mask", "scaled-outputs",
    "maximised-likelihood", "shared-modules",
)  # fmt: skip
AS_THE_DEFAULT_READS = (
    "policy-gradient", "actor-and-critic", "q-learning-with-a-copy", "gaussian-likelihood", "resting-base",
)  # fmt: skip
CADENCES = {**dict.fromkeys(AT_EVERY_STEP, 1), **dict.fromkeys(AS_THE_DEFAULT_READS, "auto")}


@pytest.mark.parametrize("name", CADENCES)
def test_a_sound_program_has_no_finding(name: str) -> None:
    error, recorder = zoo.train(name, 0, partial(nndiag.watch, every=CADENCES[name]))
    report = recorder.check()

    assert error <= zoo.ZOO[name].most
    assert report.verdict is nndiag.Verdict.PASS, report.headlines
