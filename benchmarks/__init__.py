"""The benchmarks: what nndiag costs, and how often its diagnosis is right."""
