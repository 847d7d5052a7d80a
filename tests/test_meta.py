"""What a run says of itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nndiag
from nndiag import Recorder, meta, nn, structure
from nndiag.meta import KINDS, LayerMeta, Meta, ParameterMeta
from nndiag.statistics import Array


def test_layers_may_be_plain_mappings() -> None:
    meta = Meta().describe({"layers": [{"name": "h1", "kind": "relu", "shape": [4]}]})

    assert meta.layers == (LayerMeta("h1", "relu", (4,)),)
    assert meta.layer("h1").kind == "relu"
    assert meta.layer("h2").kind == "unknown"


def test_what_a_later_version_says_of_a_layer_is_passed_over() -> None:
    assert Meta.from_dict({"layers": [{"name": "h1", "extra": 1}]}).layers == (LayerMeta("h1"),)


def test_a_round_trip_through_json_types_keeps_everything() -> None:
    meta = Meta().describe({"parameters": [{"name": "w", "shape": (3, 4)}], "faults": [{"part": "x"}], "batch_size": 8})

    assert Meta.from_dict(meta.to_dict() | {"of a later version": 1}) == meta


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"layer": []}, "describe\\(\\) got layer; a run can be told name, "),
        ({"layers": ["h1"]}, 'wanted a mapping such as .*, got \'h1\''),
        ({"layers": [{"kind": "relu"}]}, "needs a name"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(told: dict[str, object], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        Recorder().describe(**told)


def test_every_kind_that_checks_tell_apart_is_known() -> None:
    told = (
        structure.LINEAR,
        structure.NORMS,
        structure.RECTIFIERS,
        structure.SQUASHING,
        structure.NEITHER,
        structure.ODD,
    )

    assert {kind for kinds in told for kind in kinds} <= set(KINDS)


@pytest.mark.parametrize(("shape", "named"), [((12, 24), True), ((24, 12), False), ((24, 24), False)])
def test_weights_that_are_inputs_by_outputs_are_named_once(
    shape: tuple[int, int], named: bool, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder()
    for _ in range(2):
        recorder.describe(
            layers=[{"name": "fc1", "kind": "affine", "shape": [24]}],
            parameters=[{"name": "w1", "layer": "fc1", "shape": shape}],
        )

    assert caplog.text.count("w1: these weights look like (in, out)") == named


@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("Linear", "linear"),
        ("ReLU", "relu"),
        ("LeakyReLU", "leaky_relu"),
        ("BatchNorm", "batch_norm"),
        ("Maxout", "Maxout"),
    ],
)
def test_a_kind_may_be_in_other_letters_and_another_is_ones_own(kind: str, meant: str) -> None:
    recorder = Recorder()
    recorder.describe(layers=[{"name": "h1", "kind": kind}])

    assert recorder.meta.layer("h1").kind == meant


@pytest.mark.parametrize(("shape", "fan_in", "fan_out"), [
    ((10, 64), 64, 10), ((8, 3, 5, 5), 75, 200), ((10,), 0, 0), ((), 0, 0),
])  # fmt: skip
def test_fans_are_what_one_unit_takes_and_one_input_reaches(shape: tuple[int, ...], fan_in: int, fan_out: int) -> None:
    assert (ParameterMeta("w", shape=shape).fan_in, ParameterMeta("w", shape=shape).fan_out) == (fan_in, fan_out)


@pytest.mark.parametrize(("name", "kind"), [("h1.bias", "bias"), ("h1.weight", "weight"), ("w", "weight")])
def test_the_kind_of_a_parameter_that_is_not_described_is_guessed(name: str, kind: str) -> None:
    assert Meta().parameter(name).kind == kind


def test_a_loss_may_expect_what_checks_know() -> None:
    assert Meta().describe({"loss": {"expects": "log_probabilities"}}).loss["expects"] == "log_probabilities"
    with pytest.raises(ValueError, match="wanted one of logits, probabilities, log_probabilities, real"):
        Meta().describe({"loss": {"expects": "logarithms"}})


RECORDED: dict[str, Any] = {
    "layers": [{"name": "h1", "kind": "affine"}, {"name": "h1.relu", "kind": "relu"}],
    "parameters": [{"name": "h1.weight", "shape": [4, 3]}, {"name": "lazy.weight"}],
}


@pytest.mark.parametrize(
    ("told", "same"),
    [
        (RECORDED, True),
        ({"parameters": RECORDED["parameters"]}, True),  # no layer has put out anything yet
        ({"layers": RECORDED["layers"][:1]}, True),
        ({"layers": [{"name": "h1", "kind": "affine", "shape": [4]}]}, True),
        ({"parameters": [{"name": "h1.weight", "shape": [4, 3]}, {"name": "lazy.weight", "shape": [5]}]}, True),
        ({"parameters": [*RECORDED["parameters"], {"name": "kept", "registered": False}]}, True),
        ({"layers": [{"name": "h2", "kind": "affine"}]}, False),
        ({"layers": [{"name": "h1", "kind": "convolution"}]}, False),
        ({"parameters": RECORDED["parameters"][:1]}, False),
        ({"parameters": [*RECORDED["parameters"], {"name": "h2.weight"}]}, False),
        ({"parameters": [{"name": "h1.weight", "shape": [8, 3]}, {"name": "lazy.weight"}]}, False),
    ],
)
def test_a_network_is_known_by_its_layers_and_parameters(told: dict[str, Any], same: bool) -> None:
    assert Meta().describe(told).may_be_of(Meta().describe(RECORDED)) is same


@pytest.mark.parametrize(("sizes", "warns"), [([8, 16, 3], False), ([8, 32, 3], True), ([8, 16, 16, 3], True)])
def test_who_goes_on_with_another_network_is_told(
    sizes: list[int], warns: bool, tmp_path: Path, data: tuple[Array, Array], caplog: pytest.LogCaptureFixture
) -> None:
    for widths, resume in (([8, 16, 3], False), (sizes, True)):
        trainer = nn.Trainer(nn.MLP(widths), nn.SoftmaxCrossEntropy(), nn.SGD(0.1))
        with nndiag.watch(trainer, run=tmp_path / "run", resume=resume, strict=True):
            trainer.fit(*data, epochs=2, batch_size=20)

    assert caplog.text.count("with other layers than the one that resumes it") == warns


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1)} if levels else {}


@pytest.mark.parametrize(
    "changes",
    [{"loss": {"weight": [0.5] * 100_001}}, {"loss": {"weight": np.zeros(100_001)}}, {"seeds": nested(17)}],
)
def test_what_no_reader_would_take_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give a summary of them"):
        Meta().describe(changes)


def test_what_a_reader_takes_is_told(tmp_path: Path) -> None:
    with nndiag.Recorder(tmp_path / "run") as recorder:
        recorder.describe(loss={"weight": [0.5] * 99_000}, seeds=nested(15))
        recorder.describe(parameters=[{"name": "w", "kind": "weight", "std": float("nan")}])

    json.loads((tmp_path / "run/run.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    run = nndiag.open_run(tmp_path / "run")
    assert len(run.meta.loss["weight"]) == 99_000
    assert run.meta.parameters[0].std is None


@pytest.mark.parametrize(
    ("name", "table"), [("loss", meta.LOSS), ("optimizer", meta.OPTIMIZER), ("clipping", meta.CLIPPING)]
)
def test_what_checks_read_of_a_setting_is_in_its_table_and_in_the_docs(name: str, table: dict[str, str]) -> None:
    root = Path(__file__).parent.parent
    code = "\n".join(path.read_text("utf-8") for path in sorted((root / "nndiag").rglob("*.py")))
    read = set(re.findall(rf'\b{name}(?:\.get\(|\[)"([a-z_]+)"', code))
    docs = (root / "docs" / "run_folder.md").read_text("utf-8")

    assert read
    assert read <= table.keys()
    assert all(f"| `{key}` | {meaning} |" in docs for key, meaning in table.items())


@pytest.mark.parametrize("wrong", [{"registered": 1}, {"written": "no"}, {"frozen": None}, {"std": "0.1"}])
def test_a_parameter_of_the_wrong_type_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(wrong))}=.* of 'w' has the wrong type"):
        Meta().describe({"parameters": [{"name": "w", **wrong}]})
