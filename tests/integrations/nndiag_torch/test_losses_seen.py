"""Losses that nobody logs, or after `backward`: what goes back is seen, and is what a log before `backward` tells."""

from __future__ import annotations

import functools
import itertools
import math
import threading

import numpy as np
import pytest

import nndiag

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.frameworks

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

STEPS = 70
"""More than the 50 that are read whatever they cost."""

cadences = pytest.mark.parametrize("options", [{"every": 1}, {"every": 7}, {}], ids=str)


@pytest.fixture(autouse=True, params=[False, True], ids=["now", "later"])
def told(request, monkeypatch):
    """Events are told at once, or later as on a device."""
    monkeypatch.setattr("nndiag_torch.loop.TorchLoop.deferred", request.param)
    torch.manual_seed(0)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Softplus(), nn.Linear(16, 3))


def batches(count=STEPS):
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        x = torch.randn(16, 8, generator=generator)
        yield x, x[:, :3].argmax(1)


def update(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def losses(recorder):
    return recorder.run.losses["train"].to_numpy().ravel()


def plain(model, optimizer, x, y, log):
    loss = F.cross_entropy(model(x), y)
    log("before", loss)
    optimizer.zero_grad()
    loss.backward()
    log("after", loss)
    optimizer.step()
    log("stepped", loss)


def micro_batches(model, optimizer, x, y, log, parts=4):
    optimizer.zero_grad()
    for rows, ids in zip(x.chunk(parts), y.chunk(parts), strict=True):
        loss = F.cross_entropy(model(rows), ids)
        log("before", loss)
        (loss / parts).backward()
        log("after", loss)
    optimizer.step()


def scaled(model, optimizer, x, y, log):
    loss = F.cross_entropy(model(x), y)
    log("before", loss)
    optimizer.zero_grad()
    SCALER.scale(loss).backward()
    log("after", loss)
    SCALER.step(optimizer)
    SCALER.update()


SCALER = torch.amp.GradScaler("cpu", init_scale=1024.0)


def by_function(model, optimizer, x, y, log):
    loss = F.cross_entropy(model(x), y)
    log("before", loss)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    log("after", loss)
    optimizer.step()


def within_a_closure(model, optimizer, x, y, log):
    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        log("before", loss)
        loss.backward()
        log("after", loss)
        return loss

    optimizer.step(closure)


def checkpointed(model, optimizer, x, y, log):
    loss = F.cross_entropy(model[2](checkpoint(model[:2], x.clone().requires_grad_(), use_reentrant=True)), y)
    log("before", loss)
    optimizer.zero_grad()
    loss.backward()
    log("after", loss)
    optimizer.step()


LOOPS = [plain, micro_batches, scaled, by_function, within_a_closure, checkpointed]


def recorded(loop, when, every=1, **more):
    """What is recorded where the loss is logged at such a moment, or, None, not at all."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with nndiag.watch(model, optimizer, every=every, **more) as recorder:
        for x, y in batches():
            loop(model, optimizer, x, y, lambda at, loss: recorder.log(loss=loss) if at == when else None)
        return recorder.run


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
@pytest.mark.parametrize("when", [None, "after"])
@pytest.mark.parametrize("every", [1, 7])
def test_a_loss_that_is_seen_is_one_that_was_told(loop, when, every):
    wanted, found = recorded(loop, "before", every), recorded(loop, when, every)
    assert len(found.losses) == STEPS
    assert found.losses["train"].to_numpy() == pytest.approx(wanted.losses["train"].to_numpy(), rel=1e-6)
    assert found.meta.loss == wanted.meta.loss
    assert found.meta.loss["name"] == "CrossEntropyLoss"
    assert found.outputs.to_numpy() == pytest.approx(wanted.outputs.to_numpy(), nan_ok=True)
    assert found.loop.to_numpy() == pytest.approx(wanted.loop.to_numpy(), nan_ok=True)


@cadences
def test_one_line_is_enough_for_a_verdict_on_what_goes_into_the_loss(options):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with nndiag.watch(model, optimizer, **options) as recorder:
        for x, y in batches():
            loss = F.cross_entropy(model(x).softmax(1), y)
            update(optimizer, loss)
    assert recorder.check().headlines[0] == "ND101"


@cadences
def test_the_first_loss_that_is_not_finite_is_seen_at_its_step(options):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with nndiag.watch(model, optimizer, **options) as recorder:
        for k, (x, y) in enumerate(batches()):
            loss = F.cross_entropy(model(x), y) * (math.nan if k == 61 else 1)
            update(optimizer, loss)
        recorder.catch_up()
        assert recorder.meta.first_nonfinite == {"step": 61, "what": "loss"}


@cadences
@pytest.mark.parametrize("number", ["of the step", "mean of the last ten"])
def test_what_is_told_now_and_then_is_filled_up_and_another_number_is_a_metric(options, number):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    every = []
    with nndiag.watch(model, optimizer, **options) as recorder:
        for k, (x, y) in enumerate(batches()):
            loss = F.cross_entropy(model(x), y)
            update(optimizer, loss)
            every.append(loss.item())
            if k % 10 == 9:
                recorder.log(loss=loss.item() if number == "of the step" else np.mean(every[-10:]))
    assert losses(recorder) == pytest.approx(every)
    others = recorder.run.metrics.get("logged_loss")
    if number == "of the step":
        assert others is None
    else:
        assert others["train"].dropna().to_numpy() == pytest.approx(np.reshape(every, (-1, 10)).mean(1))


@cadences
def test_another_number_at_every_other_step_is_a_metric_too(options):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    every = []
    with nndiag.watch(model, optimizer, **options) as recorder:
        for k, (x, y) in enumerate(batches()):
            plain(model, optimizer, x, y, lambda at, loss: every.append(loss.item()) if at == "before" else None)
            if k % 2:
                recorder.log(loss=k)
    assert losses(recorder) == pytest.approx(every)
    assert recorder.run.metrics["logged_loss"]["train"].dropna().to_list() == list(range(1, STEPS, 2))


@cadences
def test_another_number_at_every_step_is_the_loss(options):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with nndiag.watch(model, optimizer, **options) as recorder:
        for k, (x, y) in enumerate(batches()):
            plain(model, optimizer, x, y, lambda *_: None)
            recorder.log(loss=k)
    assert losses(recorder).tolist() == list(range(STEPS))
    assert "logged_loss" not in recorder.run.metrics


@cadences
def test_a_loss_before_the_gradients_were_cleared_is_none_of_the_update(options):
    """As an attack on the inputs has it, whose gradients of the parameters nobody wants."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    wanted = []
    with nndiag.watch(model, optimizer, **options) as recorder:
        for x, y in batches():
            x.requires_grad_()
            F.cross_entropy(model(x), y).backward()
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.detach() + 0.5 * x.grad.sign()), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            wanted.append(loss.item())
    assert losses(recorder) == pytest.approx(wanted)


@cadences
def test_the_loss_of_another_model_is_none_of_ours(options):
    model, other = net(), net()
    optimizer, others = (torch.optim.SGD(one.parameters(), 0.05) for one in (model, other))
    wanted = []
    with nndiag.watch(model, optimizer, **options) as recorder:
        for x, y in batches():
            made = model(x)
            loss_of_other = F.cross_entropy(other(made.detach()[:, [0, 1, 2, 0, 1, 2, 0, 1]]), y)
            others.zero_grad()
            loss_of_other.backward()
            others.step()
            loss = F.cross_entropy(made, y)
            update(optimizer, loss)
            wanted.append(loss.item())
    assert losses(recorder) == pytest.approx(wanted)


@cadences
def test_two_optimisers_with_a_loss_each_have_none_in_common(options):
    model = nn.ModuleDict({"generator": nn.Linear(4, 8), "critic": nn.Linear(8, 1)})
    ours, theirs = (torch.optim.SGD(model[name].parameters(), 0.05) for name in ("generator", "critic"))
    with nndiag.watch(model, [ours, theirs], **options) as recorder:
        for x, _ in batches():
            made = model["generator"](torch.randn(16, 4))
            theirs.zero_grad()
            (F.softplus(model["critic"](made.detach())) + F.softplus(-model["critic"](x))).mean().backward()
            theirs.step()
            ours.zero_grad()
            F.softplus(-model["critic"](made)).mean().backward()
            ours.step()
    assert recorder.step_number == STEPS
    assert len(losses(recorder)) == 0


def half(model, x, y):
    return [0.5 * F.cross_entropy(model(x), y)]


def in_turn(model, x, y):
    outputs = model(x)
    return [F.cross_entropy(outputs, y), outputs.square().mean()]


def over_all_samples(model, x, y):
    parts = zip(x.split([3, 6, 7]), y.split([3, 6, 7]), strict=True)
    return (F.cross_entropy(model(rows), ids, reduction="sum") / len(x) for rows, ids in parts)


def by_share(model, x, y):
    count = next(counts)
    return (F.cross_entropy(model(rows), ids) / count for rows, ids in zip(x.chunk(count), y.chunk(count), strict=True))


counts = itertools.cycle([4, 4, 2])


@cadences
@pytest.mark.parametrize("losses_of", [half, in_turn, over_all_samples, by_share], ids=lambda one: one.__name__)
def test_the_loss_of_a_step_is_the_sum_of_the_parts_that_go_back(options, losses_of):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    wanted = []
    with nndiag.watch(model, optimizer, **options) as recorder:
        for x, y in batches():
            optimizer.zero_grad()
            wanted.append(0.0)
            for loss in losses_of(model, x, y):
                loss.backward(retain_graph=losses_of is in_turn)
                wanted[-1] += loss.item()
            optimizer.step()
    assert losses(recorder) == pytest.approx(wanted)


@cadences
@pytest.mark.parametrize("logs", [True, False])
def test_a_pass_that_no_update_follows_is_no_loss_of_the_run(options, logs):
    """As of one that looks at gradients, between the steps and at the end."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    wanted = []
    with nndiag.watch(model, optimizer, **options) as recorder:
        for k, (x, y) in enumerate(batches()):
            loss = F.cross_entropy(model(x), y)
            if logs:
                recorder.log(loss=loss)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            wanted.append(loss.item())
            if k % 10 == 9:
                (100 * model(x).square().mean()).backward()
                optimizer.zero_grad()
    assert losses(recorder) == pytest.approx(wanted)
    assert recorder.run.meta.loss["name"] == "CrossEntropyLoss"


@cadences
@pytest.mark.parametrize("clears", ["none", "zeros"])
def test_a_loss_that_passes_through_to_another_model_is_that_of_the_other(options, clears):
    """As that of an actor does through its critic, or of a generator through its discriminator."""
    model, actor = net(), nn.Linear(8, 8)
    optimizer, others = (torch.optim.SGD(one.parameters(), 0.05) for one in (model, actor))
    wanted = []
    with nndiag.watch(model, optimizer, **options) as recorder:
        for x, y in batches():
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad(set_to_none=clears == "none")
            loss.backward()
            optimizer.step()
            wanted.append(loss.item())
            others.zero_grad()
            (-10 * model(actor(x)).mean()).backward()
            others.step()
    assert losses(recorder) == pytest.approx(wanted)
    assert recorder.run.meta.loss["name"] == "CrossEntropyLoss"


@pytest.mark.parametrize("together", [list, tuple])
def test_losses_that_go_back_together_are_one(together):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    wanted = []
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in batches(10):
            outputs = model(x)
            two = F.cross_entropy(outputs, y), outputs.square().mean()
            optimizer.zero_grad()
            torch.autograd.backward(together(two))
            optimizer.step()
            wanted.append(sum(two).item())
    assert losses(recorder) == pytest.approx(wanted)


def test_losses_that_are_scaled_together_are_known_without_the_scale():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    wanted = []
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in batches(10):
            outputs = model(x)
            two = [F.cross_entropy(outputs, y), outputs.square().mean()]
            optimizer.zero_grad()
            torch.autograd.backward(scaler.scale(two))
            scaler.step(optimizer)
            scaler.update()
            wanted.append(sum(two).item())
    assert losses(recorder) == pytest.approx(wanted)


def test_heads_that_are_left_out_do_not_hide_micro_batches():
    model = nn.ModuleDict({"used": net(), **{f"unused {k}": nn.Linear(1, 1) for k in range(4)}})
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    wanted = []
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for x, y in batches(10):
            optimizer.zero_grad()
            each = []
            for rows, ids in zip(x.chunk(2), y.chunk(2), strict=True):
                loss = F.cross_entropy(model["used"](rows), ids)
                loss.backward()
                each.append(loss.item())
            optimizer.step()
            wanted.append(np.mean(each))
    assert losses(recorder) == pytest.approx(wanted)


def test_models_in_two_threads_have_each_its_own_steps_and_parameters():
    def run(model, optimizer):
        for x, y in batches(40):
            plain(model, optimizer, x, y, lambda *_: None)

    pairs = [(model, torch.optim.SGD(model.parameters(), 0.05)) for model in (net(), net())]
    recorders = [nndiag.watch(*pair, every=1) for pair in pairs]
    threads = [threading.Thread(target=run, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for recorder in recorders:
        recorder.close()
    found = [(len(losses(one)), one.step_number, len(one.meta.parameters)) for one in recorders]
    assert found == [(40, 40, 4), (40, 40, 4)]


@cadences
def test_a_pass_from_many_values_has_no_loss_and_is_a_step_all_the_same(options):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with nndiag.watch(model, optimizer, **options) as recorder:
        for x, _ in batches():
            optimizer.zero_grad()
            output = model(x)
            output.backward(torch.ones_like(output))
            optimizer.step()
    assert recorder.step_number == STEPS
    assert recorder.run.losses.empty
    assert recorder.run.loop["backward_passes"].to_numpy() == pytest.approx(1)


@cadences
def test_an_epoch_that_is_told_by_itself_begins_with_the_next_step(options):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    with nndiag.watch(model, optimizer, **options) as recorder:
        for epoch in range(7):
            recorder.log(epoch=epoch)
            for x, y in batches(10):
                plain(model, optimizer, x, y, lambda *_: None)
    assert recorder.run.losses["epoch"].to_numpy().ravel().tolist() == np.repeat(range(7), 10).tolist()


def test_losses_of_a_model_that_is_compiled_in_place_are_seen():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    wanted = []
    with nndiag.watch(model, optimizer, every=1) as recorder:
        model.compile(backend="aot_eager")
        for x, y in batches(20):
            loss = F.cross_entropy(model(x), y)
            update(optimizer, loss)
            wanted.append(loss.item())
    assert losses(recorder) == pytest.approx(wanted, rel=1e-5)


def test_backward_is_what_it_was_once_nobody_watches():
    before = torch.autograd.backward
    with nndiag.watch(net()):
        assert torch.autograd.backward is not before
        assert functools.update_wrapper(lambda: None, torch.autograd.backward).__name__ == before.__name__
    assert torch.autograd.backward is before


# Losses that no graph tells


def by_hand(outputs, ids):
    """Cross-entropy whose parts the graph does not name."""
    shares = outputs.exp() / outputs.exp().sum(1, keepdim=True)
    return -(shares[torch.arange(len(ids)), ids] + 1e-9).log().mean()


class ByHand(nn.Module):
    def forward(self, outputs, ids):
        return by_hand(outputs, ids)


def train_by_hand(log, loss_fn=None, **told):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, loss_fn, every=1) as recorder:
        if told:
            recorder.describe(loss=told)
        for x, y in batches():
            outputs = model(x)
            loss = (loss_fn or by_hand)(outputs, y)
            log(recorder, "before", loss, outputs, y)
            update(optimizer, loss)
            log(recorder, "after", loss, outputs, y)
    return recorder


def logs(at):
    def log(recorder, when, loss, outputs, targets):
        if when == at:
            recorder.log(loss=loss, outputs=outputs, targets=targets)

    return log


BY_VALUE = {"name": "cross-entropy", "task": "classes", "expects": "logits"}
OBJECTIVE = ["ND101", "ND102", "ND103", "ND105", "ND106", "ND110", "ND111", "ND113"]


def verdicts(recorder):
    return {check.code: check for check in recorder.check().checks}


@pytest.mark.parametrize("when", [0, 3])
def test_what_the_user_tells_of_a_loss_stands_beside_what_its_graph_shows(when):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with nndiag.watch(model, optimizer, every=1) as recorder:
        for step, (x, y) in enumerate(batches()):
            if step == when:
                recorder.describe(loss={"class_weights": [1.0, 2.0, 1.0]})
            update(optimizer, nn.functional.cross_entropy(model(x).softmax(1), y))

    assert recorder.meta.loss["class_weights"] == [1.0, 2.0, 1.0]
    assert (recorder.meta.loss["task"], recorder.meta.loss["reduction"]) == ("classes", "mean")
    assert verdicts(recorder)["ND101"].verdict.name == "FAIL"


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_loss_that_the_graph_does_not_tell_is_known_by_its_value(at):
    recorder = train_by_hand(logs(at))

    assert dict(recorder.meta.loss) == BY_VALUE
    assert all(verdicts(recorder)[code].verdict.name == "PASS" for code in OBJECTIVE)


def test_a_loss_that_is_logged_as_a_number_is_still_read_from_its_graph():
    def log(recorder, when, loss, outputs, targets):
        if when == "before":
            recorder.log(loss=loss.item(), outputs=outputs, targets=targets)

    told = dict(train_by_hand(log, F.cross_entropy).meta.loss)
    assert (told["name"], told["reduction"]) == ("CrossEntropyLoss", "mean")


@pytest.mark.parametrize("at", ["before", "after"])
def test_outputs_and_targets_beside_the_number_of_a_loss_are_looked_at(at):
    def log(recorder, when, loss, outputs, targets):
        if when == at:
            recorder.log(loss=loss.item(), outputs=outputs, targets=targets)

    recorder, beside = train_by_hand(log), train_by_hand(logs(at))

    assert dict(recorder.meta.loss) == BY_VALUE
    assert all(verdicts(recorder)[code].verdict.name == "PASS" for code in OBJECTIVE)
    assert recorder.run.losses.train.tolist() == pytest.approx(beside.run.losses.train.tolist(), rel=1e-6)


def test_a_watched_loss_module_shows_what_goes_in():
    recorder = train_by_hand(lambda *_: None, ByHand())

    assert dict(recorder.meta.loss) == {**BY_VALUE, "name": "ByHand"}
    assert all(verdicts(recorder)[code].verdict.name == "PASS" for code in OBJECTIVE)


def test_what_cannot_be_known_of_a_loss_is_not_checked_and_says_how_it_could():
    checks = verdicts(train_by_hand(lambda *_: None))

    assert all(checks[code].verdict.name == "NOT_CHECKED" for code in OBJECTIVE)
    assert all(
        "log(loss=…, outputs=…, targets=…), before the backward pass" in checks[code].reason for code in OBJECTIVE
    )


def test_what_the_user_tells_of_a_loss_stands_beside_what_the_graph_shows():
    mine = {"name": "Mine", "task": "classes", "expects": "logits"}

    assert dict(train_by_hand(lambda *_: None, **mine).meta.loss) == mine
    told = dict(train_by_hand(lambda *_: None, nn.CrossEntropyLoss(), **mine).meta.loss)
    assert (told["reduction"], told["task"], told["expects"]) == ("mean", "classes", "logits")
