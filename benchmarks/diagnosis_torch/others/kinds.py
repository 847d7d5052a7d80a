"""Which of our codes name the same fault as a tool's message: the whole of the judgement by which the tools are scored.

A message belongs to the first phrase that it holds. Its codes are those of the kinds that it names as what is wrong: by its
title, and by a cause that its text gives as the usual one. Generous where there is a doubt. What a tool then advises to
try is not counted, for any of them: nor for nndiag, whose codes stand for themselves. A phrase without codes tells of
something that is none of the faults.
"""

from __future__ import annotations

from collections.abc import Mapping

from nndiag.catalogue import catalogue

KINDS: dict[str, Mapping[str, str]] = {
    "nndiag": {code: code for code in catalogue()},
    "torch-audit": {
        "TA000": "",  # a rule of its own that crashed
        "TA100": "ND801",  # NaN or Inf in parameters or gradients
        "TA102": "ND402",  # gradient explosion
        "TA104": "ND403",  # no gradients found
        "TA105": "ND301 ND205",  # activation collapse, dead neurons
        "TA200": "",  # tensor-core alignment
        "TA201": "",  # memory layout
        "TA202": "",  # device placement
        "TA203": "",  # precision and speed
        "TA300": "",  # device of the inputs
        "TA301": "ND002",  # suspicious data range
        "TA302": "ND002 ND003",  # flat data, of near-zero variance
        "TA303": "",  # layout of the inputs
        "TA304": "ND509",  # tiny batch with batch norm
        "TA305": "",  # negative ids
        "TA400": "",  # redundant bias before a norm
        "TA401": "",  # Adam with weight decay, rather than AdamW
        "TA402": "",  # weight decay on norms and biases
        "TA403": "",  # weight decay on embeddings
        "TA405": "ND202",  # filters of zeros
        "TA500": "ND403 ND503",  # a layer that is never called
        "TA501": "",  # a batch norm that is called twice
    },
    "torchmortem": {
        "Vanishing gradients": "ND401",
        "Exploding gradients": "ND402",
        "Gradient stalling": "ND401 ND403",
        "Dead units": "ND205 ND301",
        "Activation saturation": "ND302",
        "Update ratio too low": "ND502 ND503",
        "Update ratio too high": "ND501",
        "Training divergence": "ND501 ND602",  # "this typically indicates the learning rate is too high"
        "Loss plateau": "ND601 ND605 ND606",
        "Rank collapse": "ND304",
        "Weight norm explosion": "ND501",
        "Stagnant weight norms": "ND502 ND503",
        "Inter-layer weight norm imbalance": "ND203",
        "High gradient noise": "ND604",  # "common with very small batch sizes"
    },
    "trainpulse": {
        "nan_detector": "ND801",
        "loss_spike": "ND603",
        "Gradient explosion": "ND402",
        "Vanishing gradient": "ND401 ND403",
        "learning_rate": "ND505",
        "plateau": "ND601 ND605 ND606",
    },
    "torcheck": {
        "should change": "ND403 ND503 ND504",
        "doesn't belong to any optimizer": "ND503 ND504",
        "contains NaN": "ND801",
        "contains inf": "ND801",
        "shouldn't all > 0 and < 1": "ND101 ND105",  # "softmax hasn't been applied before loss calculation"
    },
    "torchtest2": {
        ": raised ": "",  # a check that could not be gone through with
        "forward: ": "",
        "output_finite: ": "ND801",
        "output_varies: ": "ND102 ND306",
        "eval_determinism: ": "ND903",
        "not connected to the autograd graph": "ND403",
        "is a leaf tensor: it was re-created": "ND403",
        "the loss is nan": "ND801",
        "the loss is inf": "ND801",
        "much larger than ln(": "ND002 ND201 ND203",  # "over-confident at init (… check input normalisation)"
        "suspiciously low compared to ln(": "ND201",
        "optimizer_coverage: ": "ND503 ND504",
        "get no gradient": "ND403 ND503",
        "get an all-zero gradient": "ND301 ND403",  # "dead ReLUs, multiplied by zero, masked out"
        "NaN/inf gradients": "ND801",
        "exploding gradients": "ND402",
        "gradient too small to change them (vanishing)": "ND401 ND403 ND503",
        "params_change: ": "ND403 ND503 ND504",
        "frozen_params: ": "",
        "input_dependency: ": "ND102 ND306",  # outputs that are the same whatever comes in
        "batch_independence: ": "ND111",  # "softmax or normalisation over the batch dimension"
        "the loss became": "ND501 ND801",  # "lr too high? unstable ops?"
        "gradients became NaN/inf": "ND801",
        "the loss did not decrease": "ND502 ND601",
        "did not reach": "ND307 ND502 ND607 ND702",  # "may lack capacity, the lr may be too low, … more steps"
        "loss: ": "",  # one that cannot be computed, or is no scalar
    },
}

SPEED = frozenset(("torch-audit", rule) for rule in ("TA200", "TA201", "TA202", "TA203"))
"""Rules on how fast a sound model is: hints for its hardware, which torch-audit can be told to leave out."""


def known(tool: str, text: str) -> str:
    """The phrase of `tool` that its message holds; empty where there is none."""
    return next((phrase for phrase in KINDS[tool] if phrase in text), "")


def kind(tool: str, text: str) -> str:
    """The phrase of `tool` that its message holds. Raises LookupError where KINDS has none for it."""
    if phrase := known(tool, text):
        return phrase
    raise LookupError(f"{tool} says {text!r}, for which KINDS has no phrase; give it one, with the codes that it names")


def codes(tool: str, phrase: str) -> frozenset[str]:
    """The codes that name what `phrase` names."""
    return frozenset(KINDS[tool][phrase].split())
