"""Faults of the objective in trainings of a few lines, seen without a word from the user; and sound ones that keep quiet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import nndiag  # noqa: E402
from nndiag import synthetic  # noqa: E402
from nndiag.checks import PaddingRead  # noqa: E402
from nndiag_torch import graph  # noqa: E402

pytestmark = pytest.mark.frameworks

GENERATOR = torch.Generator().manual_seed(0)
IDS = torch.arange(384) % 3
X = torch.randn(384, 8, generator=GENERATOR) + 2.0 * torch.eye(3, 8)[IDS]
REAL = X @ torch.randn(8, 1, generator=GENERATOR) / 3
BITS = (IDS > 0).float()[:, None]
TAGS = (X[:, :3] > 0.5).float()
SOFT = 0.7 * F.one_hot(IDS, 3) + 0.1

Case = tuple[int, nn.Module | None, Callable[[Tensor, Tensor], Tensor], Tensor]
"""Output units, what follows the last layer in the model, the loss of the loop, and targets."""


class Cosines(nn.Module):
    """Those between features and a learned vector for each class."""

    def __init__(self) -> None:
        super().__init__()
        self.ways = nn.Parameter(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)))

    def forward(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=1) @ F.normalize(self.ways, dim=1).T


def report(case: Case) -> nndiag.Report:
    """What the checklist says of 5 epochs in a loop that logs its loss and nothing else."""
    units, head, loss_of, targets = case
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, units), *([head] if head else []))
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    shuffle = torch.Generator().manual_seed(1)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(5):
            for batch in torch.randperm(384, generator=shuffle).split(16):
                loss = loss_of(model(X[batch]), targets[batch])
                recorder.log(loss=loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return recorder.check()


SICK: dict[str, tuple[str, Case]] = {
    "softmax before cross-entropy": ("ND101", (3, nn.Softmax(1), F.cross_entropy, IDS)),
    "softmax in the loop": ("ND101", (3, None, lambda z, y: F.cross_entropy(z.softmax(1), y), IDS)),
    "sigmoid before its loss": ("ND101", (1, nn.Sigmoid(), F.binary_cross_entropy_with_logits, BITS)),
    "sigmoid in the loop": (
        "ND101",
        (1, None, lambda z, y: F.binary_cross_entropy_with_logits(z.sigmoid(), y), BITS),
    ),
    "softmax of one unit": ("ND102", (1, nn.Softmax(1), F.binary_cross_entropy, BITS)),
    "sigmoid for real targets": ("ND104", (1, nn.Sigmoid(), F.mse_loss, REAL)),
    "the same in the loop": ("ND104", (1, None, lambda z, y: F.mse_loss(z.sigmoid(), y), REAL)),
    "raw outputs into NLL": ("ND105", (3, None, F.nll_loss, IDS)),
    "probabilities into NLL": ("ND105", (3, nn.Softmax(1), F.nll_loss, IDS)),
    "ids beside probabilities": ("ND105", (3, nn.Softmax(1), lambda p, y: (p - y).pow(2).mean(), IDS[:, None].float())),
    "binary loss of a softmax": ("ND105", (3, nn.Softmax(1), F.binary_cross_entropy, F.one_hot(IDS).float())),
    "logarithm of raw outputs": (
        "ND105",
        (3, None, lambda z, y: -torch.log(z.clamp(1e-7)).gather(1, y[:, None]).mean(), IDS),
    ),
    "ReLU on logits": ("ND106", (3, nn.ReLU(), F.cross_entropy, IDS)),
    "ReLU in the loop": ("ND106", (3, None, lambda z, y: F.cross_entropy(F.relu(z), y), IDS)),
    "broadcast": ("ND107", (1, None, F.mse_loss, REAL[:, 0])),
    "cosines": ("ND104", (3, Cosines(), F.cross_entropy, IDS)),
    "ids for one-hot rows": ("ND107", (3, None, lambda z, y: -(y * z.log_softmax(1)).sum(1).mean(), IDS[:, None])),
    "broadcast by hand": ("ND107", (1, None, lambda z, y: ((z - y) ** 2).mean(), REAL[:, 0])),
    "broadcast distance": ("ND107", (1, None, F.l1_loss, REAL[:, 0])),
    "sum": ("ND108", (3, None, lambda z, y: F.cross_entropy(z, y, reduction="sum"), IDS)),
    "labels -1 and 1": ("ND110", (1, None, F.binary_cross_entropy_with_logits, 2 * BITS - 1)),
    "a class ignored": ("ND110", (3, None, lambda z, y: F.cross_entropy(z, y, ignore_index=0), IDS)),
    "minus forgotten": ("ND408", (3, None, lambda z, y: z.log_softmax(1)[torch.arange(len(y)), y].mean(), IDS)),
    "log-softmax over the batch": ("ND111", (3, nn.LogSoftmax(0), F.nll_loss, IDS)),
    "the same in the loop ": ("ND111", (3, None, lambda z, y: F.nll_loss(z.log_softmax(0), y), IDS)),
    "softmax over the batch": ("ND111", (3, nn.Softmax(0), lambda p, y: F.nll_loss(p.log(), y), IDS)),
    "dropout on the outputs": ("ND113", (3, nn.Dropout(0.5), F.cross_entropy, IDS)),
}


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", SICK)
def test_the_fault_is_the_headline(name: str) -> None:
    code, case = SICK[name]

    assert report(case).headlines[0] == code


def test_an_ignored_class_is_seen_whichever_batch_has_it_first() -> None:
    torch.manual_seed(0)
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    rows = torch.cat([torch.arange(384)[IDS > 0], torch.arange(384)[IDS == 0]])
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for batch in rows.split(16):
            loss = F.cross_entropy(model(X[batch]), IDS[batch], ignore_index=0)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.nan_to_num().backward()
            optimizer.step()

    assert recorder.check(nndiag.Checklist(select="ND110")).headlines == ("ND110",)


SOUND: dict[str, Case] = {
    "cross-entropy": (3, None, F.cross_entropy, IDS),
    "label smoothing": (3, None, nn.CrossEntropyLoss(label_smoothing=0.1), IDS),
    "class weights": (3, None, nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0])), IDS),
    "soft targets": (3, None, F.cross_entropy, SOFT),
    "log-softmax twice": (3, nn.LogSoftmax(1), F.cross_entropy, IDS),
    "NLL": (3, nn.LogSoftmax(1), F.nll_loss, IDS),
    "NLL of a logarithm": (3, nn.Softmax(1), lambda p, y: F.nll_loss(p.log(), y), IDS),
    "divergence": (3, nn.LogSoftmax(1), nn.KLDivLoss(reduction="batchmean"), SOFT),
    "labels": (3, nn.Sigmoid(), F.binary_cross_entropy, TAGS),
    "labels from logits": (3, None, F.binary_cross_entropy_with_logits, TAGS),
    "soft margin": (3, None, F.multilabel_soft_margin_loss, TAGS),
    "margin": (3, None, F.multi_margin_loss, IDS),
    "squared": (1, None, F.mse_loss, REAL),
    "squared, flat": (1, nn.Flatten(0), F.mse_loss, REAL[:, 0]),
    "squared by hand": (1, None, lambda z, y: ((z - y) ** 2).mean(), REAL),
    "absolute": (1, None, F.l1_loss, REAL),
    "Huber": (1, None, F.huber_loss, REAL),
    "scaled cosines": (3, Cosines(), lambda z, y: F.cross_entropy(8 * z, y), IDS),
    "scaled sigmoid": (1, nn.Sigmoid(), lambda p, y: F.mse_loss(12 * p - 6, y), REAL),
    "counts": (1, None, F.poisson_nll_loss, REAL.abs().round()),
    "mean and variance": (
        2,
        None,
        lambda z, y: F.gaussian_nll_loss(z[:, :1], y, F.softplus(z[:, 1:]) + 0.1),
        REAL,
    ),
    "penalty": (3, None, lambda z, y: F.cross_entropy(z, y) + 1e-3 * z.pow(2).mean(), IDS),
    "padding": (4, None, lambda z, y: F.cross_entropy(z, y + 1, ignore_index=0), IDS),
    "a quarter": (3, None, lambda z, y: F.cross_entropy(z, y) / 4, IDS),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_objective_has_no_finding(name: str) -> None:
    found: list[Any] = [finding for finding in report(SOUND[name]).findings if finding.code.startswith("ND1")]

    assert found == []


TOKENS = (torch.arange(96)[:, None] * 7 + 3 * torch.arange(13)) % 11


class Reader(nn.Module):
    """A model of texts: embeddings, a linear layer at each place, or one over all of them, and logits at each place."""

    def __init__(self, together: bool) -> None:
        super().__init__()
        self.embedding, self.place, self.logits = nn.Embedding(11, 8), nn.Embedding(12, 8), nn.Linear(8, 11)
        self.between = nn.Linear(96, 96) if together else nn.Linear(8, 8)
        self.together = together

    def forward(self, ids: Tensor) -> Tensor:
        h = self.embedding(ids) + self.place(torch.arange(12))
        h = self.between(h.flatten(1)).view(h.shape) if self.together else self.between(h)
        z: Tensor = self.logits(h)
        return z


def flat(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.reshape(-1, 11), y.reshape(-1))


def by_place(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.transpose(1, 2), y)


@pytest.mark.parametrize("loss_of", [flat, by_place])
@pytest.mark.parametrize(
    ("inputs", "targets", "together", "found"),
    [
        (TOKENS[:, :-1], TOKENS[:, :-1], False, 1),
        (TOKENS[:, :-1], TOKENS[:, 1:], False, 0),
        (TOKENS[:, :-1], TOKENS[:, :-1], True, 0),
        (TOKENS[:, :-1].where(torch.arange(12) % 5 > 0, torch.tensor(0)), TOKENS[:, :-1], False, 0),
    ],
    ids=["not shifted", "shifted", "an autoencoder", "masked"],
)  # fmt: skip
def test_targets_that_went_in_are_named(
    inputs: Tensor, targets: Tensor, together: bool, found: int, loss_of: Callable[[Tensor, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    model = Reader(together)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for batch in torch.arange(96).repeat(4).split(16):
            loss = loss_of(model(inputs[batch]), targets[batch])
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    findings = recorder.check(nndiag.Checklist(select="ND110")).findings

    assert [each.kind for each in findings] == ["training"] * found
    assert all("only to copy" in each.message for each in findings)


def test_targets_of_which_only_some_are_taken_are_compared_as_well() -> None:
    ids = torch.randint(0, 3, (40, 30), generator=GENERATOR)
    for stride in (1, 2, 7, 33):
        for some in (ids.reshape(-1)[::stride], ids[:, ::stride].reshape(-1)):
            assert graph.Found(targets=some).copies(ids)
            assert not graph.Found(targets=some.roll(1)).copies(ids)
    assert not graph.Found(targets=torch.ones(1200, dtype=torch.int64)).copies(torch.ones(40, 30, dtype=torch.int64))
    assert not graph.Found(targets=ids[0, :8]).copies(ids[:1, :8])


class Writer(nn.Module):
    """A model of the token that comes next, that sees the later ones or not."""

    def __init__(self, how: str, ahead: bool) -> None:
        super().__init__()
        self.how, self.ahead = how, ahead
        self.embedding, self.head = nn.Embedding(8, 16), nn.Linear(16, 8)
        if how == "recurrent":
            self.recurrent = nn.GRU(16, 8 if ahead else 16, batch_first=True, bidirectional=ahead)
        elif how == "translator":
            self.translator = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
        elif how.startswith("encoder"):
            self.encoder = nn.TransformerEncoderLayer(16, 2, 32, 0.1 * how.endswith("dropout"), batch_first=True)
        else:
            self.mix = nn.Linear(16, 48)

    def forward(self, ids: Tensor) -> Tensor:
        h, length = self.embedding(ids), ids.shape[1]
        mask = None if self.ahead else nn.Transformer.generate_square_subsequent_mask(length)
        if self.how == "recurrent":
            h = self.recurrent(h)[0]
        elif self.how == "translator":
            h = self.translator(h, h, tgt_mask=mask)
        elif self.how.startswith("encoder"):
            h = self.encoder(h, src_mask=mask)
        else:
            q, k, v = self.mix(h).chunk(3, -1)
            if self.how == "fused":
                h = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None], is_causal=not self.ahead)[:, 0]
            else:
                scores = q @ k.transpose(1, 2) / 4
                h = torch.softmax(scores if mask is None else scores + mask, -1) @ v
        return self.head(h)


WRITERS = ["encoder", "encoder with dropout", "fused", "by hand", "recurrent", "translator"]


@pytest.mark.parametrize("whole", [False, True], ids=["one longer", "cut in the loss"])
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("how", WRITERS)
def test_a_model_of_texts_that_sees_what_comes_next_is_named(how: str, ahead: bool, whole: bool) -> None:
    torch.manual_seed(0)
    model = Writer(how, ahead)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(4):
            tokens = torch.randint(0, 8, (16, 13), generator=GENERATOR)
            outputs = model(tokens)[:, :-1] if whole else model(tokens[:, :-1])
            loss = F.cross_entropy(outputs.reshape(-1, 8), tokens[:, 1:].reshape(-1))
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    findings = recorder.check(nndiag.Checklist(select="ND110")).findings

    assert ["sees what comes next" in each.message for each in findings] == [True] * ahead


def test_a_model_of_labels_of_each_word_may_see_them_all() -> None:
    model = Writer("encoder", ahead=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(4):
            tokens = torch.randint(0, 8, (16, 12), generator=GENERATOR)
            loss = F.cross_entropy(model(tokens).transpose(1, 2), tokens.roll(1, 1) // 2)
            recorder.log(loss=loss)
            loss.backward()
            optimizer.step()

    assert not recorder.check(nndiag.Checklist(select="ND110")).findings


def test_targets_of_which_only_some_are_taken_follow_as_well() -> None:
    ids = torch.randint(0, 3, (40, 30), generator=GENERATOR)
    for stride in (1, 2, 7, 33):
        for following in (ids[:, 1:], torch.cat([ids[:, 1:], ids[:, :1]], 1)):
            assert graph.Found(targets=following.reshape(-1)[::stride]).follow(ids)
            assert not graph.Found(targets=following.reshape(-1)[::stride].roll(1)).follow(ids)
    assert not graph.Found(targets=ids.reshape(-1)).follow(ids)


class Attentive(nn.Module):
    """A class of a text, from attention that leaves out what the mask says, with a place before the text or not."""

    def __init__(self, how: str, inverted: bool) -> None:
        super().__init__()
        self.how, self.inverted = how, inverted
        self.embedding, self.head = nn.Embedding(9, 16, padding_idx=0), nn.Linear(16, 3)
        self.first = nn.Parameter(torch.randn(1, 1, 16))
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        h, padding = self.embedding(ids), ids == 0
        if self.how == "first":
            h = torch.cat([self.first.expand(len(ids), -1, -1), h], 1)
            padding = torch.cat([torch.zeros(len(ids), 1, dtype=torch.bool), padding], 1)
        mask = ~padding if self.inverted else padding
        if self.how == "weights":
            h = self.attention(h, h, h, key_padding_mask=mask)[0]
        elif self.how == "fused":
            seen = ~mask[:, None, None]
            h = F.scaled_dot_product_attention(h[:, None], h[:, None], h[:, None], attn_mask=seen)[:, 0]
        elif self.how == "unmasked":
            h = self.attention(h, h, h, need_weights=False)[0]
        else:
            h = self.layer(h, src_key_padding_mask=mask)
        z: Tensor = self.head(h[:, 0])
        return z


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("how", ["first", "weights", "fused", "layer", "unmasked"])
def test_attention_that_looks_at_padding_alone_is_named(how: str, inverted: bool) -> None:
    torch.manual_seed(0)
    model = Attentive(how, inverted)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(4):
            ids = torch.randint(1, 9, (16, 12), generator=GENERATOR)
            ids[torch.arange(12) >= torch.randint(4, 10, (16, 1), generator=GENERATOR)] = 0
            loss = F.cross_entropy(model(ids), ids[:, 0] % 3)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    (check,) = recorder.check(nndiag.Checklist(select="ND114")).checks

    assert (check.verdict is nndiag.Verdict.FAIL) is (inverted and how != "unmasked")


@pytest.mark.parametrize(
    ("texts", "shown", "found"),
    [
        ([[5, 6, 7, 0, 0], [8, 5, 6, 7, 0]], 0, True),
        ([[0, 0, 5, 6, 7], [0, 8, 5, 6, 7]], 0, True),  # padded at the beginning
        ([[5, 6, 7, 8, 4], [8, 5, 6, 0, 0]], 0, True),  # in a text of the full length nothing is shown: weights are NaN
        ([[5, 6, 7, 0, 0], [8, 5, 6, 0, 0]], 0, False),  # as often in each text: it may be a marker of two places
        ([[5, 1, 6, 7, 8], [6, 7, 1, 8, 5]], 1, False),  # a marker in each text, whose place is looked at
        ([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]], 1, False),  # what is hidden is no text
    ],
)
def test_padding_is_one_id_at_an_end_of_texts(texts: list[list[int]], shown: int, found: bool) -> None:
    ids = torch.tensor(texts)
    scores = torch.randn(2, 5, 5, generator=GENERATOR, requires_grad=True)
    weights = torch.softmax(scores.masked_fill((ids != shown)[:, None], -torch.inf), -1)

    assert graph.shows_padding(weights.sum(), ids) is found


def test_padding_is_seen_before_the_loss_breaks() -> None:
    torch.manual_seed(0)
    model = Attentive("weights", inverted=True)
    ids = torch.randint(1, 9, (16, 12), generator=GENERATOR)
    ids[1:, 8:] = 0  # the first text has no padding, and of nothing that is shown the weights are NaN
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer) as recorder:
        for _ in range(3):
            loss = F.cross_entropy(model(ids), ids[:, 0] % 3)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    assert recorder.check().headlines == ("ND114",)


class Last(nn.Module):
    """A class of a text, from the states of a recurrent layer."""

    def __init__(self, how: str, layer: type[nn.RNNBase], both: bool) -> None:
        super().__init__()
        self.how = how
        self.embedding = nn.Embedding(9, 8, padding_idx=0)
        self.layer = layer(8, 6, num_layers=2, batch_first=how != "steps first", bidirectional=both)
        self.head = nn.Linear(12 if both and how != "state" else 6, 2)

    def forward(self, ids: Tensor) -> Tensor:
        h, lengths = self.embedding(ids), (ids != 0).sum(1)
        if self.how == "packed":
            h = nn.utils.rnn.pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
        every, states = self.layer(h.transpose(0, 1) if self.how == "steps first" else h)
        if self.how in ("state", "packed"):
            state = states[0] if isinstance(states, tuple) else states
            last = (
                torch.cat([state[-2], state[-1]], 1)
                if self.how == "packed" and self.head.in_features == 12
                else state[-1]
            )
        elif self.how == "steps first":
            last = every[-1]
        elif self.how == "mean":
            last = every.mean(1)
        elif self.how == "word":
            last = every[torch.arange(len(ids)), lengths - 1]
        else:
            last = every[:, -1]
        z: Tensor = self.head(last)
        return z


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize(("how", "end", "found"), [("last", 6, 1), ("state", 6, 1), ("steps first", 6, 1), ("last", 3, 0),
                                                   ("mean", 6, 0), ("word", 6, 0), ("packed", 6, 0)])  # fmt: skip
def test_a_state_after_padding_is_seen(how: str, end: int, found: int, layer: type[nn.RNNBase], both: bool) -> None:
    torch.manual_seed(0)
    ids = torch.randint(1, 9, (16, 20), generator=GENERATOR)
    ids[:, 20 - end :] = 0
    ids[:4] = torch.randint(1, 9, (4, 20), generator=GENERATOR)
    model = Last(how, layer, both)

    assert graph.reads_last(F.cross_entropy(model(ids), IDS[:16] % 2), ids, [model.layer]) is bool(found)
    assert not graph.reads_last(F.cross_entropy(model(ids.flip(1)), IDS[:16] % 2), ids.flip(1), [model.layer])


@pytest.mark.parametrize(("padding", "ignored", "share"), [
    (0, -100, 0.3), (0, 0, 0.0),  # left out
    (-100, -100, 0.0), (None, -100, 0.0),  # words have been made of it
])  # fmt: skip
def test_targets_of_padding_are_counted(padding: int | None, ignored: int, share: float) -> None:
    ids = torch.randint(1, 9, (16, 20), generator=GENERATOR)
    targets = ids.clone() % 5
    ids[:, 14:] = 0
    if padding is not None:
        targets[:, 14:] = padding

    for one in (targets, targets.reshape(-1)):
        assert graph.counted(ids, one, ignored) == pytest.approx(share)
    assert graph.counted(ids, targets[:, :1], ignored) == 0.0  # one target for each text
    assert graph.counted(ids.flip(1), targets.flip(1), ignored) == 0.0  # these end in words


class Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 16), nn.Linear(16, 5)

    def forward(self, ids: Tensor) -> Tensor:
        z: Tensor = self.head(self.embedding(ids))
        return z.reshape(-1, 5)


@pytest.mark.parametrize(("end", "options", "found"), [
    (12, {}, 1), (8, {}, 0), (12, {"ignore_index": 0}, 0), (12, {"weight": torch.tensor([0.0, 1, 1, 1, 1])}, 0),
])  # fmt: skip
def test_a_loss_most_of_which_is_padding_is_named(end: int, options: dict[str, Any], found: int) -> None:
    torch.manual_seed(0)
    ids = torch.randint(1, 9, (16, 20), generator=GENERATOR)
    ids[:, 20 - end :] = 0
    targets = torch.where(ids > 0, 1 + ids % 4, 0)
    model, loss_fn = Tagger(), nn.CrossEntropyLoss(**options)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(30):
            optimizer.zero_grad()
            loss_fn(model(ids), targets.reshape(-1)).backward()
            optimizer.step()

    seen = [finding for finding in recorder.check().findings if finding.code == "ND114"]
    assert ["of the targets are those of padding" in finding.message for finding in seen] == [True] * found


class Fractions(nn.Module):
    """Ids that are made of fractions: all of them 0, unless the fractions are first taken times their number."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times, self.embedding, self.head = times, nn.Embedding(9, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.head(self.embedding((self.times * x).round().long() if self.times > 1 else x.long()).mean(1))
        return z


@pytest.mark.parametrize(("times", "found"), [(1, 1), (9, 0)])
def test_ids_that_are_all_the_same_are_named_where_they_go_in(times: float, found: int) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 9, (96, 12), generator=GENERATOR) / 9
    model = Fractions(times)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for _ in range(10):
            for rows, ids in zip(x.split(16), IDS[:96].split(16), strict=True):
                optimizer.zero_grad()
                F.cross_entropy(model(rows), ids).backward()
                optimizer.step()

    headlines = recorder.check().headlines
    assert headlines == ("ND003",) if found else "ND003" not in headlines


@pytest.mark.parametrize(("train", "kind"), [(0.69, "training"), (0.3, "note")])
def test_a_state_after_padding_is_a_finding_where_nothing_is_learned(train: float, kind: str) -> None:
    run = synthetic.run(
        train=train, data={"entropy": {"target": 0.69}}, layers=[{"name": "r", "kind": "recurrent"}],
        loss={"name": "CrossEntropyLoss", "task": "classes", "padding": "read last"},
    )  # fmt: skip

    assert [finding.kind for finding in PaddingRead().examine(run)] == [kind]


class Between(nn.Module):
    """A softmax between two layers: as an activation function, a module or not, pooled or not, or as weights of a mean."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.softmax, self.pool = how, nn.Softmax(1), nn.MaxPool1d(2)
        self.first, self.last = nn.Linear(8, 16), nn.Linear(8 if how == "pooled" else 16, 3)
        self.score = nn.Linear(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if self.how == "weights":
            weights = self.softmax(self.score(x.view(-1, 4, 2)))
            h = h * (weights * x.view(-1, 4, 2)).sum((1, 2)).unsqueeze(1)
        elif self.how == "pooled":
            h = self.pool(self.softmax(h).unsqueeze(1)).flatten(1)
        else:
            h = self.softmax(h) if self.how == "module" else h.softmax(1)
        z: Tensor = self.last(h)
        return z


@pytest.mark.parametrize(("how", "found"), [("module", 1), ("function", 1), ("pooled", 1), ("weights", 0)])
def test_a_softmax_between_layers_is_told_from_the_weights_of_a_mean(how: str, found: int) -> None:
    torch.manual_seed(0)
    model = Between(how)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for batch in torch.arange(384).split(16):
            loss = F.cross_entropy(model(X[batch]), IDS[batch])
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    assert len(recorder.check(nndiag.Checklist(select="ND112")).findings) == found


@pytest.mark.parametrize(("way", "found"), [("in place", 0), ("data", 0), ("assigned", 0), ("never", 1)])
def test_a_frozen_part_that_follows_the_others_by_hand_takes_part(way: str, found: int) -> None:
    """As the moving average of a mean teacher does."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {name: nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3)) for name in ("own", "average")}
    )
    model["average"].requires_grad_(False)
    optimizer = torch.optim.Adam(model["own"].parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for batch in torch.arange(320).split(16):
            z = model["own"](X[batch])
            loss = F.cross_entropy(z, IDS[batch]) + 0.01 * F.mse_loss(z, model["average"](X[batch]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for mean, own in zip(model["average"].parameters(), model["own"].parameters(), strict=True):
                    if way == "in place":
                        mean.mul_(0.9).add_(own, alpha=0.1)
                    elif way == "data":
                        mean.data.mul_(0.9).add_(own.data, alpha=0.1)
                    elif way == "assigned":
                        mean.data = 0.9 * mean.data + 0.1 * own.data

    named = {finding.layer for finding in recorder.check(nndiag.Checklist(select="ND403")).findings}
    assert bool(named) == bool(found)
    assert all(layer is not None and layer.startswith("average") for layer in named)


class Dropping(nn.Module):
    """Dropout by a function that knows the mode or does not, by a module, noise instead of it, or neither."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.first, self.last = how, nn.Linear(8, 32), nn.Linear(32, 3)
        self.drop, self.norm = nn.Dropout(0.4), nn.BatchNorm1d(32)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).relu()
        h = self.norm(h) if self.how == "always, beside a norm" else h
        h = self.drop(h) if self.how == "module" else h
        if self.how.startswith(("always", "by mode")):
            h = F.dropout(h, 0.4, training=self.training or self.how != "by mode")
        elif self.how == "noise":
            h = h + 0.1 * torch.randn_like(h)
        z: Tensor = self.last(h)
        return z


@pytest.mark.parametrize("every", [1, "auto"])
@pytest.mark.parametrize(("how", "found"), [("always", 1), ("by mode", 0), ("module", 0), ("noise", 0), ("neither", 0)])
def test_dropout_by_a_function_that_goes_on_in_evaluation_is_named(how: str, found: int, every: Any) -> None:
    torch.manual_seed(0)
    model = Dropping(how)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with nndiag.watch(model, optimizer, every=every) as recorder:
        for _ in range(2):
            for batch in torch.arange(384).split(32):
                loss = F.cross_entropy(model(X[batch]), IDS[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                recorder.log(validation_loss=float(F.cross_entropy(model(X), IDS)))
            model.train()
    told = recorder.check(nndiag.Checklist(select="ND903")).findings

    assert len(told) == found
    assert all(pytest.approx(float(str(finding.value)) * 100, abs=8) == 40 for finding in told)


@pytest.mark.parametrize(
    ("mask", "found"),
    [
        (torch.arange(100) % 5 < 3, 1), (torch.arange(100) % 100 < 79, 1), (torch.arange(100) % 100 < 81, 0),
        (torch.arange(10) % 5 < 3, 0), (torch.ones(100), 0),
    ],
    ids=["as it should be", "within four errors", "beyond", "too few to tell", "nothing dropped"],
)  # fmt: skip
def test_a_mask_whose_zeros_fit_what_it_multiplies_with_is_one_of_dropout(mask: Tensor, found: int) -> None:
    """A rate of 0.4 of 100 values has a standard error of 0.049: kept are 0.6, and up to 0.796."""
    x = torch.randn(len(mask), generator=GENERATOR).requires_grad_()

    assert bool(graph.dropped((x * (mask / 0.6)).sum())) is bool(found)
    assert not graph.dropped((x * mask).sum())
