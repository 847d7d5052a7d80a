"""Probes on PyTorch modules."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nndiag
from nndiag import NndiagError, Recorder, Report, UnknownName, Verdict, probes

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

pytestmark = pytest.mark.frameworks

Data = tuple[Any, Any]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def clusters(*shape: int, seed: int = 0) -> Data:
    """Three classes around random centres: inputs (96, *shape), ids (96,)."""
    rng = np.random.default_rng(seed)
    y = np.arange(96) % 3
    x = 1.5 * rng.standard_normal((3, *shape))[y] + rng.standard_normal((96, *shape))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def mlp(*between: Any, width: int = 32) -> Any:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), *between, nn.Linear(width, 3))


def verdict(report: Report) -> Verdict:
    assert len(report.checks) == 1
    return report.checks[0].verdict


def said(probe: probes.Probe, model: Any, data: Data, loss: Any = None, lr: float = 1e-2) -> Report:
    """The report of `probe` on `model`, with cross-entropy and Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    return probe(model, *data, loss=loss or nn.CrossEntropyLoss(), optimizer=optimizer)


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 24, num_layers=2, dropout=0.2, batch_first=batch_first)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Any) -> Any:
        first = torch.zeros(2, x.shape[0 if self.lstm.batch_first else 1], 24)
        return self.head(self.lstm(x, (first, first))[0][:, -1])


class Attending(nn.Module):
    """A causal language model of 12 symbols, position by position."""

    def __init__(self) -> None:
        super().__init__()
        self.symbols = nn.Embedding(12, 16)
        self.places = nn.Parameter(0.02 * torch.randn(6, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 12)

    def forward(self, x: Any) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.encoder(self.symbols(x) + self.places, mask=mask)).transpose(1, 2)


def convolutional() -> Any:
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                         nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))  # fmt: skip


def text() -> Data:
    symbols = torch.randint(0, 12, (96, 7), generator=torch.Generator().manual_seed(0))
    return symbols[:, :-1], (symbols[:, :-1] * 5 + 1) % 12


def one_hot() -> Data:
    x, y = clusters(8)
    return x, F.one_hot(y, 3).float()


def sgd(lr: float) -> Callable[[Any], Any]:
    return lambda parameters: torch.optim.SGD(parameters, lr, momentum=0.9, weight_decay=1e-4)


def adam(lr: float) -> Callable[[Any], Any]:
    return lambda parameters: torch.optim.AdamW(parameters, lr)


SOUND: dict[str, tuple[Callable[[], Any], Callable[[], Data], Any, Callable[[Any], Any]]] = {
    "mlp": (mlp, lambda: clusters(8), nn.CrossEntropyLoss(label_smoothing=0.1), sgd(0.1)),
    "functional loss": (lambda: mlp(nn.Linear(32, 32), nn.GELU()), lambda: clusters(8), F.cross_entropy, adam(1e-2)),
    "dropout": (lambda: mlp(nn.Dropout(0.5), width=64), lambda: clusters(8), nn.CrossEntropyLoss(), adam(1e-2)),
    "cnn with batch norm": (convolutional, lambda: clusters(1, 6, 6), nn.CrossEntropyLoss(), adam(1e-2)),
    "lstm": (Recurrent, lambda: clusters(5, 4), nn.CrossEntropyLoss(), adam(1e-2)),
    "transformer": (Attending, text, nn.CrossEntropyLoss(), adam(3e-3)),
    "regression": (lambda: mlp(nn.Linear(32, 32), nn.Tanh()), one_hot, nn.MSELoss(), adam(1e-2)),
    "binary": (lambda: mlp(nn.LayerNorm(32)), one_hot, nn.BCEWithLogitsLoss(), adam(1e-2)),
}


@pytest.mark.parametrize("name", SOUND)
def test_no_probe_finds_anything_in_a_sound_program(name: str) -> None:
    build, data, loss, optimizer = SOUND[name]
    model = build()

    found = {p.code: verdict(p(model, *data(), loss=loss, optimizer=optimizer(model.parameters()))) for p in probes.ALL}

    assert set(found.values()) <= {Verdict.PASS, Verdict.NOT_CHECKED}
    assert [code for code, told in found.items() if told is Verdict.NOT_CHECKED] == open_probes(model)


def open_probes(model: Any) -> list[str]:
    """NDP08 without dropout, NDP09 with normalisation or fewer than two hidden layers that say their kind."""
    modules = list(model.modules())
    drops = any(isinstance(m, nn.Dropout | nn.LSTM) for m in modules)
    norms = any("Norm" in type(m).__name__ for m in modules)
    hidden = sum(isinstance(m, nn.ReLU | nn.GELU | nn.Tanh) for m in modules)
    return ([] if drops else ["NDP08"]) + (["NDP09"] if norms or hidden < 2 else [])


def everything(model: Any, optimizer: Any) -> list[Any]:
    """All that a probe could change: values and gradients, modes and hooks, the optimiser, every generator, global settings."""
    return [
        {name: (t.tolist(), t.requires_grad, t.grad_fn) for name, t in model.state_dict(keep_vars=True).items()},
        {name: None if p.grad is None else p.grad.tolist() for name, p in model.named_parameters()},
        [(name, m.training, list(m._forward_hooks), list(m._forward_pre_hooks)) for name, m in model.named_modules()],
        repr(optimizer.state_dict()),
        [id(p) for group in optimizer.param_groups for p in group["params"]],
        (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()),  # noqa: NPY002
        (torch.get_default_dtype(), torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()),
    ]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("probe", probes.ALL, ids=lambda probe: probe.name)
def test_a_probe_leaves_everything_as_it_was(probe: probes.Probe, training: bool) -> None:
    model = nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(24, 3)
    )
    x, y = clusters(1, 8)
    loss, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), 1e-2)
    loss(model(x), y).backward()
    optimizer.step()
    model.train(training)
    model[1].eval()
    inputs, before = (x.clone(), y.clone()), copy.deepcopy(everything(model, optimizer))

    probe(model, x, y, loss=loss, optimizer=optimizer)

    assert everything(model, optimizer) == before
    assert torch.equal(x, inputs[0])
    assert torch.equal(y, inputs[1])


def test_training_goes_on_bit_for_bit_after_all_probes() -> None:
    results = []
    for probed in (False, True):
        torch.manual_seed(0)
        model = mlp(nn.Dropout(0.5))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        x, y = clusters(8)
        if probed:
            probes.run_all(model, x, y, Recorder(), loss=nn.CrossEntropyLoss(), optimizer=optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))

    assert torch.equal(*results)


def test_hooks_do_not_hear_of_probes() -> None:
    model, heard = mlp(), []
    model[0].register_forward_hook(lambda *_: heard.append("forward"))
    model[0].register_forward_pre_hook(lambda *_: heard.append("before"))
    model[0].register_full_backward_hook(lambda *_: heard.append("back"))
    model[0].weight.register_hook(lambda _: heard.append("gradient"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.register_step_post_hook(lambda *_: heard.append("step"))

    probes.run_all(model, *clusters(8), Recorder(), loss=nn.CrossEntropyLoss(), optimizer=optimizer)

    assert heard == []


def test_gradients_do_not_reach_a_model_that_the_loss_holds() -> None:
    model = mlp()

    def decayed(outputs: Any, targets: Any) -> Any:
        return F.cross_entropy(outputs, targets) + 1e-3 * sum(p.square().sum() for p in model.parameters())

    assert verdict(said(probes.overfit_tiny_batch, model, clusters(8), decayed)) in Verdict
    assert all(p.grad is None for p in model.parameters())


class Forgetful(torch.autograd.Function):
    """A ReLU whose backward pass forgets the mask."""

    @staticmethod
    def forward(context: Any, x: Any) -> Any:
        return x.clamp(min=0)

    @staticmethod
    def backward(context: Any, gradient: Any) -> Any:
        return gradient


class Layer(nn.Module):
    """A layer made of a function of its input, or of the layer and its input."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


@pytest.mark.parametrize("function", [Forgetful.apply, lambda x: x.detach()])
def test_a_gradient_that_is_wrong_or_cut_off_fails(function: Callable[[Any], Any]) -> None:
    report = said(probes.gradient_check, mlp(nn.Linear(32, 32), Layer(function)), clusters(8))

    assert verdict(report) is Verdict.FAIL
    assert {finding.parameter for finding in report.findings} <= {"0.weight", "0.bias", "2.weight", "2.bias", None}
    assert "between 2.bias and 4.weight" in report.findings[0].fix


def test_a_frozen_parameter_has_no_gradient_to_check() -> None:
    model = mlp(nn.Linear(32, 32), nn.Tanh())
    model[0].weight.requires_grad_(False)

    report = said(probes.gradient_check, model, clusters(8))

    assert verdict(report) is Verdict.PASS
    assert "0.weight" not in report.meta.probes["NDP01"]["errors"]
    assert "2.weight" in report.meta.probes["NDP01"]["errors"]


MIXERS = {
    "the mean of the batch": lambda x: x - x.mean(0),
    "softmax over the batch": lambda x: x.softmax(0),
    "a reshape of the transpose": lambda x: x.t().reshape(x.shape),
}


@pytest.mark.parametrize("name", MIXERS)
def test_a_layer_that_mixes_samples_is_named(name: str) -> None:
    report = said(probes.batch_independence, mlp(Layer(MIXERS[name])), clusters(8))

    assert verdict(report) is Verdict.FAIL
    assert report.findings[0].layer == "2"


@pytest.mark.parametrize(("batch_first", "expected"), [(True, Verdict.PASS), (False, Verdict.FAIL)])
def test_a_recurrent_layer_that_takes_the_batch_for_time_is_found(batch_first: bool, expected: Verdict) -> None:
    assert verdict(said(probes.batch_independence, Recurrent(batch_first), clusters(5, 4))) is expected


SHAPES = {
    "a fixed batch size": (lambda x: x.view(64, 32), "a batch of 3 fails: shape '[64, 32]' is invalid", Verdict.FAIL),
    "the first sample only": (lambda x: x[:1], "the model gave (1, 3), wanted (3, any)", Verdict.FAIL),
    "all axes squeezed": (lambda x: x.squeeze(), "the model gave (3,), wanted (1, 3)", Verdict.WARN),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_do_not_follow_the_batch_are_told(name: str) -> None:
    function, words, expected = SHAPES[name]

    report = said(probes.shapes, mlp(Layer(function)), clusters(8))

    assert verdict(report) is expected
    assert words in report.findings[0].message


class Odd(nn.Linear):
    """A layer that puts out one value less than it declares."""

    def forward(self, x: Any) -> Any:
        return super().forward(x)[..., 1:]


def test_a_layer_that_does_not_keep_to_its_declared_width_is_named() -> None:
    report = said(probes.shapes, nn.Sequential(nn.Linear(8, 8), Odd(8, 4)), clusters(8))

    assert verdict(report) is Verdict.FAIL
    assert report.findings[0].layer == "1"
    assert "gave (3, 3), wanted (any, 4)" in report.findings[0].message


@pytest.mark.parametrize("data", [clusters(8), one_hot()], ids=["classes", "regression"])
def test_a_network_that_does_not_see_its_inputs_is_found(data: Data) -> None:
    loss = nn.CrossEntropyLoss() if data[1].ndim == 1 else nn.MSELoss()

    report = said(probes.input_independence, nn.Sequential(Layer(torch.zeros_like), mlp()), data, loss)

    assert verdict(report) is Verdict.WARN


@pytest.mark.parametrize(("lr", "words"), [(1e-7, "far too low"), (1e-3, ""), (1e-2, ""), (5.0, "diverges")])
def test_a_learning_rate_is_placed(lr: float, words: str) -> None:
    report = said(probes.lr_range, mlp(nn.Linear(32, 32), nn.ReLU()), clusters(8), lr=lr)

    assert verdict(report) is (Verdict.WARN if words else Verdict.PASS)
    assert words in report.checks[0].reason


def test_the_learning_rate_is_that_of_the_schedule_and_not_of_its_warm_up() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 1e6)

    report = probes.lr_range(model, *clusters(8), loss=nn.CrossEntropyLoss(), optimizer=optimizer)

    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-7)
    assert report.meta.probes["NDP06"]["lr"] == pytest.approx(0.1)
    assert verdict(report) is Verdict.PASS


def noisy(x: Any) -> Any:
    return x + torch.as_tensor(np.random.default_rng().standard_normal(x.shape), dtype=x.dtype)


@pytest.mark.parametrize(
    ("function", "words"), [(lambda x: F.dropout(x, 0.3), "in evaluation mode"), (noisy, "in evaluation mode")]
)
def test_dropout_that_is_always_on_is_no_determinism(function: Callable[[Any], Any], words: str) -> None:
    report = said(probes.determinism, mlp(Layer(function)), clusters(8))

    assert verdict(report) is Verdict.WARN
    assert words in report.findings[0].message
    assert ("two trainings" in report.findings[-1].message) is (function is noisy)


class Dropping(nn.Module):
    """Dropout as a function, inside the forward pass."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Any) -> Any:
        return F.dropout(x, self.rate, self.training)


@pytest.mark.parametrize("make", [nn.Dropout, Dropping])
@pytest.mark.parametrize(("rate", "expected"), [(0.5, Verdict.PASS), (0.95, Verdict.WARN)])
def test_dropout_is_compared_with_none(make: Callable[[float], Any], rate: float, expected: Verdict) -> None:
    model = mlp(make(rate), nn.Linear(32, 32), nn.ReLU(), make(rate))

    assert verdict(said(probes.dropout_dominates, model, clusters(8), lr=3e-3)) is expected


def test_recurrent_dropout_is_dropout_too() -> None:
    report = said(probes.dropout_dominates, Recurrent(), clusters(5, 4))

    assert verdict(report) is Verdict.PASS


@pytest.mark.parametrize(("std", "words"), [(0.02, "shrinks"), (np.sqrt(2 / 64), ""), (1.0, "grows")])
def test_signals_are_followed_through_depth_both_ways(std: float, words: str) -> None:
    layers = [part for _ in range(8) for part in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), *layers, nn.Linear(64, 3))
    for layer in model[2:18:2]:
        nn.init.normal_(layer.weight, std=std)

    report = said(probes.signal_propagation, model, clusters(8))

    assert verdict(report) is (Verdict.WARN if words else Verdict.PASS)
    assert [finding.layer for finding in report.findings] == (["17", "1"] if words else [])
    assert all(words in finding.message for finding in report.findings)


class TwoInputs(nn.Module):
    """A model of two inputs that gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 16), nn.Linear(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, left: Any, right: Any) -> dict[str, Any]:
        hidden = torch.tanh(self.left(left) + self.right(right))
        return {"mean": hidden.mean(), "logits": self.head(hidden)}


@pytest.mark.parametrize("form", [tuple, dict])
def test_inputs_may_be_tuples_or_dicts_and_outputs_dicts(form: type) -> None:
    x, y = clusters(8)
    inputs = (x, x.flip(1)) if form is tuple else {"left": x, "right": x.flip(1)}

    def loss(outputs: Any, targets: Any) -> Any:
        return F.cross_entropy(outputs["logits"], targets)

    verdicts = {probe.code: verdict(said(probe, TwoInputs(), (inputs, y), loss)) for probe in probes.ALL}

    assert {code for code, told in verdicts.items() if told is not Verdict.PASS} == {"NDP08"}
    assert verdicts["NDP08"] is Verdict.NOT_CHECKED


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_torch_computes_in_hooks_are_kept() -> None:
    model = mlp(nn.utils.weight_norm(nn.Linear(32, 32)), nn.Tanh())
    model(clusters(8)[0])

    report = said(probes.gradient_check, model, clusters(8))

    assert verdict(report) is Verdict.PASS
    assert "2.weight_g" in report.meta.probes["NDP01"]["errors"]


@pytest.mark.parametrize("name", ["spectral norm", "noise"])
def test_a_loss_that_is_another_one_each_time_has_no_gradient_to_check(name: str) -> None:
    spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32))

    report = said(probes.gradient_check, mlp(spectral if name == "spectral norm" else Layer(noisy)), clusters(8))

    assert verdict(report) is Verdict.NOT_CHECKED
    assert "another one at every evaluation" in report.checks[0].reason


def test_tied_weights_stay_tied_on_the_copy() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
    model[2].weight = model[0].weight

    report = said(probes.gradient_check, model, clusters(8))

    assert verdict(report) is Verdict.PASS
    assert "2.weight" not in report.meta.probes["NDP01"]["errors"]


def test_an_optimiser_that_asks_for_the_loss_again_works() -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1)

    report = probes.overfit_tiny_batch(model, *clusters(8), loss=nn.CrossEntropyLoss(), optimizer=optimizer)

    assert verdict(report) is Verdict.PASS


def test_probes_work_where_gradients_are_switched_off() -> None:
    with torch.no_grad():
        assert verdict(said(probes.gradient_check, mlp(), clusters(8))) is Verdict.PASS
        assert verdict(said(probes.overfit_tiny_batch, mlp(), clusters(8))) is Verdict.PASS


def test_a_trained_model_in_evaluation_mode_is_probed_in_training_mode() -> None:
    model = convolutional().eval()

    assert verdict(said(probes.overfit_tiny_batch, model, clusters(1, 6, 6))) is Verdict.PASS


def test_without_loss_or_optimizer_the_probes_that_need_them_say_so() -> None:
    model, (x, y) = mlp(), clusters(8)

    alone = {probe.code: probe(model, x, y).checks[0] for probe in probes.ALL}
    with_loss = {probe.code: probe(model, x, y, loss=nn.CrossEntropyLoss()).checks[0] for probe in probes.ALL}

    assert {code for code, result in alone.items() if result.verdict is Verdict.PASS} == {"NDP03", "NDP05", "NDP07"}
    assert alone["NDP01"].reason == "needs loss=loss beside the model"
    assert alone["NDP02"].reason == "needs loss=loss and optimizer=optimizer beside the model"
    assert with_loss["NDP01"].verdict is Verdict.PASS
    assert with_loss["NDP06"].reason == "needs optimizer=optimizer beside the model"
    assert "training was not repeated" in with_loss["NDP07"].notes[0]


def test_what_all_probes_measured_is_in_the_report_of_the_run(tmp_path: Any) -> None:
    model = mlp()
    with Recorder(tmp_path / "run") as recorder:
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        probes.run_all(model, *clusters(8), recorder, loss=nn.CrossEntropyLoss(), optimizer=optimizer)

    report = nndiag.Checklist(select="NDP").examine(nndiag.open_run(tmp_path / "run"))

    verdicts = {check.code: check.verdict for check in report.checks}
    assert {code for code, told in verdicts.items() if told is Verdict.NOT_CHECKED} == {"NDP08", "NDP09"}
    assert set(verdicts.values()) == {Verdict.PASS, Verdict.NOT_CHECKED}


def test_a_model_that_cannot_be_copied_says_why() -> None:
    model = mlp()
    model.lines = (line for line in "")

    report = said(probes.shapes, model, clusters(8))

    assert verdict(report) is Verdict.FAIL
    assert "cannot be copied: cannot pickle 'generator' object" in report.findings[0].message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": torch.ones(3)}, "needs a torch.nn.Module, got torch.Tensor"),
        ({"loss": 3}, "got loss=3: give a module or function"),
        ({"optimizer": 0.1}, "got optimizer=0.1: give a torch.optim.Optimizer"),
        ({"y": torch.zeros(4)}, r"as many targets as inputs.* got shapes \(96, 8\), \(4,\)"),
        ({"x": torch.full((96, 8), torch.nan)}, "there is not one"),
        ({"x": "x"}, "as tensors, or tuples or dicts of tensors: got a str and a Tensor"),
    ],
)
def test_a_probe_says_what_it_needs(change: dict[str, Any], words: str) -> None:
    x, y = clusters(8)
    given = {"target": mlp(), "x": x, "y": y, "loss": None, "optimizer": None} | change

    with pytest.raises((NndiagError, UnknownName), match=words):
        probes.shapes(**given)


def test_samples_that_are_not_finite_are_left_out() -> None:
    x, y = clusters(8)
    x[::2] = torch.nan

    assert verdict(said(probes.gradient_check, mlp(), (x, y))) is Verdict.PASS
