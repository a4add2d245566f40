"""Bodies that clients may send, good and bad."""

import copy
import json
from collections.abc import Iterator

from hypothesis import strategies as st

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
bodies = st.binary(max_size=50) | values.map(lambda value: json.dumps(value).encode())

type Path = tuple[str | int, ...]


@st.composite
def near_misses(draw: st.DrawFn, request: dict[str, object]) -> object:
    """A good request in which one part is something else, or missing."""
    changed: object = copy.deepcopy(request)
    path = draw(st.sampled_from(list(_paths(request))))
    if not path:
        return draw(values)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]  # type: ignore[index]
    if draw(st.booleans()):
        holder[path[-1]] = draw(values)  # type: ignore[index]
    else:
        del holder[path[-1]]  # type: ignore[attr-defined]
    return changed


def _paths(value: object, path: Path = ()) -> Iterator[Path]:
    yield path
    if isinstance(value, list):
        value = dict(enumerate(value))
    for name, member in value.items() if isinstance(value, dict) else ():
        yield from _paths(member, (*path, name))
