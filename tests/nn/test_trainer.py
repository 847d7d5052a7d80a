"""The training loop: events, history, evaluation, errors."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest

from nndiag import errors, nn
from nndiag.hooks import EVENTS, Hook

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 6))
Y = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0)


def listener(event):
    def listen(self, *arguments):
        self.heard.append((event, *arguments))

    return listen


class Diary(Hook):
    """Writes down every event with its arguments."""

    def __init__(self):
        self.heard = []

    @property
    def events(self):
        return [event for event, *_ in self.heard]

    def said(self, event):
        return [arguments for name, *arguments in self.heard if name == event]


for event in EVENTS:
    setattr(Diary, event, listener(event))


def trainer(hooks=(), loss=None, optimizer=None, **settings) -> nn.Trainer:
    model = nn.MLP([6, 8, 3], **{name: settings.pop(name) for name in ("norm", "dropout") if name in settings})
    return nn.Trainer(model, loss or nn.SoftmaxCrossEntropy(), optimizer or nn.SGD(0.1, 0.9), hooks, **settings)


def weights(of: nn.Trainer) -> list[list[float]]:
    return [parameter.value.ravel().tolist() for parameter in of.model.parameters]


def test_overfits_a_tiny_batch():
    tiny = trainer()

    history = tiny.fit(X[:8], Y[:8], epochs=200, batch_size=8)

    assert history[-1]["loss"] < 0.01
    assert tiny.evaluate(X[:8], Y[:8])["accuracy"] == 1.0


def test_events_come_in_the_order_of_the_hooks_docstring():
    diary = Diary()

    trainer([diary]).fit(X, Y, validation=(X, Y), batch_size=50)

    assert diary.events == [
        "on_train_begin",
        "on_validation_data",
        "on_epoch_begin",
        "on_step_begin",
        *["on_forward"] * 3,
        "on_loss",
        "on_output_gradient",
        *["on_backward"] * 3,
        "on_gradients",
        "on_update_begin",
        *["on_update"] * 4,
        "on_update_end",
        "on_step_end",
        "on_validation_begin",
        *["on_validation_forward"] * 3,
        "on_validation",
        "on_epoch_end",
        "on_train_end",
    ]


def test_layers_are_told_forward_and_then_backward():
    diary = Diary()

    trainer([diary]).fit(X, Y, batch_size=50)

    assert [layer.name for layer, *_ in diary.said("on_forward")] == ["hidden1", "hidden1.relu", "output"]
    assert [layer.name for layer, _ in diary.said("on_backward")] == ["output", "hidden1.relu", "hidden1"]


def test_evaluation_and_prediction_fire_no_event():
    diary = Diary()
    observed = trainer([diary])

    observed.evaluate(X, Y)
    observed.predict(X)

    assert diary.heard == []


def test_epochs_count_on_over_several_fits():
    diary = Diary()
    observed = trainer([diary])

    histories = [observed.fit(X, Y, epochs=2), observed.fit(X, Y)]

    assert diary.said("on_epoch_begin") == diary.said("on_epoch_end") == [[0], [1], [2]]
    assert [epoch["epoch"] for history in histories for epoch in history] == [0, 1, 2]


def test_last_batch_may_be_smaller():
    diary = Diary()

    history = trainer([diary], optimizer=nn.SGD(0.0)).fit(X, Y, batch_size=32)

    losses = [loss for _, _, loss in diary.said("on_loss")]
    assert [len(x) for x, _ in diary.said("on_step_begin")] == [32, 18]
    assert history[0]["loss"] == pytest.approx((32 * losses[0] + 18 * losses[1]) / 50)


def test_hooks_change_nothing():
    plain, observed = trainer(dropout=0.3), trainer([Diary()], dropout=0.3)

    assert plain.fit(X, Y, epochs=3) == observed.fit(X, Y, epochs=3)
    assert weights(plain) == weights(observed)


def test_failing_hook_does_not_stop_training(caplog):
    class Broken(Hook):
        def on_loss(self, outputs, targets, loss):
            raise RuntimeError("broken on purpose")

    plain, observed = trainer(), trainer([Broken()])

    with caplog.at_level(logging.ERROR, logger="nndiag"):
        observed.fit(X, Y, epochs=2)
    plain.fit(X, Y, epochs=2)

    assert weights(plain) == weights(observed)
    assert "Broken failed in on_loss" in caplog.text


@pytest.mark.parametrize(("fault", "ended"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "crashed")])
def test_says_how_training_ended_and_raises_on(fault, ended):
    diary = Diary()
    doomed = trainer([diary])

    def stop(step):
        if step < 1:
            return 0.1
        raise fault

    doomed.optimizer.schedule = stop
    with pytest.raises(fault):
        doomed.fit(X, Y)

    assert diary.said("on_train_end") == [[ended]]


def test_completed_training_says_so():
    diary = Diary()

    trainer([diary]).fit(X, Y)

    assert diary.said("on_train_end") == [["completed"]]


def test_gradients_are_told_before_clipping_and_updates_after():
    class Norms(Hook):
        def on_gradients(self, parameters):
            self.before = np.sqrt(sum(np.sum(p.gradient**2) for p in parameters))

        def on_update_begin(self, parameters, lr):
            self.after, self.lr = np.sqrt(sum(np.sum(p.gradient**2) for p in parameters)), lr

    hook = Norms()

    trainer([hook], clip_norm=0.01).step(X, Y)

    assert hook.before > 0.01
    assert hook.after == pytest.approx(0.01, rel=1e-5)
    assert hook.lr == 0.1


def test_seeds_make_training_reproducible():
    runs = [trainer(seed=seed, dropout=0.5) for seed in (1, 1, 2)]
    for run in runs:
        run.fit(X, Y, epochs=2)

    assert weights(runs[0]) == weights(runs[1]) != weights(runs[2])


def test_without_shuffle_the_batches_come_in_order():
    diary = Diary()

    trainer([diary]).fit(X, Y, shuffle=False, batch_size=32)

    np.testing.assert_array_equal(np.concatenate([x for x, _ in diary.said("on_step_begin")]), X.astype(np.float32))


def test_evaluation_is_the_same_in_any_batches():
    judged = trainer(norm="batch", dropout=0.5)
    judged.fit(X, Y)

    whole, parts = judged.evaluate(X, Y), judged.evaluate(X, Y, batch_size=7)

    assert set(whole) == {"loss", "accuracy"}
    assert parts == pytest.approx(whole, rel=1e-6)


def test_history_holds_the_validation():
    tried = trainer()

    history = tried.fit(X, Y, validation=(X[:20], Y[:20]))

    assert set(history[0]) == {"epoch", "loss", "validation_loss", "validation_accuracy"}
    assert history[0]["validation_loss"] == tried.evaluate(X[:20], Y[:20])["loss"]


def test_binary_accuracy_has_its_threshold_at_logit_0():
    model = nn.MLP([6, 1])
    model.parameters[0].value[...] = [[1, 0, 0, 0, 0, 0]]
    judged = nn.Trainer(model, nn.BCEWithLogits(), nn.SGD(0.1))

    assert judged.evaluate(X, X[:, 0] > 0)["accuracy"] == 1.0
    assert judged.evaluate(X, X[:, :1] < 0)["accuracy"] == 0.0


def test_metrics_may_be_functions_of_outputs_and_targets():
    judged = trainer(loss=nn.MSE(), metrics={"mae": lambda outputs, targets: float(np.abs(outputs - targets).mean())})

    values = judged.evaluate(X, X[:, :3], batch_size=7)

    assert values["mae"] == pytest.approx(np.abs(judged.predict(X) - X[:, :3]).mean(), rel=1e-6)


def test_real_targets_have_no_metric_of_their_own():
    assert set(trainer(loss=nn.MSE()).evaluate(X, X[:, :3])) == {"loss"}


@pytest.mark.parametrize(("loss", "name"), [(nn.SoftmaxCrossEntropy(), "f1"), (nn.MSE(), "accuracy")])
def test_metric_that_there_is_not_is_refused(loss, name):
    with pytest.raises(errors.UnknownName, match=name):
        trainer(loss=loss, metrics=[name])


@pytest.mark.parametrize("name", ["loss", "nonfinite"])
def test_a_function_under_a_name_that_stands_for_something_else_is_refused(name):
    with pytest.raises(errors.NndiagError, match=f"'{name}'.*another name"):
        trainer(metrics={name: lambda outputs, targets: 0.0})


def test_predictions_belong_to_the_caller():
    asked = trainer()

    first = asked.predict(X)
    kept = first.copy()
    asked.predict(-X)

    np.testing.assert_array_equal(first, kept)


def test_nan_in_the_data_raises_neither_error_nor_warning():
    broken = X.copy()
    broken[3, 2], broken[4, 1] = np.nan, np.inf

    history = trainer(norm="batch", clip_norm=1.0).fit(broken, Y, validation=(broken, Y), epochs=2)

    assert np.isnan(history[-1]["loss"])


def test_exploding_training_raises_neither_error_nor_warning():
    history = trainer(optimizer=nn.SGD(1e30)).fit(1e30 * X, Y, epochs=5)

    assert not np.isfinite(history[-1]["loss"])


def test_labels_stay_integers_and_real_targets_get_the_dtype_of_the_model():
    labels, reals = Diary(), Diary()

    trainer([labels]).fit(X, Y.astype(np.int16))
    trainer([reals], loss=nn.MSE()).fit(X, X[:, :3])

    assert labels.said("on_step_begin")[0][1].dtype == np.int16
    assert reals.said("on_step_begin")[0][1].dtype == np.float32


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (X, Y[:-1], "inputs are of shape (50, 6) and targets of shape (49,), wanted as many of each"),
        (X[:0], Y[:0], "inputs are of shape (0, 6), wanted (N, 6) with N of 1 or more"),
        (X[0], Y[:1], "inputs are of shape (6,), wanted (N, 6)"),
        (X[:, :5], Y, "hidden1 got an input of width 5, wanted 6"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_training_begins(x, y, text):
    diary = Diary()

    with pytest.raises(errors.ShapeError, match=re.escape(text)):
        trainer([diary]).fit(x, y)
    with pytest.raises(errors.ShapeError, match=re.escape(text)):
        trainer([diary]).fit(X, Y, validation=(x, y))

    assert diary.heard == []


def test_targets_that_are_no_numbers_are_refused():
    with pytest.raises(TypeError, match=r"targets are of type <U3, wanted numbers"):
        trainer().fit(X, np.full(50, "cat"))


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"epochs": 0}])
def test_nothing_to_do_is_refused(settings):
    with pytest.raises(ValueError, match="wanted 1 or more of each"):
        trainer().fit(X, Y, **settings)


def test_batch_of_one_for_batch_norm_is_refused_before_training_begins():
    with pytest.raises(errors.ShapeError, match="50 inputs in batches of 7 end with a batch of 1"):
        trainer(norm="batch").fit(X, Y, batch_size=7)


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, np.nan])
def test_impossible_clipping_is_refused(clip_norm):
    with pytest.raises(ValueError, match="give a positive number or None"):
        trainer(clip_norm=clip_norm)


def test_progress_shows_loss_and_validation_accuracy_on_stderr(capsys):
    trainer().fit(X, Y, validation=(X, Y), epochs=2, progress=True)

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "loss=" in shown.err
    assert "4/4" in shown.err
    assert "validation_accuracy=" in shown.err


def test_describes_itself_for_json():
    described = trainer(norm="layer", clip_norm=2.0, seed=5)
    described.model.parameters[0].frozen = True
    described.fit(X, Y, batch_size=10)

    values = json.loads(json.dumps(described.describe()))

    assert values["layers"] == [
        {"name": "hidden1", "kind": "affine", "shape": [8]},
        {"name": "hidden1.norm", "kind": "layer_norm", "shape": [8]},
        {"name": "hidden1.relu", "kind": "relu", "shape": [8]},
        {"name": "output", "kind": "affine", "shape": [3]},
    ]
    assert values["parameters"][0] == {
        "name": "hidden1.weight",
        "kind": "weight",
        "shape": [8, 6],
        "frozen": True,
        "layer": "hidden1",
        "std": pytest.approx(float(described.model.parameters[0].value.std())),
        "mean": pytest.approx(float(described.model.parameters[0].value.mean()), abs=1e-6),
    }
    assert values["clipping"] == {"max_norm": 2.0, "gradients": "before"}
    assert (values["batch_size"], values["dtype"]) == (10, "float32")
    assert values["seeds"] == {"trainer": 5, "model": 0}
    assert set(values) == {
        "layers",
        "parameters",
        "loss",
        "optimizer",
        "clipping",
        "batch_size",
        "samples",
        "seeds",
        "dtype",
    }
