"""The fault matrix in PyTorch: programs as people write them, faults put into them, and what the checklist says of both.

`python -m benchmarks.diagnosis_torch --help` tells what there is to run.
"""
