"""ND114 padding-read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag import progress, synthetic
from nndiag.check import Check, Finding
from nndiag.run import Run


@dataclass(frozen=True)
class PaddingRead(Check):
    """The network reads the padding of its texts in place of the texts, or is rewarded for it.

    A mask that is the wrong way round shows attention nothing but padding: libraries differ in what True means. PyTorch's
    key_padding_mask marks the places that are left out, the attention mask of other libraries those that count. A recurrent
    layer whose state is taken after the last place has read padding for many steps by then, and forgotten what came before. And
    where a loss on every place counts those of padding, it and an accuracy look good before a single word is known.

    Decides on the graph of the loss, in PyTorch on a CPU. A mask is wrong where all attention that hides places from every other
    shows one id alone, at the end of the texts of a batch or at their beginning and not as often in each, and hides three others
    or more. A state is taken after padding where the last output of a recurrent layer is picked, or its last state, of texts that
    were not packed, half of which or more end in one and the same id, in the median at five places or more; that is a finding
    where training is poor, and else a remark: a short end is no harm. Targets of padding count where they are more than `counted`
    of all that go into a plain mean, and one class that is not ignored.
    """

    code = "ND114"
    name = "padding-read"
    kind = "exact"
    min_reads = 1
    advice = "Turn the mask round with ~mask: in PyTorch's key_padding_mask, True marks the places that are left out."
    confirm = "print(ids[0], mask[0])"
    passed = "on a CPU, where it is looked for, no padding is read in place of text"

    counted: float = 0.5

    def not_checked(self, run: Run) -> str | None:
        if not run.reads:
            return "needs a step of training"
        reads = any(layer.kind in ("attention", "recurrent") for layer in run.meta.layers)
        told = run.meta.loss.keys() & {"padding", "padding_counted"}
        return None if reads or told else "needs attention or a recurrent layer, and ids that go into it"

    def examine(self, run: Run) -> Iterator[Finding]:
        padding = run.meta.loss.get("padding")
        if padding == "shown":
            yield self.finding(
                "attention hides every word and shows one id alone, as padding has it: its mask is the wrong way round",
                steps=(0, run.steps), causes=("True for the places that count",),
            )  # fmt: skip
        elif padding == "read last":
            yield self.finding(
                "the state of the recurrent layer is taken after the last place, and most texts end in padding: it has read that "
                "for many steps by then", kind=progress.fault_if_poor(run),
                steps=(0, run.steps), causes=("texts padded at their end and not packed",),
                fix="Pack the texts with pack_padded_sequence, or take the output at the last word of each.",
                confirm="print(ids[:4, -8:])",
            )  # fmt: skip
        if (share := run.meta.loss.get("padding_counted", 0.0)) > self.counted:
            yield self.finding(
                f"{share:.0%} of the targets are those of padding, and the loss counts them: it falls as they are named",
                kind="training", steps=(0, run.steps), value=share, threshold=self.counted,
                causes=("no ignore_index",), confirm="print(ids[0], targets[0])",
                fix="Leave padding out: CrossEntropyLoss(ignore_index=…) with the class that padding has, or a mask.",
            )  # fmt: skip

    @classmethod
    def _run(cls, **facts: str) -> Run:
        return synthetic.run(
            train=1.4, layers=[{"name": "a", "kind": "attention"}], loss={"name": "CrossEntropyLoss", **facts}
        )

    @classmethod
    def healthy(cls) -> Run:
        return cls._run()

    @classmethod
    def sick(cls) -> Run:
        return cls._run(padding="shown")
