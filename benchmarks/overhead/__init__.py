"""What attaching nndiag costs a training step, beside the bare step, naive hooks and TensorBoard histograms."""
