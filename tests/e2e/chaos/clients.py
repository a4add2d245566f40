"""Clients that ask throughout, and judge every answer: exactly right, or visibly failed."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from random import Random

from tests.e2e.chaos.house import GUEST, SERVICES, House, sentence
from tests.e2e.conftest import Answer, chat

CLIENTS = 4
PATIENCE = 40.0
"""Seconds after which an answer counts as lost: every wait in the proxy is configured to be shorter."""


class Verdict(StrEnum):
    """What came of a request."""

    RIGHT = "right"
    REFUSED = "refused"
    BROKEN_OFF = "broken off"
    NOBODY_THERE = "nobody there"
    WRONG = "wrong"


def request(house: House, service: str, *, streamed: bool) -> tuple[Verdict, str]:
    """Send a chat and judge what comes."""
    serving, deaths = house.serving, house.deaths
    connection = http.client.HTTPConnection("127.0.0.1", house.proxy.port, timeout=PATIENCE)
    try:
        path, body = f"/service/{service}/v1/chat/completions", json.dumps(chat(stream=streamed))
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        away = not serving or house.deaths != deaths
        return (Verdict.NOBODY_THERE if away else Verdict.WRONG), repr(error)
    try:
        answer = Answer(response.status, response.headers, response.read())
    except TimeoutError as error:
        return Verdict.WRONG, repr(error)
    except (OSError, http.client.HTTPException) as error:
        return Verdict.BROKEN_OFF, repr(error)
    finally:
        connection.close()
    return judge(answer, service, streamed=streamed)


def judge(answer: Answer, service: str, *, streamed: bool) -> tuple[Verdict, str]:
    """Judge a whole answer."""
    if answer.status == 200:
        wrong = _wrong_success(answer, service, streamed=streamed)
        return (Verdict.WRONG, wrong) if wrong else (Verdict.RIGHT, "")
    wrong = _wrong_failure(answer, service)
    return (Verdict.WRONG, wrong) if wrong else (Verdict.REFUSED, _reason(answer))


def _wrong_success(answer: Answer, service: str, *, streamed: bool) -> str:
    if not answer.headers["Content-Length"] and answer.headers["Transfer-Encoding"] != "chunked":
        return f"nothing tells where the body ends: {answer}"
    try:
        text = stream_text(answer.body) if streamed else answer.json["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError) as error:
        return f"{error!r} in {answer}"
    return "" if text.strip() == sentence(service) else f"not what {service} says: {answer}"


def _wrong_failure(answer: Answer, service: str) -> str:
    if answer.status < 400 or not answer.body:
        return f"neither an answer nor an error: {answer}"
    code = answer.headers["X-AI-Proxy-Error"]
    if code is None:
        return ""  # the backend's own error
    if code != answer.json["code"] or answer.headers["Content-Type"] != "application/problem+json":
        return f"an error that does not say what it is: {answer}"
    return f"not an error of the kind that helps: {answer}" if not _is_excusable(code, service) else ""


def _is_excusable(code: str, service: str) -> bool:
    """Tell whether an error may come of what is done here."""
    return code == "unknown_service" if service == GUEST and code.startswith("unknown") else code in EXCUSABLE


EXCUSABLE = frozenset(
    {
        "service_stopped",
        "service_failed",
        "start_timeout",
        "shutting_down",
        "upstream_connect_failed",
        "upstream_closed",
        "upstream_timeout",
        "runtime_unavailable",
    }
)


def _reason(answer: Answer) -> str:
    return f"{answer.status} {answer.headers['X-AI-Proxy-Error'] or 'from the backend'}"


def stream_text(body: bytes) -> str:
    """Return the text of a streamed chat.

    Raises:
        ValueError: It is not complete.
    """
    *events, last, rest = body.split(b"\n\n")
    if last != b"data: [DONE]" or rest:
        raise ValueError("a stream without its end")
    deltas = (json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"] for event in events)
    return "".join(delta.get("content") or "" for delta in deltas)


class Clients:
    """Ask in threads of their own until told to leave."""

    def __init__(self, house: House, seed: int) -> None:
        self.verdicts: Counter[Verdict] = Counter()
        self.reasons: Counter[str] = Counter()
        self._house = house
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._ask, args=(f"{seed} {number}",), name=f"client {number}")
            for number in range(CLIENTS)
        ]

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Ask for the time of the context; every answer has come when it is left."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._leaving.set()
            for thread in self._threads:
                thread.join(2 * PATIENCE)

    def _ask(self, seed: str) -> None:
        random = Random(seed)  # noqa: S311
        while not self._leaving.is_set():
            service, streamed = random.choice(SERVICES), random.random() < 0.5
            began = time.monotonic()
            verdict, detail = request(self._house, service, streamed=streamed)
            self._note(verdict, f"{service}: {detail} (asked {time.monotonic() - began:.1f} s before)")
            self.reasons[detail if verdict is Verdict.REFUSED else verdict] += 1
            self._leaving.wait(random.uniform(0.0, 0.05) if verdict is Verdict.RIGHT else 0.1)

    def _note(self, verdict: Verdict, detail: str) -> None:
        with self._lock:
            self.verdicts[verdict] += 1
        if verdict is Verdict.WRONG:
            self._house.fault(detail)
