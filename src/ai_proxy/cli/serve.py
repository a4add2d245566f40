"""`ai-proxy serve`, and the options that say how to serve."""

from pathlib import Path
from typing import Annotated

import typer

from ai_proxy.cli.output import Globals, RunDirOption
from ai_proxy.core.options import LogFormat, LogLevel, ServeOptions
from ai_proxy.core.settings import TlsMode

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="The configuration file; else AI_PROXY_CONFIG, ./config.yaml, or the one of the user.",
        dir_okay=False,
    ),
]
HostOption = Annotated[str | None, typer.Option("--host", "--bind", help="Address to listen on.")]
LogLevelOption = Annotated[
    LogLevel | None, typer.Option("--log-level", help="The least severe log records shown.")
]
LogFormatOption = Annotated[LogFormat, typer.Option("--log-format", help="For people or for machines.")]
DetectOption = Annotated[
    bool | None,
    typer.Option(
        "--detect/--no-detect",
        envvar="AI_PROXY_DETECT",
        help="Look for engines that run by themselves, and offer them.",
    ),
]
AcmeDomainsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--acme-domain", help="Name for which a public certificate is had; may be given several times."
    ),
]
AcmeEmailOption = Annotated[
    str | None, typer.Option("--acme-email", help="Given to the authority with the account.")
]


def serve(
    ctx: typer.Context,
    *,
    config: ConfigOption = None,
    host: HostOption = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port; 0 for a free one.")] = None,
    log_level: LogLevelOption = None,
    log_format: LogFormatOption = LogFormat.TEXT,
    log_file: Annotated[Path | None, typer.Option(help="Write the log here, too.", dir_okay=False)] = None,
    run_dir: RunDirOption = None,
    detect: DetectOption = None,
    tls_mode: Annotated[
        TlsMode | None, typer.Option(help="Where the certificate comes from; else as configured.")
    ] = None,
    acme_domain: AcmeDomainsOption = None,
    acme_email: AcmeEmailOption = None,
) -> None:
    """Serve, until Ctrl-C or SIGTERM."""
    from ai_proxy.app import serve as serve_until_told

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
    raise typer.Exit(serve_until_told(options))


def chosen_level(ctx: typer.Context, chosen: LogLevel | None) -> LogLevel:
    """Return the log level asked for, after the command or before it."""
    return chosen or (ctx.find_object(Globals) or Globals()).log_level
