"""The last lines of a service's output."""

import pytest

from ai_proxy.core.logring import LogLine, LogRing


def test_a_watcher_that_raises_is_logged_and_the_others_still_get_the_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ring, seen = LogRing(), list[str]()

    def broken(_: LogLine) -> None:
        raise ValueError("out of luck")

    ring.watch(broken)
    ring.watch(lambda line: seen.append(line.text))
    ring.append("hello", at=0.0)

    assert seen == ["hello"]
    assert "a watcher of a service's output failed" in caplog.text
