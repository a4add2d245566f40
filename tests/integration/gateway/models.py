"""What tests of requests to models share."""

import json
from typing import Any

from tests.rigs.raw_http import Message, build_request

from ai_proxy.core.abilities import TEXT_ENDPOINTS, Abilities
from ai_proxy.core.ports import Model
from ai_proxy.core.routing import Offer
from ai_proxy.core.service import ExternalLaunch, Service

CHAT = b"/v1/chat/completions"
JSON = b"content-type: application/json"
PLAIN = Abilities("Plain", TEXT_ENDPOINTS)
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
USAGE = b'{"usage":{"prompt_tokens":7,"completion_tokens":3}}'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def offer(service_id: str = "svc", abilities: Abilities = PLAIN, listed: Any = (), **facts: Any) -> Offer:
    plain: dict[str, Any] = {
        "type": "any",
        "engine": "plain",
        "launch": ExternalLaunch(()),
        "config_hash": "1",
    }
    return Offer(Service(id=service_id, **plain | facts), abilities, tuple(Model(name) for name in listed))


def ask(path: bytes = CHAT, **body: Any) -> bytes:
    return build_request(path, JSON, body=json.dumps(body).encode())


def error(response: Message) -> dict[str, Any]:
    told = json.loads(response.body)["error"]
    assert isinstance(told, dict)
    return told
