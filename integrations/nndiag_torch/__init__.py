"""nndiag for PyTorch: `nndiag.watch(model, optimizer)` finds its way here, through the adapter."""

from nndiag_torch.adapter import attach as attach
