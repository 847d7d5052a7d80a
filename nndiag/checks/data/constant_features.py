"""ND003 constant-features."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import structure, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class ConstantFeatures(Check):
    """Most input features never change, or all ids are the same by the time they are looked up.

    They say nothing of a sample. A few are normal (the border of an image); nearly all of them mean that preprocessing has
    cut, filled or overwritten the data.

    Decides on the share of features with one value over all batches so far, from `samples` samples on: above `many`. It is a
    remark where the others are `sparse`, zero that often: bags of words have many columns that stay 0 for a while; and before
    a recurrent or attention layer or an embedding, where a feature of each step counts as one: sequences are padded, and
    pause. Or on an embedding with which the network begins: of its output and of that of the last layer less than `share`
    varies with the input on all of `reads` reads or more, though inputs vary: all ids are one, as of fractions that were cut
    to whole numbers.
    """

    code = "ND003"
    name = "constant-features"
    kind = "training"
    needs = ("data.constant_fraction",)
    min_reads = 1
    advice = "Look at a few rows after all preprocessing; leave out columns that never change."
    confirm = "print(np.ptp(x, axis=0))"
    passed = "input features vary"

    many: float = 0.5
    sparse: float = 0.6
    samples: int = 100
    reads: int = 10
    share: float = 1e-6

    def not_checked(self, run: Run) -> str | None:
        seen = run.latest("data", "samples", "input")
        if seen is not None and seen < self.samples:
            return f"needs {self.samples} samples, has seen {seen:.0f}"
        return super().not_checked(run)

    def examine(self, run: Run) -> Iterator[Finding]:
        shares = run.series("data", "constant_fraction", "input")
        share = float(shares.iloc[-1]) if len(shares) else 0.0
        if share > self.many:
            yield self.finding(
                f"{share:.0%} of the input features have had one value in every sample",
                kind="note" if self._zeros(run, share) > self.sparse or self._sequences(run) else self.kind,
                steps=shares.index, value=share, threshold=self.many,
            )  # fmt: skip

        elif layer := self._same_ids(run):
            steps = run.series("activations", "batch_variance", layer).index
            yield self.finding(
                f"{layer} puts out the same for every input on all {len(steps)} reads: the ids that reach it are all one",
                layer=layer, steps=steps, value=0.0, threshold=0.0,
                causes=("fractions that were cut to whole numbers",), fix=f"Print the ids that go into {layer}.",
            )  # fmt: skip

    def _same_ids(self, run: Run) -> str:
        """An embedding with which the network begins and that puts out the same for all, where inputs differ; else ""."""
        layers, inputs = structure.recorded(run, "batch_variance"), run.series("data", "variance", "input")
        if not layers or structure.kind(run, layers[0]) != "embedding" or not (inputs > 0).any():
            return ""
        same = all(self._still(run, layer) for layer in (layers[0], layers[-1]))
        return layers[0] if same and self._in_batches(run) else ""

    def _still(self, run: Run, layer: str) -> bool:
        """Whether what `layer` puts out never depends on the input."""
        spread = run.series("activations", "batch_variance", layer)
        whole = run.series("activations", "variance", layer).reindex(spread.index)
        return len(spread) >= self.reads and bool((spread <= self.share * whole).all())

    def _in_batches(self, run: Run) -> bool:
        """Whether more than one sample goes in at a time."""
        samples = run.series("data", "samples", "input")
        return len(samples) > 0 and samples.iloc[0] > 1

    def _sequences(self, run: Run) -> bool:
        """Whether a layer over sequences, or one of words, takes the inputs."""
        return any(layer.kind in ("recurrent", "attention", "embedding") for layer in run.meta.layers[:1])

    def _zeros(self, run: Run, constant: float) -> float:
        """Share of zeros among the features that vary, taking the constant ones for zeros."""
        rms, nonzero = run.latest("data", "rms", "input"), run.latest("data", "nonzero_rms", "input")
        if not rms or not nonzero or constant >= 1:
            return 0.0
        return (1 - (rms / nonzero) ** 2 - constant) / (1 - constant)

    @classmethod
    def _run(cls, share: float) -> Run:
        return synthetic.run(data={"constant_fraction": {"input": share}, "samples": {"input": 640.0}})

    @classmethod
    def healthy(cls) -> Run:
        return cls._run(0.4)

    @classmethod
    def sick(cls) -> Run:
        return cls._run(0.6)
