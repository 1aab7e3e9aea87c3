"""What happens to graphs and molecules that cannot be used: stop, or count them and say why.

A reader hands every item to an :class:`Intake`. With `OnBad.RAISE` the first bad one ends the reading, with
`OnBad.SKIP` it is left out and stays on the list `skipped`, so that a report can name it. Nothing is lost silently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

T = TypeVar("T")
S = TypeVar("S")


class OnBad(StrEnum):
    """What to do with an item that cannot be used."""

    RAISE = "raise"
    SKIP = "skip"


@dataclass(frozen=True)
class Unreadable:
    """An item that was left out.

    Args:
        source: Where it stands: a file and line, a SMILES, a name.
        reason: Why it cannot be used.
    """

    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


@dataclass
class Intake(Generic[T]):
    """Collects what could be read and what could not.

    Args:
        on_bad: Policy for items that raise ValueError.

    Attributes:
        items: What could be read, in order.
        skipped: What could not, with reasons.
    """

    on_bad: OnBad = OnBad.RAISE
    items: list[T] = field(default_factory=list)
    skipped: list[Unreadable] = field(default_factory=list)

    def take(self, source: str, build: Callable[[], T]) -> None:
        """Add the result of `build()`.

        Raises:
            ValueError: `build` did and the policy is to stop; the message starts with `source`.
        """
        try:
            item = build()
        except ValueError as error:
            if OnBad(self.on_bad) is OnBad.RAISE:
                raise ValueError(f"{source}: {error} (on_bad='skip' leaves such items out)") from error
            self.skipped.append(Unreadable(source, str(error)))
        else:
            self.items.append(item)

    def take_all(self, sources: Iterable[tuple[str, S]], build: Callable[[S], T]) -> Intake[T]:
        """Add `build(value)` for every (source, value); returns itself."""
        for source, value in sources:
            self.take(source, lambda value=value: build(value))
        return self


def report_of(skipped: Sequence[Unreadable], examples: int = 3) -> str:
    """One line about what was left out, with counted reasons and a few examples; empty if nothing was."""
    if not skipped:
        return ""
    reasons = Counter(item.reason for item in skipped)
    counted = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(examples))
    more = f"; {len(reasons) - examples} other reasons" if len(reasons) > examples else ""
    names = ", ".join(item.source for item in skipped[:examples])
    return f"{len(skipped)} left out ({counted}{more}), for example {names}"
