"""Loops as strangers write them: training is bit for bit the same, steps are counted, numbers are those of plain hooks."""

from __future__ import annotations

import copy
import logging
from collections import defaultdict, namedtuple

import numpy as np
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.nn.utils import parametrizations, prune, rnn  # noqa: E402

from tests.integrations.nndiag_torch.programs import batches, mlp  # noqa: E402

CE = nn.CrossEntropyLoss()
STEPS = 12


class PlainHooks:
    """What a recorder should have seen, by hooks on the modules and the optimisers: of each step all values, and norms."""

    def __init__(self, model, optimizers):
        self.model, self.waiting, self.steps = model, set(optimizers), []
        self.optimizers, self.outputs, self.norms = optimizers, defaultdict(list), {}
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.handles = [one.register_step_pre_hook(self.before) for one in optimizers]
        self.handles += [one.register_step_post_hook(self.after) for one in optimizers]
        self.layers = {name: module for name, module in model.named_modules() if is_layer(name, module)}
        for name, module in self.layers.items():
            self.handles.append(module.register_forward_hook(lambda *call, name=name: self.called(name, call[-1])))

    def called(self, name, output):
        while not isinstance(output, torch.Tensor):  # states and others, packed or not
            output = output[0]
        if self.model.training and torch.is_grad_enabled() and output.is_floating_point():
            self.outputs[name].append(output.detach().double().flatten())

    def before(self, optimizer, *_):
        for tensor in (tensor for group in optimizer.param_groups for tensor in group["params"]):
            gradient = torch.zeros(()) if tensor.grad is None else tensor.grad.to_dense()
            self.norms[self.names[id(tensor)]] = float(gradient.abs().double().norm())

    def after(self, optimizer, *_):
        self.waiting.discard(optimizer)
        if not self.waiting:
            self.steps.append(({name: torch.cat(all_of_it) for name, all_of_it in self.outputs.items()}, self.norms))
            self.waiting, self.outputs, self.norms = set(self.optimizers), defaultdict(list), {}

    def log(self, **values):
        pass


def is_layer(name, module):
    return "parametrizations" not in name and all(part == "parametrizations" for part, _ in module.named_children())


class Nobody:
    def log(self, **values):
        pass


def sgd(model, lr=0.1):
    return torch.optim.SGD(model.parameters(), lr=lr)


def step(model, optimizer, recorder, x, y):
    loss = CE(model(x), y)
    recorder.log(loss=loss)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def plain(make, data=lambda: batches(8)):
    """The loop of the README for a model that `make` makes."""

    def program(watch):
        model = make()
        optimizer = sgd(model)
        recorder = watch(model, [optimizer])
        for x, y in data():
            step(model, optimizer, recorder, x, y)
        return model

    return program


# The programs


def closures(watch):
    model = mlp()
    optimizer = sgd(model)
    recorder = watch(model, [optimizer])
    for x, y in batches(8):

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = CE(model(x), y)
            recorder.log(loss=loss)
            loss.backward()
            return loss

        optimizer.step(closure)
    return model


def sharpness_aware(watch):
    """Two passes, of which the second's gradients are those of the step."""
    model = mlp()
    optimizer = sgd(model)
    recorder = watch(model, [optimizer])
    for x, y in batches(8):
        loss = CE(model(x), y)
        recorder.log(loss=loss)
        loss.backward()
        with torch.no_grad():
            climbs = [0.05 * p.grad / (p.grad.norm() + 1e-12) for p in model.parameters()]
            for p, climb in zip(model.parameters(), climbs, strict=True):
                p += climb
        optimizer.zero_grad()
        CE(model(x), y).backward()
        with torch.no_grad():
            for p, climb in zip(model.parameters(), climbs, strict=True):
                p -= climb
        optimizer.step()
        optimizer.zero_grad()
    return model


def errors_are_caught(watch):
    """A batch for which memory does not last, in the midst of `forward`, is left out."""
    model = mlp()
    optimizer = sgd(model)
    recorder = watch(model, [optimizer])
    for number, (x, y) in enumerate(batches(8, STEPS + 2)):
        try:
            step(model, optimizer, recorder, x if number not in (3, 7) else x[:, :5], y)
        except RuntimeError:
            optimizer.zero_grad()
    return model


def unfreezing(watch):
    """The head alone first; its base joins the optimiser later."""
    model = mlp()
    model[0].requires_grad_(False)
    optimizer = sgd(model[-1])
    recorder = watch(model, [optimizer])
    for number, (x, y) in enumerate(batches(8)):
        if number == 5:
            model[0].requires_grad_(True)
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
        step(model, optimizer, recorder, x, y)
    return model


def wider_numbers_midway(watch):
    model = mlp()
    optimizer = sgd(model)
    recorder = watch(model, [optimizer])
    for number, (x, y) in enumerate(batches(8)):
        if number == 6:
            model.double()
        step(model, optimizer, recorder, x.to(model[0].weight.dtype), y)
    return model


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.EmbeddingBag(20, 8, sparse=True), nn.Linear(8, 3)

    def forward(self, ids):
        return self.out(self.embed(ids))


def sparse_gradients(watch):
    model = Embedded()
    optimizers = [torch.optim.SparseAdam(model.embed.parameters(), lr=0.01), sgd(model.out)]
    recorder = watch(model, optimizers)
    for _ in range(STEPS):
        ids = torch.randint(0, 20, (16, 5))
        loss = CE(model(ids), ids[:, 0] % 3)
        recorder.log(loss=loss)
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
    return model


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.LSTMCell(4, 12), nn.Linear(12, 3)

    def forward(self, x, state):
        for each in x.unbind(1):
            state = self.cell(each, state)
        return self.out(state[0]), state


def truncated_in_time(watch):
    model, state = Cells(), None
    optimizer = sgd(model)
    recorder = watch(model, [optimizer])
    for _ in range(STEPS):
        x = torch.randn(8, 5, 4)
        outputs, state = model(x, None if state is None else [each.detach() for each in state])
        loss = CE(outputs, (x[:, -1, 0] > 0).long())
        recorder.log(loss=loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


class Packed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(4, 12, num_layers=2, bidirectional=True, proj_size=5, batch_first=True)
        self.out = nn.Linear(10, 3)

    def forward(self, x):
        lengths = torch.arange(len(x)) % 2 + 1
        states, _ = self.rnn(rnn.pack_padded_sequence(x.reshape(-1, 2, 4), lengths, True, enforce_sorted=False))
        return self.out(rnn.pad_packed_sequence(states, batch_first=True)[0][:, 0])


class Skipping(nn.Module):
    """Blocks that are left out at random."""

    def __init__(self):
        super().__init__()
        self.enter, self.out = nn.Linear(8, 16), nn.Linear(16, 3)
        self.blocks = nn.ModuleDict({name: nn.Linear(16, 16) for name in "abc"})

    def forward(self, x):
        x = self.enter(x)
        for block in self.blocks.values():
            if torch.rand(()) < 0.6:
                x = x + torch.relu(block(x))
        return self.out(x)


class Again(nn.Module):
    """Calls itself."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x, depth=3):
        return self(torch.tanh(self.fc(x)), depth - 1) if depth else self.out(x)


Answer = namedtuple("Answer", "hidden logits")


class Answering(nn.Module):
    """Hands back a tuple with names, called and used by keyword."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(8, 8), nn.Linear(8, 3)

    def answer(self, *, inputs):
        hidden = torch.tanh(self.fc(inputs))
        return Answer(hidden, self.out(hidden))

    def forward(self, x):
        return self.answer(inputs=x).logits


class Hooked(nn.Module):
    """A hook of the user's own on a tensor that was changed in place after its layer was heard."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        h = self.fc(x)
        h.register_hook(lambda gradient: 0.5 * gradient)
        h.relu_()
        h.register_hook(lambda gradient: 2 * gradient + 0.01)
        return self.out(h)


def pruned():
    model = mlp()
    prune.l1_unstructured(model[0], "weight", 0.3)
    return model


def reparametrised():
    model = mlp()
    parametrizations.weight_norm(model[0])
    parametrizations.spectral_norm(model[-1])
    return model


PROGRAMS = {
    "closures": closures,
    "sharpness-aware": sharpness_aware,
    "errors are caught": errors_are_caught,
    "unfreezing": unfreezing,
    "wider numbers midway": wider_numbers_midway,
    "sparse gradients": sparse_gradients,
    "truncated in time": truncated_in_time,
    "packed sequences": plain(Packed),
    "blocks left out": plain(Skipping),
    "recursion": plain(Again),
    "named tuples": plain(Answering),
    "hooks of the user": plain(Hooked),
    "pruned": plain(pruned),
    "reparametrised": plain(reparametrised),
    "of every size": plain(mlp, lambda: batches(8, 4, 64) + batches(8, 4, 1) + batches(8, 4, 300)),
}


def run(program, watch):
    """What a program has trained, and where the random numbers stand after it."""
    torch.manual_seed(0)
    model = program(watch)
    return copy.deepcopy(model.state_dict()), torch.get_rng_state()


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_disturbed_and_steps_are_those_of_the_optimiser(name, every, caplog):
    recorders = []

    def watch(model, optimizers):
        recorders.append(nndiag.watch(model, optimizers, every=every))
        return recorders[-1]

    weights, random = run(PROGRAMS[name], lambda *_: Nobody())
    with caplog.at_level(logging.WARNING, "nndiag"):
        seen, random_after = run(PROGRAMS[name], watch)
        recorders[0].close()
    assert seen.keys() == weights.keys()
    assert all(torch.equal(seen[key], value) for key, value in weights.items())
    assert torch.equal(random, random_after)
    assert recorders[0].step_number == len(recorders[0].run.losses) == STEPS
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_numbers_are_those_of_plain_hooks(name):
    made = []

    def plainly(model, optimizers):
        made.append(PlainHooks(model, optimizers))
        return made[-1]

    def watch(model, optimizers):
        made.append(nndiag.watch(model, optimizers, every=1, strict=True))
        return made[-1]

    run(PROGRAMS[name], plainly)
    run(PROGRAMS[name], watch)
    plain_hooks, recorder = made
    recorder.close()
    activations, gradients = recorder.run.activations, recorder.run.gradients
    assert len(plain_hooks.steps) == len(activations) == len(gradients) == STEPS
    for number, (outputs, norms) in enumerate(plain_hooks.steps):
        if name == "errors are caught" and number in (3, 6):  # with what was computed before the error
            continue
        seen = activations.iloc[number]
        for layer in plain_hooks.layers:
            if (values := outputs.get(layer)) is None:
                assert np.isnan(seen["mean", layer])
                continue
            scale = float(values.square().mean().sqrt())
            assert seen["mean", layer] == pytest.approx(float(values.mean()), abs=1e-4 * scale)
            assert seen["variance", layer] == pytest.approx(float(values.var(correction=0)), rel=1e-3, abs=1e-9)
        for parameter, norm in norms.items():
            assert gradients["norm", parameter].iloc[number] == pytest.approx(norm, rel=1e-4, abs=1e-7)


def test_several_recorders_of_one_model_and_of_a_part_of_it_see_the_same():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Sequential(nn.Linear(16, 16), nn.Tanh()), nn.Linear(16, 3))
    optimizer = sgd(model)
    recorders = [nndiag.watch(target, optimizer, every=1, strict=True) for target in (model, model, model[1])]
    for x, y in batches(8):
        loss = CE(model(x), y)
        for recorder in recorders:
            recorder.log(loss=loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for recorder in recorders:
        recorder.close()
    whole, again, part = (recorder.run for recorder in recorders)
    assert whole.activations.equals(again.activations)
    assert whole.gradients.equals(again.gradients)
    for statistic in ("mean", "variance", "gradient_rms"):
        assert (part.activations[statistic, "1"] == whole.activations[statistic, "1.1"]).all()
    assert (part.gradients["norm", "0.weight"] == whole.gradients["norm", "1.0.weight"]).all()


def test_an_optimiser_for_each_parameter_that_steps_within_the_backward_pass():
    torch.manual_seed(0)
    model = mlp()
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def update(parameter):
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(update)
    with nndiag.watch(model, list(optimizers.values()), every=1, strict=True) as recorder:
        for x, y in batches(8):
            loss = F.cross_entropy(model(x), y)
            recorder.log(loss=loss)
            loss.backward()
    run = recorder.run
    assert recorder.step_number == len(run.activations) == len(run.gradients) == len(run.updates) == STEPS
    assert (run.loop["backward_passes"].to_numpy() == 1).all()
    assert (run.gradients["norm"].to_numpy() > 0).all()


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_takes_its_fast_path_in_validations():
    """In evaluation mode a padded batch goes through PyTorch's nested tensors, which have no plain values."""
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(block, 2)
    head = nn.Linear(8, 3)
    padded = torch.zeros(16, 4, dtype=torch.bool)
    padded[3, 2:] = True
    optimizer = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.1)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for x, y in batches(32, 4):
            model.train()
            loss = CE(head(model(x.reshape(16, 4, 8), src_key_padding_mask=padded)[:, 0]), y)
            recorder.log(loss=loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model.eval()
            with torch.no_grad():
                outputs = head(model(x.reshape(16, 4, 8), src_key_padding_mask=padded)[:, 0])
            recorder.log(validation_loss=CE(outputs, y))
    assert recorder.step_number == len(recorder.run.activations) == 4
    assert recorder.run.losses["validation"].notna().sum().sum() == 4
    assert recorder.run.activations["mean"].notna().all().all()


class Numbered(torch.utils.data.Dataset):
    def __len__(self):
        return 48

    def __getitem__(self, index):
        x = torch.randn(8, generator=torch.Generator().manual_seed(index))
        return x, int(x[0] > 0)


def test_workers_of_a_loader_that_start_while_somebody_watches():
    torch.manual_seed(0)
    model = mlp()
    optimizer = sgd(model)
    with nndiag.watch(model, optimizer, every=1, strict=True) as recorder:
        for epoch in range(2):
            for x, y in torch.utils.data.DataLoader(Numbered(), 16, num_workers=1):
                loss = CE(model(x), y)
                recorder.log(loss=loss, epoch=epoch)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    assert recorder.step_number == 6
    assert recorder.run.losses["epoch"].to_numpy().ravel().tolist() == [0, 0, 0, 1, 1, 1]
