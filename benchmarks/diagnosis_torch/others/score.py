"""What each tool's messages are worth: alarms and right kinds on faulty programs, false alarms on sound ones, in tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.diagnosis_torch.faults import FAULTS
from benchmarks.diagnosis_torch.measure import Job
from benchmarks.diagnosis_torch.others.kinds import KINDS, SPEED, codes, kind
from benchmarks.diagnosis_torch.others.tools import Said, examine
from benchmarks.scoring import Share, table

HEAD = ("part", "tool", "faulty: runs", "any alarm", "right kind", "precision of kinds", "sound: runs", "any FAIL",
        "any WARN or FAIL", "could not be run")  # fmt: skip


@dataclass(frozen=True)
class Heard:
    """Messages of one kind in one run: the phrase of KINDS, whether one of them is an error, and the first of them."""

    phrase: str
    failed: bool
    text: str


@dataclass(frozen=True)
class Result:
    """What a tool says of a program; `trouble` is why it could not be run, and then nothing is heard."""

    tool: str
    job: Job
    heard: tuple[Heard, ...] = ()
    trouble: str = ""

    @property
    def expected(self) -> frozenset[str]:
        """The codes that name what is wrong with the program."""
        return FAULTS[self.job.fault].expected if self.job.fault else frozenset()

    def right(self, heard: Heard) -> bool:
        """Whether that names the fault."""
        return bool(codes(self.tool, heard.phrase) & self.expected)

    @property
    def found(self) -> bool:
        """Whether anything heard names the fault."""
        return any(map(self.right, self.heard))


def measure(wanted: tuple[str, Job]) -> Result:
    """Run a program with a tool."""
    tool, job = wanted
    said, trouble = examine(tool, job)
    return Result(tool, job, tuple(heard(tool, said)), trouble)


def heard(tool: str, said: Iterable[Said]) -> Iterator[Heard]:
    """The messages by kind, in the order in which the kinds appear."""
    kinds: dict[str, list[Said]] = {}
    for message in said:
        kinds.setdefault(kind(tool, message.text), []).append(message)
    for phrase, messages in kinds.items():
        yield Heard(phrase, any(message.failed for message in messages), messages[0].text)


def without_speed(results: Iterable[Result]) -> list[Result]:
    """The results without what is said of speed."""
    return [
        replace(result, heard=tuple(heard for heard in result.heard if (result.tool, heard.phrase) not in SPEED))
        for result in results
    ]


def report(results: Sequence[Result], title: str) -> str:
    """Everything, in Markdown."""
    parts = [
        f"# {title}",
        summary(results),
        "## Right kind by fault",
        "The runs of which a tool names the fault, and in brackets those of which it says anything but rules on speed.",
        by_fault(results),
        "## What the messages are taken to name",
        "Each kind of message with the codes that name the same fault, and the runs in which it was heard.",
        by_message(results),
    ]
    if any(result.trouble for result in results):
        parts += ["## What could not be run", troubles(results)]
    return "\n\n".join(parts) + "\n"


def by_tool(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The results of each tool, in the order in which the tools appear."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.tool, []).append(result)
    return groups


def summary(results: Sequence[Result]) -> str:
    """A row for each part and tool, and one more for torch-audit without its rules on speed."""
    rows = []
    for part, held_out in (("develop", False), ("held-out", True)):
        for tool, chosen in by_tool(result for result in results if result.job.held_out == held_out).items():
            rows.append((part, tool, *figures(chosen)))
            if (sound_alone := without_speed(chosen)) != chosen:
                rows.append((part, f"{tool}, rules on speed left out", *figures(sound_alone)))
    return table(HEAD, rows)


def figures(results: Sequence[Result]) -> tuple[str, ...]:
    """The shares of one tool, of the runs that it got through."""
    ran = [result for result in results if not result.trouble]
    faulty = [result for result in ran if result.job.fault]
    sound = [result for result in ran if not result.job.fault]
    return (
        str(len(faulty)),
        str(Share.of(bool(result.heard) for result in faulty)),
        str(Share.of(result.found for result in faulty)),
        str(Share.of(result.right(heard) for result in faulty for heard in result.heard)),
        str(len(sound)),
        str(Share.of(any(heard.failed for heard in result.heard) for result in sound)),
        str(Share.of(bool(result.heard) for result in sound)),
        str(len(results) - len(ran)),
    )


def by_fault(results: Sequence[Result]) -> str:
    """A row for each fault, a column for each tool."""
    tools = list(by_tool(results))
    counts: dict[str, dict[str, list[Result]]] = {}
    for result in results:
        if result.job.fault:
            counts.setdefault(result.job.fault, {}).setdefault(result.tool, []).append(result)
    rows = [
        (fault, len(next(iter(row.values()))), *(_right_and_any(row.get(tool, [])) for tool in tools))
        for fault, row in counts.items()
    ]
    return table(("fault", "runs", *tools), rows)


def _right_and_any(results: Sequence[Result]) -> str:
    results = without_speed(results)
    return f"{sum(result.found for result in results)} ({sum(bool(result.heard) for result in results)})"


def by_message(results: Sequence[Result]) -> str:
    """A row for each kind of message that was heard; nndiag's codes name themselves and are left out."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for result in results:
        for heard in result.heard:
            where = "sound" if not result.job.fault else "right" if result.right(heard) else "wrong"
            seen[result.tool, heard.phrase, where] += 1
    rows = []
    for tool in by_tool(results):
        for phrase, names in KINDS[tool].items():
            right, wrong, sound = (seen[tool, phrase, where] for where in ("right", "wrong", "sound"))
            if tool != "nndiag" and right + wrong + sound:
                named = ", ".join(names.split()) or "–"
                rows.append((tool, phrase.strip(": "), named, right + wrong, right, sound))
    return table(("tool", "message", "names", "faulty runs", "of these right", "sound runs"), rows)


def troubles(results: Sequence[Result]) -> str:
    """A row for each error that kept a tool from being run."""
    seen = Counter((result.tool, result.trouble, result.job.base) for result in results if result.trouble)
    return table(("tool", "error", "base", "runs"), [(*what, number) for what, number in seen.items()])
