"""`ai-proxy serve`, and the options it shares with `proxy start`."""

from pathlib import Path
from typing import Annotated

import typer

from ai_proxy.cli.output import ConfigOption, Globals, RunDirOption
from ai_proxy.core.options import LogFormat, LogLevel, ServeOptions
from ai_proxy.core.settings import TlsMode

HostOption = Annotated[str | None, typer.Option("--host", "--bind", help="Address to listen on.")]
LogLevelOption = Annotated[
    LogLevel | None, typer.Option("--log-level", help="Minimum severity of log records.")
]
LogFormatOption = Annotated[LogFormat, typer.Option("--log-format", help="Format of the log.")]
DetectOption = Annotated[
    bool | None,
    typer.Option(
        "--detect/--no-detect",
        envvar="AI_PROXY_DETECT",
        help="Detect other engines on this machine and serve their models.",
    ),
]
AcmeDomainsOption = Annotated[
    list[str] | None,
    typer.Option("--acme-domain", help="Domain of the public certificate; may be repeated."),
]
AcmeEmailOption = Annotated[
    str | None, typer.Option("--acme-email", help="Contact address of the ACME account.")
]


def serve(
    ctx: typer.Context,
    *,
    config: ConfigOption = None,
    host: HostOption = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port; 0 for a free one.")] = None,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_file: Annotated[
        Path | None, typer.Option(help="Write the log to this file as well.", dir_okay=False)
    ] = None,
    run_dir: RunDirOption = None,
    detect: DetectOption = None,
    tls_mode: Annotated[
        TlsMode | None, typer.Option(help="Source of the certificate. Default: as configured.")
    ] = None,
    acme_domain: AcmeDomainsOption = None,
    acme_email: AcmeEmailOption = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM."""
    from ai_proxy.app import serve as serve_until_signal

    options = ServeOptions(
        config,
        host,
        port,
        chosen_level(ctx, log_level),
        log_format,
        log_file,
        run_dir,
        detect,
        tls_mode,
        tuple(acme_domain or ()),
        acme_email,
    )
    raise typer.Exit(serve_until_signal(options))


def chosen_level(ctx: typer.Context, chosen: LogLevel | None) -> LogLevel:
    """Return the log level given after the command, or else before it."""
    return chosen or (ctx.find_object(Globals) or Globals()).log_level
