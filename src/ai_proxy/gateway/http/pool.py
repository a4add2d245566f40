"""Where connections to backends come from: one pool per upstream."""

import asyncio
import ssl
from weakref import WeakValueDictionary

from ai_proxy.core.errors import UpstreamConnectError, UpstreamTimeoutError
from ai_proxy.core.service import Upstream
from ai_proxy.gateway.http.upstream import UpstreamConnection

MAX_IDLE = 30.0
"""Seconds an unused connection is kept for the next request."""


class Pool:
    """Keep-alive connections to one upstream, the one used last first.

    Attributes:
        is_own: Whether the upstream is the proxy's own management app.
    """

    __slots__ = ("__weakref__", "base_path", "host_line", "idle", "is_own", "sweeps", "tls", "upstream")

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.is_own = False
        self.sweeps = 0
        self.host_line = b" HTTP/1.1\r\nhost: %b\r\n" % authority(upstream)
        self.base_path = upstream.base_path.encode()
        self.tls = ssl.create_default_context() if upstream.tls else None
        self.idle: dict[UpstreamConnection, None] = {}

    def __repr__(self) -> str:
        return f"<Pool [{self.upstream.url}, {len(self.idle)} idle]>"

    def take(self) -> UpstreamConnection | None:
        """Return a connection that is open as far as we know, or None."""
        idle = self.idle
        while idle:
            connection = idle.popitem()[0]
            if not connection.transport.is_closing():
                return connection
        return None

    def put(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next request."""
        connection.idle_since = self.sweeps
        self.idle[connection] = None

    def discard(self, connection: UpstreamConnection) -> None:
        """Forget a connection that has ended."""
        self.idle.pop(connection, None)

    async def connect(self, limit: float) -> UpstreamConnection:
        """Open a new connection.

        Args:
            limit: Longest wait, in seconds; 0 for none.

        Raises:
            UpstreamConnectError: Refused, unreachable, or TLS failed.
            UpstreamTimeoutError: No answer in time.
        """
        try:
            async with asyncio.timeout(limit or None):
                return await self._open()
        except TimeoutError:
            raise UpstreamTimeoutError(
                f"{self.upstream.url} did not accept a connection within {limit:g} s"
            ) from None
        except (OSError, ssl.SSLError) as error:
            raise UpstreamConnectError(f"cannot connect to {self.upstream.url}: {error}") from error

    async def _open(self) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        if self.upstream.unix_path is not None:
            _, connection = await loop.create_unix_connection(
                lambda: UpstreamConnection(self), self.upstream.unix_path
            )
        else:
            host, port = self.upstream.host, self.upstream.port
            _, connection = await loop.create_connection(
                lambda: UpstreamConnection(self), host, port, ssl=self.tls
            )
        if connection.transport.is_closing():
            raise ConnectionResetError("the connection was closed at once")
        return connection

    def sweep(self, keep: int) -> None:
        """Close the connections unused for `keep` sweeps; counting saves reading a clock."""
        self.sweeps += 1
        for connection in [c for c in self.idle if c.idle_since <= self.sweeps - keep]:
            del self.idle[connection]
            connection.transport.close()


class Pools:
    """A pool per upstream, while it is referenced."""

    def __init__(self) -> None:
        self._pools: WeakValueDictionary[Upstream, Pool] = WeakValueDictionary()

    def of(self, upstream: Upstream) -> Pool:
        """Return the pool of an upstream."""
        pool = self._pools.get(upstream)
        if pool is None:
            pool = self._pools[upstream] = Pool(upstream)
        return pool

    def sweep(self, keep: int) -> None:
        """Close every connection unused for `keep` sweeps."""
        for pool in list(self._pools.values()):
            pool.sweep(keep)


def authority(upstream: Upstream) -> bytes:
    """Return what to say in the Host header.

    >>> authority(Upstream("api.example.com", 443, tls=True)), authority(Upstream("::1", 8080))
    (b'api.example.com', b'[::1]:8080')
    """
    if upstream.unix_path is not None:
        return b"localhost"
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    default = 443 if upstream.tls else 80
    return host.encode() if upstream.port == default else f"{host}:{upstream.port}".encode()
