"""What came of the work, and the arithmetic on it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One piece of work done by one contender.

    Attributes:
        contender: Who did it.
        work: Which work.
        values: What was measured, by name; the names end in their unit.
        faults: What went wrong, and how often.
    """

    contender: str
    work: str
    values: Mapping[str, float]
    faults: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Results:
    """All samples of a run, in the order they were taken."""

    samples: Sequence[Sample]

    def values(self, contender: str, work: str, value: str) -> list[float]:
        """Return what was measured in each round."""
        return [
            sample.values[value]
            for sample in self.samples
            if (sample.contender, sample.work) == (contender, work) and value in sample.values
        ]

    def median(self, contender: str, work: str, value: str) -> float | None:
        """Return the median over the rounds; None when there is nothing."""
        found = self.values(contender, work, value)
        return median(found) if found else None

    def ratio(self, contender: str, reference: str, work: str, value: str) -> float | None:
        """Return the median of the ratios of rounds that followed each other; None when there is none.

        What disturbs the machine for a while disturbs both sides of such a pair.
        """
        ours, theirs = self.values(contender, work, value), self.values(reference, work, value)
        pairs = [a / b for a, b in zip(ours, theirs, strict=False) if b]
        return median(pairs) if pairs else None

    def added(self, contender: str, reference: str, work: str, value: str) -> float | None:
        """Return the median of what a contender added to the reference; None when there is nothing."""
        ours, theirs = self.values(contender, work, value), self.values(reference, work, value)
        pairs = [a - b for a, b in zip(ours, theirs, strict=False)]
        return median(pairs) if pairs else None

    def faults(self, contender: str, work: str) -> dict[str, int]:
        """Return what went wrong in all rounds together, and how often."""
        total: dict[str, int] = {}
        for sample in self.samples:
            if (sample.contender, sample.work) == (contender, work):
                for fault, count in sample.faults.items():
                    total[fault] = total.get(fault, 0) + count
        return total


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least that share of the values does not exceed (nearest rank).

    Args:
        ordered: Values in ascending order, one at least.
        share: Between 0 and 1.

    >>> percentile([1, 2, 3, 4], 0.5), percentile([1, 2, 3, 4], 0.99)
    (2, 4)
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
