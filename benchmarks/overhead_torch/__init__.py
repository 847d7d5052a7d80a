"""What attaching nndiag costs a training step of PyTorch on the CPU, beside the bare step and other tools."""
