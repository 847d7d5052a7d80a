"""The first minute with nndiag: watch a training on handwritten digits, look at the frames, read the report."""

from __future__ import annotations

import argparse

import nndiag
from nndiag import nn
from nndiag.datasets import digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", metavar="DIR", help="run folder to record into (in memory without)")
    arguments = parser.parse_args()

    x, y, x_val, y_val = digits()
    model = nn.MLP([64, 128, 64, 10], activation="relu", seed=0)
    trainer = nn.Trainer(model, loss=nn.SoftmaxCrossEntropy(), optimizer=nn.SGD(lr=0.1, momentum=0.9))

    # Without `every` the recorder would keep its own time under 2 % and leave steps out; a small run can afford them all.
    with nndiag.watch(trainer, run=arguments.run, every=1) as recorder:
        nndiag.probes.run_all(trainer, x, y, recorder)  # experiments on copies of the untrained model
        trainer.fit(x, y, validation=(x_val, y_val), epochs=20, batch_size=64)

    run = recorder.run  # pandas all the way from here
    print("Loss and accuracy on the validation data:")
    print(run.metrics["accuracy"].join(run.losses.rename(columns={"validation": "loss"})["loss"]).dropna().iloc[::5])
    print("\nNorm of each weight's gradient, median over a hundred steps at a time:")
    norms = run.gradients["norm"].filter(like="weight")
    print(norms.groupby(norms.index // 100 * 100).median().round(4))
    print("\nHow far one update moves each weight, in proportion to its size:")
    print(run.statistic("updates", "ratio").filter(like="weight").median().map("{:.1e}".format).to_string())
    print()

    report = recorder.check()  # the checklist
    print(report)


if __name__ == "__main__":
    main()
