"""A small multilayer perceptron in NumPy that trains with the same hooks as every other framework."""

from nndiag.nn.activations import LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from nndiag.nn.checkpoint import CheckpointError
from nndiag.nn.clipping import clip_by_global_norm
from nndiag.nn.dropout import Dropout
from nndiag.nn.initializers import (
    constant,
    he_normal,
    he_std,
    he_uniform,
    initializer,
    normal,
    xavier_normal,
    xavier_std,
    xavier_uniform,
)
from nndiag.nn.layers import Affine, Layer
from nndiag.nn.losses import MSE, BCEWithLogits, CrossEntropy, Loss, SoftmaxCrossEntropy
from nndiag.nn.mlp import MLP
from nndiag.nn.norms import BatchNorm, LayerNorm
from nndiag.nn.optimizers import SGD, Adam, Optimizer
from nndiag.nn.parameter import Parameter
from nndiag.nn.schedules import Constant, Cosine, Schedule, WarmUp
from nndiag.nn.sequential import Sequential
from nndiag.nn.targets import TargetError
from nndiag.nn.trainer import Trainer

__all__ = [
    "MLP",
    "MSE",
    "SGD",
    "Adam",
    "Affine",
    "BCEWithLogits",
    "BatchNorm",
    "CheckpointError",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "Dropout",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "Loss",
    "Optimizer",
    "Parameter",
    "ReLU",
    "Schedule",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "SoftmaxCrossEntropy",
    "Tanh",
    "TargetError",
    "Trainer",
    "WarmUp",
    "clip_by_global_norm",
    "constant",
    "he_normal",
    "he_std",
    "he_uniform",
    "initializer",
    "normal",
    "xavier_normal",
    "xavier_std",
    "xavier_uniform",
]
