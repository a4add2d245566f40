"""When things were, and how long they took, as Ollama tells."""

from datetime import UTC, datetime

from ai_proxy.core.ports import Clock
from ai_proxy.dialects.completion import Facts

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


def timestamp(wall: float) -> str:
    """Return a moment, given in seconds since the epoch.

    >>> timestamp(1795212819.717279)
    '2026-11-20T22:13:39.717279Z'
    """
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Stopwatch:
    """Measures one answer, from the request on."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started = clock.now()
        self._first: float | None = None

    def timestamp(self) -> str:
        """Return the present moment."""
        return timestamp(self._clock.wall())

    def token(self) -> None:
        """Note that a piece of the answer has come."""
        if self._first is None:
            self._first = self._clock.now()

    def elapsed(self) -> int:
        """Return the time since the request, in nanoseconds."""
        return int((self._clock.now() - self._started) * NS_PER_S)

    def statistics(self, facts: Facts) -> dict[str, object]:
        """Return tokens and durations, when the answer is complete; durations are in nanoseconds.

        Where the engine tells how long it took, the rest is what came before: queue and load. Where it does
        not, the first piece parts the evaluation of the prompt from that of the answer.
        """
        total = self.elapsed()
        if facts.timings is not None:
            prompt = int(facts.timings.prompt_ms * NS_PER_MS)
            answer = int(facts.timings.predicted_ms * NS_PER_MS)
            load = max(0, total - prompt - answer)
        else:
            prompt = int(((self._first or self._started) - self._started) * NS_PER_S)
            answer, load = total - prompt, 0
        return {
            "total_duration": total,
            "load_duration": load,
            "prompt_eval_count": facts.prompt_tokens,
            "prompt_eval_duration": prompt,
            "eval_count": facts.completion_tokens,
            # Clients divide by it.
            "eval_duration": max(1, answer),
        }
