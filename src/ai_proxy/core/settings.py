"""How the proxy itself behaves, as opposed to the services behind it."""

from dataclasses import dataclass

MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may take of the proxy. Sizes in bytes, durations in seconds; 0 seconds for no limit.

    Attributes:
        max_head: Request line and headers together.
        max_headers: Number of header lines.
        max_json_body: A JSON body, which is held in memory; other bodies are streamed without a limit.
        max_connections: Client connections at once.
        head_timeout: From the first byte of a request to the end of its headers.
        body_timeout: Between two reads of a request's body.
        keep_alive_timeout: A connection without a request.
        write_timeout: A client that does not read its response.
        connect_timeout: A new connection to a backend.
        shutdown_timeout: For requests in flight when the proxy is told to end.
    """

    max_head: int = 64 * 1024
    max_headers: int = 128
    max_json_body: int = 64 * MB
    max_connections: int = 10_000
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    keep_alive_timeout: float = 75.0
    write_timeout: float = 60.0
    connect_timeout: float = 5.0
    shutdown_timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where the proxy listens and what it allows.

    Attributes:
        host: Address to listen on.
        port: TCP port; 0 for a free one.
        watch: Whether to reload the configuration when its file changes.
        limits: What one client may take.
    """

    host: str = "127.0.0.1"
    port: int = 11000
    watch: bool = False
    limits: Limits = Limits()
