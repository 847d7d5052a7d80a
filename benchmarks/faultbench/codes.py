"""Which check names which kind of fault, and which kinds are out of reach: fixed before any check saw a program.

A check counts for a fault only if what it says would tell a reader that very fault. A symptom does not count: that
the loss stands still, or that the network underfits, is true of nearly all of these programs.
"""

from __future__ import annotations

CHECKS: dict[str, frozenset[str]] = {
    fault: frozenset(codes.split())
    for fault, codes in {
        # the head of the network, its loss and its targets
        "OUT_SOFTMAX1": "ND102 ND606",  # one unit under softmax is 1 for every input, so that no update moves the loss
        "OUT_SIGMOID_MC": "ND105",
        "OUT_RELU_CLS": "ND105 ND106",
        "OUT_MISSING_ACT": "ND105",
        "OUT_DOUBLE_ACT": "ND101 ND106",
        "OUT_BOUNDED_REG": "ND104 ND110",  # the range of the head against that of the targets, said from either side
        "OUT_RELU_REG": "ND104",
        "OUT_UNITS": "ND103",
        "OUT_ACT_MULTILABEL": "ND105",
        "OUT_ACT_WRONG": "ND104 ND105 ND106",
        "LOSS_TASK": "ND103 ND105 ND110 ND606",  # ND606: a loss that is 0 whatever the outputs are is no loss of this task
        "LOSS_IMPL": "ND107 ND108 ND111 ND801",  # ND801: log of 0, which a loss of the library clips
        "LABEL_ENCODING": "ND103 ND105 ND107 ND110",
        "METRIC_WRONG": "ND109",
        "DROPOUT_MISPLACED": "ND113",
        # the hidden layers
        "ACT_LINEAR_HIDDEN": "ND305",
        "ACT_SAT_HIDDEN": "ND302 ND401 ND204 ND203",  # ND203 and ND401 name the sigmoids where it is these that squash
        "ACT_HIDDEN_WRONG": "ND112 ND302 ND401",
        "DEAD_RELU": "ND205 ND301",
        "EXPLODING": "ND203 ND204 ND303 ND402 ND801 ND802",
        "INIT_BAD": "ND201 ND202 ND203 ND204 ND205 ND207",
        "BATCHNORM_MISUSE": "ND509",
        "ARCH_CAPACITY": "ND702",  # too small a network is what underfitting says first
        # the optimiser and the loop
        "LR_HIGH": "ND501 ND508",
        "LR_LOW": "ND502 ND508",
        "EPOCHS_LOW": "ND607",
        "BATCH_BAD": "ND509",
        "OPT_EPS": "ND507",
        "UNSTABLE_LOSS": "ND602 ND603 ND604",
        "REG_TOO_STRONG": "ND506 ND508",
        "REG_MISSING": "ND701",
        "FROZEN": "ND403 ND503 ND504",
        "NO_ZERO_GRAD": "ND901",
        "GRAD_SIGN": "ND408",
        "FRAMEWORK": "ND903",  # of the framework bugs only dropout that stays on in evaluation is rebuilt here
        # the data
        "DATA_INPUT_SCALE": "ND002",
        "DATA_DOUBLE_NORM": "ND002",
        "DATA_TARGET_SCALE": "ND004",
        "DATA_PREPROC_WRONG": "ND002 ND004",
        "DATA_LABELS": "ND707",  # it speaks of labels without signal
        "DATA_UNLEARNABLE": "ND707",
        "DATA_SPLIT": "ND707",
        "DATA_IMBALANCE": "ND005 ND705",
        "DATA_FEW": "ND006",
        "DATA_LEAK_VAL": "ND008",
    }.items()
}
"""Kind of fault → codes of the checks that name it."""

OUT_OF_REACH: dict[str, str] = {
    "OPT_CHOICE": "another optimiser may do better, but this one does what it promises",
    "ARCH_LAYER_MISSING": "what a layer that is not there would do leaves no trace",
    "ARCH_ORDER": "the order of layers is a matter of design unless a layer suffers, and then that is what is named",
    "ARCH_OTHER": "no common sign",
    "NOT_TRAINED": "without training there is no run to read",
    "DATA_AUG": "nothing is recorded of the data before augmentation",
    "DATA_AUG_DUP": "workers of a data loader are not seen",
    "TARGET_LEAK": "a network that solves its task too well looks like a good one",
}
"""Kind of fault → why no check names it."""

NO_FAULT = frozenset({"CLEAN", "NONE_CLEAR", "WEAK_FAULT"})
"""Labels of programs in which the benchmarks see nothing that does harm."""


def naming(faults: tuple[str, ...]) -> frozenset[str]:
    """Codes of the checks that name any of these faults."""
    return frozenset().union(*(CHECKS.get(fault, frozenset()) for fault in faults))


DIAGNOSES = naming(tuple(CHECKS))
"""Codes that name some kind of fault; any other is a symptom."""
