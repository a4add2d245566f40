"""How other instances are doing, as their entries in the store and their processes show."""

import asyncio
import http.client
import socket
import ssl
from enum import StrEnum
from http import HTTPStatus

import psutil

from ai_proxy.core.options import ProxyMode
from ai_proxy.core.store_ports import Instance
from ai_proxy.platform.addresses import local_host
from ai_proxy.platform.process import birth
from ai_proxy.runtimes.process.session import has_ended

ANSWER_WITHIN = 2.0
"""Seconds that an instance has to answer when it is asked whether it is alive."""
TOLERANCE = 2.0
"""Seconds by which the start of a process may differ from the one in an entry of an earlier version."""


class InstanceStatus(StrEnum):
    """How an instance is doing."""

    RUNNING = "running"
    STOPPING = "stopping"
    NOT_ANSWERING = "not_answering"
    DEAD = "dead"
    ELSEWHERE = "elsewhere"


async def status_of(instance: Instance) -> InstanceStatus:
    """Find out how an instance is doing."""
    if not is_here(instance):
        return InstanceStatus.ELSEWHERE
    if process_of(instance) is None:
        return InstanceStatus.DEAD
    if not instance.endpoints:
        return InstanceStatus.STOPPING
    answering = await asyncio.to_thread(answers, instance)
    return InstanceStatus.RUNNING if answering else InstanceStatus.NOT_ANSWERING


def is_here(instance: Instance) -> bool:
    """Tell whether an instance runs, or ran, on this machine: several may share a store."""
    return instance.machine == socket.gethostname()


def process_of(instance: Instance) -> psutil.Process | None:
    """Return the process of an instance on this machine; None when it has ended.

    A pid alone proves nothing, since systems give pids out again: it is the instance's only together with the
    moment at which the process began.
    """
    try:
        process = psutil.Process(instance.pid)
        if instance.birth:
            is_same = birth(instance.pid) == instance.birth
        else:
            is_same = abs(process.create_time() - instance.started) <= TOLERANCE
    except psutil.NoSuchProcess:
        return None
    return process if is_same and not has_ended(instance.pid) else None


def answers(instance: Instance) -> bool:
    """Ask an instance on this machine whether it is alive; a refusal is an answer, too."""
    connection = _connection(instance)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status < HTTPStatus.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _connection(instance: Instance) -> http.client.HTTPConnection:
    host = local_host(instance.host)
    if instance.mode == ProxyMode.LOCAL_HTTP:
        return http.client.HTTPConnection(host, instance.port, timeout=ANSWER_WITHIN)
    # The question and the answer hold no secret: any certificate will do.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, instance.port, timeout=ANSWER_WITHIN, context=context)
