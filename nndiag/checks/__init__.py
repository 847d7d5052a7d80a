"""nndiag's own checks, one file each, in a folder for each family; `checks` gives them to the catalogue."""

from __future__ import annotations

from nndiag.check import Check
from nndiag.checks.activations.activation_drift import ActivationDrift as ActivationDrift
from nndiag.checks.activations.bottleneck import Bottleneck as Bottleneck
from nndiag.checks.activations.collapsed_representation import CollapsedRepresentation as CollapsedRepresentation
from nndiag.checks.activations.dead_units import DeadUnits as DeadUnits
from nndiag.checks.activations.linear_stack import LinearStack as LinearStack
from nndiag.checks.activations.output_collapse import OutputCollapse as OutputCollapse
from nndiag.checks.activations.saturated_units import SaturatedUnits as SaturatedUnits
from nndiag.checks.data.class_imbalance import ClassImbalance as ClassImbalance
from nndiag.checks.data.constant_features import ConstantFeatures as ConstantFeatures
from nndiag.checks.data.input_drift import InputDrift as InputDrift
from nndiag.checks.data.input_scale import InputScale as InputScale
from nndiag.checks.data.no_validation import NoValidation as NoValidation
from nndiag.checks.data.nonfinite_input import NonfiniteInput as NonfiniteInput
from nndiag.checks.data.split_overlap import SplitOverlap as SplitOverlap
from nndiag.checks.data.target_leak import TargetLeak as TargetLeak
from nndiag.checks.data.target_scale import TargetScale as TargetScale
from nndiag.checks.data.too_few_samples import TooFewSamples as TooFewSamples
from nndiag.checks.data.unshuffled_batches import UnshuffledBatches as UnshuffledBatches
from nndiag.checks.data.validation_shift import ValidationShift as ValidationShift
from nndiag.checks.generalization.no_generalization import NoGeneralization as NoGeneralization
from nndiag.checks.generalization.overfitting import Overfitting as Overfitting
from nndiag.checks.generalization.underfitting import Underfitting as Underfitting
from nndiag.checks.generalization.validation_below_train import ValidationBelowTrain as ValidationBelowTrain
from nndiag.checks.gradients.clipped_always import ClippedAlways as ClippedAlways
from nndiag.checks.gradients.exploding_gradients import ExplodingGradients as ExplodingGradients
from nndiag.checks.gradients.gradient_sign import GradientSign as GradientSign
from nndiag.checks.gradients.vanishing_gradients import VanishingGradients as VanishingGradients
from nndiag.checks.gradients.zero_gradient import ZeroGradient as ZeroGradient
from nndiag.checks.initialization.activation_variance import ActivationVariance as ActivationVariance
from nndiag.checks.initialization.dead_at_start import DeadAtStart as DeadAtStart
from nndiag.checks.initialization.initial_loss import InitialLoss as InitialLoss
from nndiag.checks.initialization.mean_shift import MeanShift as MeanShift
from nndiag.checks.initialization.symmetric_weights import SymmetricWeights as SymmetricWeights
from nndiag.checks.loop.evaluation_mode_training import EvaluationModeTraining as EvaluationModeTraining
from nndiag.checks.loop.gradients_not_cleared import GradientsNotCleared as GradientsNotCleared
from nndiag.checks.loop.step_goes_back import StepGoesBack as StepGoesBack
from nndiag.checks.loop.step_never_called import StepNeverCalled as StepNeverCalled
from nndiag.checks.loop.training_mode_evaluation import TrainingModeEvaluation as TrainingModeEvaluation
from nndiag.checks.loss_curve.budget import Budget as Budget
from nndiag.checks.loss_curve.constant_loss import ConstantLoss as ConstantLoss
from nndiag.checks.loss_curve.diverging import Diverging as Diverging
from nndiag.checks.loss_curve.impossible_loss import ImpossibleLoss as ImpossibleLoss
from nndiag.checks.loss_curve.loss_spike import LossSpike as LossSpike
from nndiag.checks.loss_curve.not_learning import NotLearning as NotLearning
from nndiag.checks.loss_curve.oscillating import Oscillating as Oscillating
from nndiag.checks.loss_curve.plateau import Plateau as Plateau
from nndiag.checks.numerics.near_overflow import NearOverflow as NearOverflow
from nndiag.checks.numerics.nonfinite import Nonfinite as Nonfinite
from nndiag.checks.numerics.scaler_skips import ScalerSkips as ScalerSkips
from nndiag.checks.objective.bounded_output import BoundedOutput as BoundedOutput
from nndiag.checks.objective.clipped_logits import ClippedLogits as ClippedLogits
from nndiag.checks.objective.constant_output import ConstantOutput as ConstantOutput
from nndiag.checks.objective.double_softmax import DoubleSoftmax as DoubleSoftmax
from nndiag.checks.objective.dropped_outputs import DroppedOutputs as DroppedOutputs
from nndiag.checks.objective.hidden_softmax import HiddenSoftmax as HiddenSoftmax
from nndiag.checks.objective.loss_task_mismatch import LossTaskMismatch as LossTaskMismatch
from nndiag.checks.objective.metric_mismatch import MetricMismatch as MetricMismatch
from nndiag.checks.objective.output_units import OutputUnits as OutputUnits
from nndiag.checks.objective.padding_read import PaddingRead as PaddingRead
from nndiag.checks.objective.sum_reduction import SumReduction as SumReduction
from nndiag.checks.objective.target_broadcast import TargetBroadcast as TargetBroadcast
from nndiag.checks.objective.target_out_of_range import TargetOutOfRange as TargetOutOfRange
from nndiag.checks.objective.wrong_axis import WrongAxis as WrongAxis
from nndiag.checks.optimization.absurd_settings import AbsurdSettings as AbsurdSettings
from nndiag.checks.optimization.decay_dominates import DecayDominates as DecayDominates
from nndiag.checks.optimization.learning_rate_high import LearningRateHigh as LearningRateHigh
from nndiag.checks.optimization.learning_rate_low import LearningRateLow as LearningRateLow
from nndiag.checks.optimization.optimizer_epsilon import OptimizerEpsilon as OptimizerEpsilon
from nndiag.checks.optimization.schedule import Schedule as Schedule
from nndiag.checks.optimization.tiny_batch_norm import TinyBatchNorm as TinyBatchNorm
from nndiag.checks.optimization.unoptimized_parameter import UnoptimizedParameter as UnoptimizedParameter
from nndiag.checks.optimization.untouched_parameter import UntouchedParameter as UntouchedParameter

CHECKS: tuple[type[Check], ...] = (
    NonfiniteInput,
    InputScale,
    ConstantFeatures,
    TargetScale,
    ClassImbalance,
    TooFewSamples,
    UnshuffledBatches,
    SplitOverlap,
    ValidationShift,
    NoValidation,
    TargetLeak,
    InputDrift,
    DoubleSoftmax,
    ConstantOutput,
    OutputUnits,
    BoundedOutput,
    LossTaskMismatch,
    ClippedLogits,
    TargetBroadcast,
    SumReduction,
    MetricMismatch,
    TargetOutOfRange,
    WrongAxis,
    HiddenSoftmax,
    DroppedOutputs,
    PaddingRead,
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
    Bottleneck,
    VanishingGradients,
    ExplodingGradients,
    ZeroGradient,
    ClippedAlways,
    GradientSign,
    LearningRateHigh,
    LearningRateLow,
    UntouchedParameter,
    UnoptimizedParameter,
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
    ValidationBelowTrain,
    NoGeneralization,
    Nonfinite,
    NearOverflow,
    ScalerSkips,
    GradientsNotCleared,
    EvaluationModeTraining,
    TrainingModeEvaluation,
    StepNeverCalled,
    StepGoesBack,
)


def checks() -> tuple[type[Check], ...]:
    """All checks of this distribution, probes included."""
    from nndiag.probes import PROBES

    return CHECKS + PROBES
