"""Layers over sequences that get the samples of the batch where they want steps, and sound ones of every arrangement."""

from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import nndiag  # noqa: E402

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
