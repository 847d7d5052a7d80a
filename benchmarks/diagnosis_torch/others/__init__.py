"""What other tools say of the programs of the fault matrix, beside what nndiag says of them.

`python -m benchmarks.diagnosis_torch.others --help` tells what there is to run; the tools must be installed (tools.py).
"""
