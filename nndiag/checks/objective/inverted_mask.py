"""ND114 inverted-mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class InvertedMask(Check):
    """Attention looks at the padding of its texts and not at the texts: its mask is the wrong way round.

    Libraries differ in what True means: PyTorch's key_padding_mask marks the places that are left out, the attention mask of
    other libraries those that count. The network then gets the length of a text, and none of its words.

    Decides on the weights or masks of all attention in the graph of the loss that hides places from every other: the ids that
    it shows are one and the same in all texts of a batch, and those that it hides are three or more others.
    """

    code = "ND114"
    name = "inverted-mask"
    kind = "exact"
    needs = ("losses.train",)
    min_reads = 1
    advice = "Turn the mask round with ~mask: in PyTorch's key_padding_mask, True marks the places that are left out."
    confirm = "print(ids[0], mask[0])"
    passed = "no attention hides all but one id"

    def not_checked(self, run: Run) -> str | None:
        if reason := super().not_checked(run):
            return reason
        attends = any(layer.kind == "attention" for layer in run.meta.layers) or run.meta.loss.get("text_hidden")
        return None if attends else "needs attention, and ids that go into it"

    def examine(self, run: Run) -> Iterator[Finding]:
        if run.meta.loss.get("text_hidden"):
            steps = run.train.index
            yield self.finding(
                "attention hides every word and shows one id alone, as padding has it: its mask is the wrong way round",
                first_step=int(steps[0]), last_step=int(steps[-1]), causes=("True for the places that count",),
            )  # fmt: skip

    @classmethod
    def _run(cls, **facts: bool) -> Run:
        return synthetic.run(
            train=1.4, layers=[{"name": "a", "kind": "attention"}], loss={"name": "CrossEntropyLoss", **facts}
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run()

    @classmethod
    def sick(cls) -> Run:
        return cls._run(text_hidden=True)
