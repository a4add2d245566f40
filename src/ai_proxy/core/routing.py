"""Which service a request is for."""

import difflib
from collections.abc import Iterable


def near_names(name: str, known: Iterable[str], count: int = 3) -> tuple[str, ...]:
    """Return the known names that look like a misspelt one, best first.

    >>> near_names("lama3", ["coder", "llama3", "llama2"])
    ('llama3', 'llama2')
    """
    by_fold = {candidate.casefold(): candidate for candidate in known}
    return tuple(by_fold[m] for m in difflib.get_close_matches(name.casefold(), by_fold, n=count, cutoff=0.6))
