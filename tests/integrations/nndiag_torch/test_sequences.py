"""Layers over sequences that get the samples of the batch where they want steps, and sound ones of every arrangement."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import nndiag  # noqa: E402
from nndiag_torch import graph  # noqa: E402

pytestmark = pytest.mark.frameworks

N, T, WIDTH, CLASSES = 12, 5, 8, 3
IDS = torch.arange(N) % CLASSES
ANY = torch.Generator().manual_seed(0)


class Reader(nn.Module):
    """A layer over sequences between what is done to its input and to its output, and a linear layer."""

    def __init__(self, layer: nn.Module, before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.before, self.after = layer, before, after
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        h = self.layer(x, x, x) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(x)
        outputs: Tensor = self.head(self.after(h[0] if isinstance(h, tuple) else h))
        return outputs


def findings(model: nn.Module, x: Tensor, y: Tensor) -> list[nndiag.Finding]:
    """What ND111 says of three steps on one batch."""
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(3):
            loss = F.cross_entropy(model(x), y) if y.dtype == torch.int64 else F.mse_loss(model(x), y)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return list(recorder.check(nndiag.Checklist(select="ND111")).findings)


LAYERS: dict[str, Callable[..., nn.Module]] = {
    "LSTM": lambda **options: nn.LSTM(WIDTH, WIDTH, **options),
    "GRU": lambda **options: nn.GRU(WIDTH, WIDTH, **options),
    "attention": lambda **options: nn.MultiheadAttention(WIDTH, 2, **options),
    "transformer": lambda **options: nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.0, **options),
}


def as_it_is(x: Tensor) -> Tensor:
    return x


def last_step(h: Tensor) -> Tensor:
    return h[:, -1]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_reads_across_the_batch_is_named(name: str) -> None:
    torch.manual_seed(0)
    model = Reader(LAYERS[name](), as_it_is, last_step)
    (found,) = findings(model, torch.randn(N, T, WIDTH, generator=ANY), IDS)

    assert found.kind == "exact"
    assert (found.layer or "").startswith("layer")
    assert f"{T} sequences of {N} steps" in found.message
    assert "batch_first=True" in found.fix


SOUND: dict[str, tuple[dict[str, bool], Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], tuple[int, ...]]] = {
    "batch first": ({"batch_first": True}, as_it_is, last_step, (N, T)),
    "transposed": ({}, lambda x: x.transpose(0, 1), lambda h: h[-1], (N, T)),
    "steps first all along": ({}, as_it_is, lambda h: h[-1], (T, N)),
    "as many steps as samples": ({}, lambda x: x.transpose(0, 1), lambda h: h[-1], (N, N)),
    "several sequences a sample": (
        {},
        lambda x: x.reshape(N, 2 * N, WIDTH),
        lambda h: h.reshape(N, N, 2, WIDTH).mean((0, 2)),
        (N, 2 * N),
    ),
    "one long sequence": ({}, lambda x: x[:, :1], lambda h: h[:, 0], (N, T)),
}


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_sound_arrangement_has_no_finding(name: str, layer: str) -> None:
    options, before, after, shape = SOUND[name]
    torch.manual_seed(0)

    assert (
        findings(Reader(LAYERS[layer](**options), before, after), torch.randn(*shape, WIDTH, generator=ANY), IDS) == []
    )


@pytest.mark.parametrize("layer", LAYERS)
def test_a_target_at_every_step_of_sequences_that_come_steps_first_is_sound(layer: str) -> None:
    torch.manual_seed(0)
    model = Reader(LAYERS[layer](), as_it_is, as_it_is)

    assert findings(model, torch.randn(T, N, WIDTH, generator=ANY), torch.randn(T, N, CLASSES, generator=ANY)) == []


def test_what_is_told_of_the_axes_is_kept_with_the_run() -> None:
    layer = {"name": "lstm", "kind": "recurrent", "sequence": [12, 5]}
    meta = nndiag.Recorder().meta.describe({"layers": [layer]})

    assert meta.layers[0].sequence == (12, 5)
    assert type(meta).from_dict(meta.to_dict()) == meta
    with pytest.raises(nndiag.RunError, match="does not describe a run"):
        type(meta).from_dict({"layers": [layer | {"sequence": "ab"}]})


class Mixture(nn.Module):
    """A mixture of normal distributions: logarithms of shares, means, logarithms of widths, each (N, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(WIDTH, 5) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        shares, means, widths = (part(x) for part in self.parts)
        return shares.log_softmax(1), means, widths


def log_density(outputs: tuple[Tensor, ...], y: Tensor) -> Tensor:
    """Of each of the 5 parts, (N, 5)."""
    shares, means, widths = outputs
    return shares - 0.5 * ((y - means) / widths.exp()) ** 2 - widths


class Weighing(nn.Module):
    """A softmax over an axis of 3 experts (N, 3), places (N, 4, 2), samples (N, N), one score of each sample, or all of it."""

    def __init__(self, of: str, dim: int | None) -> None:
        super().__init__()
        self.of, self.softmax, self.head = of, nn.Softmax(dim), nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        z = self.head(x)
        scores = {"experts": z, "places": x.view(len(x), 4, 2) * z[:, :1, None], "samples": z @ z.T, "one": z[:, :1]}[
            self.of
        ]
        outputs: Tensor = z + self.softmax(scores).flatten(1).sum(1, keepdim=True)
        return outputs


@pytest.mark.parametrize(
    ("of", "dim", "found"),
    [("experts", 0, 1), ("experts", 1, 0), ("places", None, 1), ("places", 0, 1), ("places", 1, 0), ("places", -1, 0),
     ("samples", 0, 0), ("samples", 1, 0), ("one", 0, 0)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
def test_a_softmax_over_the_samples_is_found_wherever_it_is(of: str, dim: int | None, found: int) -> None:
    """Without a `dim`, on three axes, it is the first. Squares of similarities and a single score may well be compared."""
    assert len(findings(Weighing(of, dim), torch.randn(N, WIDTH, generator=ANY), IDS)) == found


@pytest.mark.parametrize(("dim", "found"), [(0, 1), (1, 0)])
def test_parts_of_a_mixture_are_summed_for_each_sample(dim: int, found: int) -> None:
    model, x, y = Mixture(), torch.randn(N, WIDTH, generator=ANY), torch.randn(N, 1, generator=ANY)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(3):
            loss = -log_density(model(x), y).logsumexp(dim).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    told = recorder.check(nndiag.Checklist(select="ND111")).findings

    assert len(told) == found
    assert all("logsumexp on the way to the loss runs over axis 0" in finding.message for finding in told)


SHAPES = {
    "steps and channels as channels and steps": ((8, 60, 6), (8, 6, 60), True),
    "sizes that do not divide one another": ((8, 60, 7), (8, 7, 60), True),
    "steps before heads": ((8, 16, 12), (8, 3, 16, 4), True),
    "heads as steps": ((8, 3, 16, 4), (8, 16, 12), True),
    "both directions, of the samples behind them": ((2, 8, 6), (8, 12), True),
    "steps, of the samples behind them": ((5, 8, 6), (8, 30), True),
    "flattened": ((8, 3, 4, 4), (8, 48), False),
    "heads split off": ((8, 16, 12), (8, 16, 3, 4), False),
    "heads with the samples": ((16, 8, 12), (16, 24, 4), False),
    "pairs of steps": ((8, 16, 12), (8, 8, 24), False),
    "a single direction": ((1, 8, 6), (8, 6), False),
    "groups of channels": ((8, 12, 25), (8, 4, 75), False),
    "no samples": ((0, 16, 12), (0, 12, 16), False),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_reshape_is_told_from_what_should_have_been_a_swap(name: str) -> None:
    before, after, found = SHAPES[name]

    assert graph.scrambles(before, after, 8) is found


@pytest.mark.parametrize(("dtype", "batch", "heads"), [(torch.float32, 16, 4), (torch.float64, 8, 2)])
@pytest.mark.parametrize("first", [True, False])
def test_attention_and_recurrent_layers_of_pytorch_scramble_nothing(
    dtype: torch.dtype, batch: int, heads: int, first: bool
) -> None:
    """Whatever sizes happen to be the same: steps, samples, heads and their widths."""
    width = batch * heads
    layer = nn.TransformerEncoderLayer(width, heads, 8, dropout=0.0, batch_first=first, dtype=dtype)
    recurrent = nn.GRU(width, 4, num_layers=2, bidirectional=True, batch_first=first, dtype=dtype)
    for steps in (batch, heads, 5):
        x = torch.randn(*((batch, steps) if first else (steps, batch)), width, generator=ANY, dtype=dtype)
        samples = batch if first else 0  # of steps that come first it is not known where the samples are
        assert graph.scrambled(layer(x).sum(), samples) == []
        assert graph.scrambled(recurrent(x)[0].sum(), samples) == []


@pytest.mark.parametrize(("way", "found"), [("reshape", 1), ("permute", 0)])
@pytest.mark.parametrize("where", ["first", "inside"])
def test_a_model_that_scrambles_its_input_or_a_hidden_tensor_is_named(where: str, way: str, found: int) -> None:
    """(N, 10, 4), steps of channels, becomes (N, 4, 10) for a convolution."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Linear(4, 4) if where == "inside" else nn.Identity()
            self.conv, self.head = nn.Conv1d(4, 6, 3), nn.Linear(6, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x) if where == "inside" else x
            x = x.reshape(len(x), 4, 10) if way == "reshape" else x.permute(0, 2, 1)
            outputs: Tensor = self.head(self.conv(x).relu().mean(2))
            return outputs

    told = findings(Model(), torch.randn(N, 10, 4, generator=ANY), IDS)

    assert len(told) == found
    assert all("(12, 10, 4) is reshaped to (12, 4, 10)" in finding.message for finding in told)


def test_of_a_model_that_takes_steps_first_the_first_axis_is_none_of_samples() -> None:
    class Steps(Weighing):
        def __init__(self) -> None:
            super().__init__("experts", 0)
            self.layer = nn.GRU(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.layer(x)[0][:, 0])

    assert not findings(Steps(), torch.randn(N, 1, WIDTH, generator=ANY), IDS)
