"""Published faulty programs with convolutions and recurrent layers, rebuilt in PyTorch, each beside its fixed version."""
