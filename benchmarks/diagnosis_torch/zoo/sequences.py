"""Language models, recurrent networks, convolutions in time. The error is the share of new symbols or classes that are wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.diagnosis_torch.programs import Watch
from benchmarks.diagnosis_torch.zoo.sound import epochs_of, mlp, sound, unexplained, update, updates, wrong

KIND = "sequences"
Adam, AdamW = torch.optim.Adam, torch.optim.AdamW


def coded(text: str) -> tuple[Tensor, int]:
    """The numbers of the characters of a text, and how many different ones there are."""
    characters = sorted(set(text))
    return torch.tensor([characters.index(character) for character in text]), len(characters)


def symbol_loss(logits: Tensor, symbols: Tensor) -> Tensor:
    """Cross-entropy over all steps of all sequences."""
    return F.cross_entropy(logits.flatten(0, 1).float(), symbols.flatten())


def missed(logits: Tensor, symbols: Tensor) -> float:
    """Share of the symbols that are not the likeliest ones."""
    return float((logits.argmax(-1) != symbols).double().mean())


def encoder(dropout: float) -> nn.TransformerEncoder:
    """Two layers of a transformer that normalise first."""
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class TiedLanguageModel(nn.Module):  # type: ignore[misc]
    """A causal transformer whose head is the table of embeddings (Press and Wolf 2017)."""

    def __init__(self, symbols: int, length: int) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(symbols, 32), nn.Parameter(torch.zeros(length, 32))
        self.body, self.norm = encoder(0.1), nn.LayerNorm(32)
        self.head = nn.Linear(32, symbols, bias=False)
        self.head.weight = self.embedding.weight
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(self.embedding(x) + self.positions, mask=self.mask, is_causal=True)
        return self.head(self.norm(h))


@sound(KIND, 0.15)
def tied_language_model(watch: Watch) -> float:
    """Trained in bfloat16 where autocast finds it fit. The error is that on the last quarter of windows of its text."""
    sentence = "the quick brown fox jumps over the lazy dog and then sleeps in the warm sun all day long. "
    text, symbols = coded(60 * sentence)
    model = TiedLanguageModel(symbols, 24)

    def windows() -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(text) - 25, (16,))
        rows = text[starts[:, None] + torch.arange(25)]
        return rows[:, :-1], rows[:, 1:]

    def loss(_: int) -> Tensor:
        x, y = windows()
        return symbol_loss(model(x), y)

    optimizer = AdamW(model.parameters(), 2e-3)
    updates(watch, model, optimizer, 200, loss, clip=1.0, precision=torch.autocast("cpu", torch.bfloat16))
    model.eval()
    x, y = windows()
    return missed(model(x)[:, -6:], y[:, -6:])


class RootMeanSquareNorm(nn.Module):  # type: ignore[misc]
    """Divides by the root mean square (Zhang and Sennrich 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


class GatedBlock(nn.Module):  # type: ignore[misc]
    """Causal attention and a gated feed-forward network (Shazeer 2020), without biases."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention, self.norm_feed = RootMeanSquareNorm(width), RootMeanSquareNorm(width)
        self.projections = nn.Linear(width, 3 * width, bias=False)
        self.mixed = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, steps, width = x.shape
        projected = self.projections(self.norm_attention(x)).view(rows, steps, 3, self.heads, width // self.heads)
        query, key, value = projected.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.mixed(attended.transpose(1, 2).reshape(rows, steps, width))
        h = self.norm_feed(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


@sound(KIND, 0.05)
def gated_language_model(watch: Watch) -> float:
    """Counting by 1 to 3, modulo 30. The error leaves out the first step, which nobody can know."""
    blocks = [GatedBlock(32) for _ in range(3)]
    model = nn.Sequential(nn.Embedding(30, 32), *blocks, RootMeanSquareNorm(32), nn.Linear(32, 30, bias=False))

    def counted() -> tuple[Tensor, Tensor]:
        starts, strides = torch.randint(30, (16, 1)), torch.randint(1, 4, (16, 1))
        rows = (starts + strides * torch.arange(25)) % 30
        return rows[:, :-1], rows[:, 1:]

    def loss(_: int) -> Tensor:
        x, y = counted()
        return symbol_loss(model(x), y)

    optimizer = AdamW(model.parameters(), 2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    updates(watch, model, optimizer, 250, loss, clip=1.0)
    x, y = counted()
    return missed(model(x)[:, 1:], y[:, 1:])


class MaskedLanguageModel(nn.Module):  # type: ignore[misc]
    """A transformer that gives its own loss, in a dict: -100 marks what is not asked for (Devlin et al. 2019)."""

    def __init__(self, symbols: int, length: int) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(symbols + 1, 32), nn.Embedding(length, 32)
        self.body, self.head = encoder(0.1), nn.Linear(32, symbols)

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        positions = self.positions(torch.arange(input_ids.shape[1]))
        logits = self.head(self.body(self.embedding(input_ids) + positions))
        return {"loss": symbol_loss(logits, labels), "logits": logits}


@sound(KIND, 0.2)
def masked_language_model(watch: Watch) -> float:
    symbols, length = 40, 16
    model = MaskedLanguageModel(symbols, length)

    def masked() -> tuple[Tensor, Tensor]:
        rows = (torch.randint(symbols, (32, 1)) + 3 * torch.arange(length)) % symbols
        hidden = torch.rand(rows.shape) < 0.15
        return rows.masked_fill(hidden, symbols), rows.masked_fill(~hidden, -100)

    def loss(_: int) -> Tensor:
        input_ids, labels = masked()
        return model(input_ids=input_ids, labels=labels)["loss"]

    updates(watch, model, AdamW(model.parameters(), 3e-3), 500, loss, clip=1.0)
    model.eval()
    input_ids, labels = masked()
    asked = labels >= 0
    return missed(model(input_ids=input_ids, labels=labels)["logits"][asked], labels[asked])


class Translator(nn.Module):  # type: ignore[misc]
    """An LSTM that reads, and one that writes from where the first has ended (Sutskever et al. 2014)."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(12, 24), nn.Linear(48, 12)
        self.reader, self.writer = (nn.LSTM(24, 48, batch_first=True) for _ in range(2))

    def forward(self, x: Tensor, written: Tensor) -> Tensor:
        _, state = self.reader(self.embedding(x))
        return self.head(self.writer(self.embedding(written), state)[0])


@sound(KIND, 0.1)
def sequence_to_sequence(watch: Watch) -> float:
    """Sequences are to be written backwards; the writer is told the right symbols so far, after a 1."""
    model = Translator()

    def reversed_pairs() -> tuple[Tensor, Tensor, Tensor]:
        x = torch.randint(2, 12, (32, 6))
        y = x.flip(1)
        return x, F.pad(y[:, :-1], (1, 0), value=1), y

    def loss(_: int) -> Tensor:
        x, written, y = reversed_pairs()
        return symbol_loss(model(x, written), y)

    updates(watch, model, Adam(model.parameters(), 4e-3), 500, loss, clip=1.0)
    x, written, y = reversed_pairs()
    return missed(model(x, written), y)


class Recurrent(nn.Module):  # type: ignore[misc]
    """A head on each step, or on the last one, of a recurrent layer."""

    def __init__(self, layer: nn.RNNBase, outputs: int, last: bool = False) -> None:
        super().__init__()
        self.layer, self.last = layer, last
        self.head = nn.Linear(layer.hidden_size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)[0]
        return self.head(h[:, -1] if self.last else h)


@sound(KIND, 0.05)
def connectionist_classification(watch: Watch) -> float:
    """Four labels in 16 steps, aligned by nobody (Graves et al. 2006). The error is the loss as a share of a uniform answer's."""
    model = Recurrent(nn.GRU(6, 48, batch_first=True), 7)

    def spoken() -> tuple[Tensor, Tensor]:
        labels = torch.randint(1, 7, (32, 4))
        sounds = F.one_hot(labels.repeat_interleave(4, 1) - 1, 6).float()
        return sounds + 0.1 * torch.randn(32, 16, 6), labels

    def aligned(logits: Tensor, labels: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, 2).transpose(0, 1)
        return F.ctc_loss(log_p, labels, torch.full((32,), 16), torch.full((32,), 4))

    def loss(_: int) -> Tensor:
        sounds, labels = spoken()
        return aligned(model(sounds), labels)

    updates(watch, model, Adam(model.parameters(), 5e-3), 400, loss)
    sounds, labels = spoken()
    return float(aligned(model(sounds).detach(), labels) / aligned(torch.zeros(32, 16, 7), labels))


class CharacterModel(nn.Module):  # type: ignore[misc]
    """An LSTM over characters that takes its state and gives it back."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(symbols, 24), nn.Linear(64, symbols)
        self.lstm = nn.LSTM(24, 64, batch_first=True)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, state = self.lstm(self.embedding(x), state)
        return self.head(h), state


@sound(KIND, 0.15)
def truncated_backpropagation(watch: Watch) -> float:
    """The state goes on through a text, and gradients end every 20 steps. The error is that on its text."""
    text, symbols = coded(100 * "hello world, this is a small text to learn by heart again and again. ")
    rows = text[:6400].view(16, -1)
    model = CharacterModel(symbols)
    optimizer = Adam(model.parameters(), 3e-3)
    with watch(model, optimizer) as recorder:
        for _ in range(20):
            state = None
            for start in range(0, rows.shape[1] - 21, 20):
                logits, (hidden, cell) = model(rows[:, start : start + 20], state)
                state = hidden.detach(), cell.detach()
                loss = symbol_loss(logits, rows[:, start + 1 : start + 21])
                update(recorder, optimizer, loss, model.parameters(), clip=1.0)
    return missed(model(rows[:, :-1], None)[0], rows[:, 1:])


class PackedReader(nn.Module):  # type: ignore[misc]
    """A GRU in both directions over packed sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(50, 16, padding_idx=0), nn.Linear(64, 2)
        self.gru = nn.GRU(16, 32, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.embedding(x)
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        _, (forwards, backwards) = self.gru(packed)
        return self.head(torch.cat([forwards, backwards], 1))


@sound(KIND, 0.2)
def packed_sequences(watch: Watch) -> float:
    """Are at least half of the words of a sequence above 30?"""
    model = PackedReader()

    def sequences() -> tuple[Tensor, Tensor, Tensor]:
        lengths = torch.randint(3, 15, (32,))
        x = torch.randint(1, 50, (32, 15)) * (torch.arange(15) < lengths[:, None])
        return x, lengths, ((x > 30).sum(1) * 2 > lengths - 1).long()

    def loss(_: int) -> Tensor:
        x, lengths, y = sequences()
        return F.cross_entropy(model(x, lengths), y)

    updates(watch, model, Adam(model.parameters(), 3e-3), 500, loss)
    return sum(missed(model(x, lengths), y) for x, lengths, y in (sequences() for _ in range(10))) / 10


class DilatedConvolutions(nn.Module):  # type: ignore[misc]
    """Causal convolutions with gates, dilated by 1 to 8 (van den Oord et al. 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv1d(1, 16, 1), nn.Conv1d(16, 1, 1)
        self.dilations = (1, 2, 4, 8)
        self.filters, self.gates = (
            nn.ModuleList([nn.Conv1d(16, 16, 2, dilation=dilation) for dilation in self.dilations]) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.enter(x)
        for dilation, filtered, gate in zip(self.dilations, self.filters, self.gates, strict=True):
            past = F.pad(h, (dilation, 0))
            h = h + torch.tanh(filtered(past)) * torch.sigmoid(gate(past))
        return self.leave(F.relu(h))


@sound(KIND, 0.1)
def dilated_convolutions(watch: Watch) -> float:
    """The next value of a wave. The error is the share of variance that is unexplained."""
    model = DilatedConvolutions()

    def waves() -> tuple[Tensor, Tensor]:
        times = torch.arange(64) / 6 + 6 * torch.rand(16, 1)
        wave = (torch.sin(times) + 0.3 * torch.sin(3 * times))[:, None]
        return wave[..., :-1], wave[..., 1:]

    def loss(_: int) -> Tensor:
        x, y = waves()
        return F.mse_loss(model(x), y)

    updates(watch, model, Adam(model.parameters(), 2e-3), 500, loss)
    x, y = waves()
    return unexplained(model(x), y)


@sound(KIND, 0.2)
def adding_problem(watch: Watch) -> float:
    """The sum of the two numbers that are marked (Hochreiter and Schmidhuber 1997). The error is the unexplained variance."""
    model = Recurrent(nn.RNN(2, 32, batch_first=True), 1, last=True)

    def marked() -> tuple[Tensor, Tensor]:
        numbers = torch.rand(64, 12)
        early, late = torch.randint(6, (64,)), torch.randint(6, 12, (64,))
        marks = (F.one_hot(early, 12) + F.one_hot(late, 12)).float()
        return torch.stack([numbers, marks], 2), (numbers * marks).sum(1)

    def loss(_: int) -> Tensor:
        x, y = marked()
        return F.mse_loss(model(x).squeeze(1), y)

    updates(watch, model, Adam(model.parameters(), 2e-3), 1500, loss, clip=1.0)
    x, y = marked()
    return unexplained(model(x).squeeze(1), y)


class MeanOfWords(nn.Module):  # type: ignore[misc]
    """Classes of the mean of the embeddings of words."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(words, 16), mlp(16, 32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).mean(1))


@sound(KIND, 0.52)
def rare_words(watch: Watch) -> float:
    """Most of 5000 words hardly ever come, and the first of 8, which the mean hides, gives the class.

    The error is that on one word, said 8 times.
    """
    frequencies = 1 / torch.arange(1.0, 5001.0)
    model = MeanOfWords(5000)

    def loss(_: int) -> Tensor:
        x = torch.multinomial(frequencies, 64 * 8, replacement=True).view(64, 8)
        return F.cross_entropy(model(x), x[:, 0] % 4)

    updates(watch, model, Adam(model.parameters(), 3e-3), 600, loss)
    words = torch.multinomial(frequencies, 1000, replacement=True)
    return wrong(model, words[:, None].expand(-1, 8), words % 4)


@sound(KIND, 0.2)
def bags_with_padding(watch: Watch) -> float:
    """Bags of words from three ranges that overlap; half of them are half empty."""
    model = nn.Sequential(nn.EmbeddingBag(200, 32, mode="mean", padding_idx=0), *mlp(32, 32, 3))

    def bags(number: int = 64) -> tuple[Tensor, Tensor]:
        y = torch.randint(3, (number,))
        x = (1 + 60 * y[:, None] + torch.randint(80, (number, 12))).clamp(max=199)
        x[:, 6:] *= torch.rand(number, 1) > 0.5
        return x, y

    def loss(_: int) -> Tensor:
        x, y = bags()
        return F.cross_entropy(model(x), y)

    updates(watch, model, Adam(model.parameters(), 3e-3), 500, loss)
    return wrong(model, *bags(1000))


class StepsFirst(nn.Module):  # type: ignore[misc]
    """An LSTM that takes steps first, over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.view(-1, 8, 8).transpose(0, 1))[0][-1])


@sound(KIND, 0.25)
def steps_first(watch: Watch) -> float:
    """Rows of digits as steps. The error is the share of wrong digits."""
    model = StepsFirst()
    optimizer = Adam(model.parameters(), 5e-3)
    epochs_of(watch, model, optimizer, lambda model, x, y: F.cross_entropy(model(x), y), epochs=6)
    return wrong(model)
