"""nndiag's own checks, one file each, in a folder for each family; `checks` gives them to the catalogue."""

from __future__ import annotations

from nndiag.check import Check
from nndiag.checks.activations.activation_drift import ActivationDrift as ActivationDrift
from nndiag.checks.activations.collapsed_representation import CollapsedRepresentation as CollapsedRepresentation
from nndiag.checks.activations.dead_units import DeadUnits as DeadUnits
from nndiag.checks.activations.linear_stack import LinearStack as LinearStack
from nndiag.checks.activations.output_collapse import OutputCollapse as OutputCollapse
from nndiag.checks.activations.saturated_units import SaturatedUnits as SaturatedUnits
from nndiag.checks.data.input_scale import InputScale as InputScale
from nndiag.checks.data.nonfinite_input import NonfiniteInput as NonfiniteInput
from nndiag.checks.generalization.no_generalization import NoGeneralization as NoGeneralization
from nndiag.checks.generalization.overfitting import Overfitting as Overfitting
from nndiag.checks.generalization.underfitting import Underfitting as Underfitting
from nndiag.checks.gradients.exploding_gradients import ExplodingGradients as ExplodingGradients
from nndiag.checks.gradients.vanishing_gradients import VanishingGradients as VanishingGradients
from nndiag.checks.initialization.activation_variance import ActivationVariance as ActivationVariance
from nndiag.checks.initialization.dead_at_start import DeadAtStart as DeadAtStart
from nndiag.checks.initialization.initial_loss import InitialLoss as InitialLoss
from nndiag.checks.initialization.mean_shift import MeanShift as MeanShift
from nndiag.checks.initialization.symmetric_weights import SymmetricWeights as SymmetricWeights
from nndiag.checks.loss_curve.budget import Budget as Budget
from nndiag.checks.loss_curve.constant_loss import ConstantLoss as ConstantLoss
from nndiag.checks.loss_curve.diverging import Diverging as Diverging
from nndiag.checks.loss_curve.impossible_loss import ImpossibleLoss as ImpossibleLoss
from nndiag.checks.loss_curve.loss_spike import LossSpike as LossSpike
from nndiag.checks.loss_curve.not_learning import NotLearning as NotLearning
from nndiag.checks.loss_curve.oscillating import Oscillating as Oscillating
from nndiag.checks.loss_curve.plateau import Plateau as Plateau
from nndiag.checks.numerics.nonfinite import Nonfinite as Nonfinite
from nndiag.checks.objective.constant_output import ConstantOutput as ConstantOutput
from nndiag.checks.objective.double_softmax import DoubleSoftmax as DoubleSoftmax
from nndiag.checks.optimization.absurd_settings import AbsurdSettings as AbsurdSettings
from nndiag.checks.optimization.decay_dominates import DecayDominates as DecayDominates
from nndiag.checks.optimization.learning_rate_high import LearningRateHigh as LearningRateHigh
from nndiag.checks.optimization.learning_rate_low import LearningRateLow as LearningRateLow
from nndiag.checks.optimization.optimizer_epsilon import OptimizerEpsilon as OptimizerEpsilon
from nndiag.checks.optimization.schedule import Schedule as Schedule
from nndiag.checks.optimization.tiny_batch_norm import TinyBatchNorm as TinyBatchNorm
from nndiag.checks.optimization.untouched_parameter import UntouchedParameter as UntouchedParameter

CHECKS: tuple[type[Check], ...] = (
    NonfiniteInput,
    InputScale,
    DoubleSoftmax,
    ConstantOutput,
    InitialLoss,
    SymmetricWeights,
    ActivationVariance,
    DeadAtStart,
    MeanShift,
    DeadUnits,
    SaturatedUnits,
    ActivationDrift,
    CollapsedRepresentation,
    LinearStack,
    OutputCollapse,
    VanishingGradients,
    ExplodingGradients,
    LearningRateHigh,
    LearningRateLow,
    UntouchedParameter,
    Schedule,
    DecayDominates,
    OptimizerEpsilon,
    AbsurdSettings,
    TinyBatchNorm,
    NotLearning,
    Diverging,
    LossSpike,
    Oscillating,
    Plateau,
    ConstantLoss,
    Budget,
    ImpossibleLoss,
    Overfitting,
    Underfitting,
    NoGeneralization,
    Nonfinite,
)


def checks() -> tuple[type[Check], ...]:
    """All checks of this distribution, probes included."""
    from nndiag.probes import PROBES

    return CHECKS + PROBES
