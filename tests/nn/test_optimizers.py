"""The optimisers: settings, state, and what they leave alone; trajectories are compared in test_pytorch.py."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nndiag import nn

OPTIMIZERS = {
    "SGD": lambda **settings: nn.SGD(0.1, momentum=0.9, **settings),
    "Adam": lambda **settings: nn.Adam(0.1, **settings),
}


def parameter(name: str = "w", kind: str = "weight", frozen: bool = False) -> nn.Parameter:
    made = nn.Parameter(name, kind, np.array([1.0, -2.0]), frozen=frozen)
    made.gradient[...] = [0.5, 0.25]
    return made


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameter_is_left_alone(name):
    frozen, free = parameter("a", frozen=True), parameter("b")

    OPTIMIZERS[name]().step([frozen, free])

    assert frozen.value.tolist() == [1.0, -2.0]
    assert free.value.tolist() != [1.0, -2.0]


@pytest.mark.parametrize("kind", ["bias", "norm"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_only_weights_decay(name, kind):
    plain, decayed, weight = parameter("a", kind), parameter("b", kind), parameter("c")

    OPTIMIZERS[name]().step([plain])
    OPTIMIZERS[name](weight_decay=0.1).step([decayed, weight])

    assert decayed.value.tolist() == plain.value.tolist() != weight.value.tolist()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_gradient_is_left_as_it_was(name):
    updated = parameter()

    OPTIMIZERS[name](weight_decay=0.1).step([updated])

    assert updated.gradient.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learning_rate_0_changes_nothing(name):
    still = parameter()
    optimizer = nn.SGD(0.0, 0.9, 0.1) if name == "SGD" else nn.Adam(0.0, weight_decay=0.1)

    optimizer.step([still])

    assert still.value.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_goes_on_bit_for_bit_from_its_state(name):
    first, second = OPTIMIZERS[name](), OPTIMIZERS[name]()
    ours, theirs = parameter(), parameter()
    first.step([ours])
    theirs.value[...] = ours.value

    second.load_state(first.state())
    first.step([ours])
    second.step([theirs])

    assert theirs.value.tolist() == ours.value.tolist()
    assert second.updates == first.updates == 2


def test_state_is_a_copy():
    optimizer, updated = nn.SGD(0.1, 0.9), parameter()
    optimizer.step([updated])

    state = optimizer.state()
    optimizer.step([updated])

    assert {key: kept.tolist() for key, kept in state.items()} == {"updates": 1, "velocity/w": [0.5, 0.25]}


def test_two_parameters_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two parameters have the same name"):
        nn.SGD(0.1).step([parameter(), parameter()])


def test_describes_itself_for_json():
    sgd, adam = nn.SGD(0.1, 0.9, 0.01), nn.Adam(0.1)

    assert json.loads(json.dumps(sgd.describe())) == {
        "name": "SGD",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.01,
        "schedule": "Constant(lr=0.1)",
    }
    assert json.loads(json.dumps(adam.describe())) == {
        "name": "Adam",
        "lr": 0.1,
        "betas": [0.9, 0.999],
        "eps": 1e-8,
        "weight_decay": 0.0,
        "schedule": "Constant(lr=0.1)",
    }


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.SGD(0.1, momentum=1.0), "SGD\\(momentum\\) got 1.0, wanted 0 <= beta < 1"),
        (lambda: nn.SGD(0.1, momentum=-0.1), "SGD\\(momentum\\) got -0.1"),
        (lambda: nn.SGD(0.1, weight_decay=-1), "SGD\\(weight_decay\\) got"),
        (lambda: nn.Adam(betas=(0.9, 1.0)), "Adam\\(betas\\) got 1.0"),
        (lambda: nn.Adam(eps=0.0), "Adam got eps=0.0, wanted a positive number"),
    ],
)
def test_impossible_settings_are_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()
