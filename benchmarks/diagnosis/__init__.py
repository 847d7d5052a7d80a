"""The fault matrix and the healthy zoo: sound programs, faults put into them, and what the checklist says of both.

`python -m benchmarks.diagnosis --help` tells what there is to run.
"""
