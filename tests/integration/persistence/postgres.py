"""A PostgreSQL server of our own, on a Unix socket, for as long as it is needed."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

USER = "postgres"
"""Who runs it, since it refuses to be run by root; and who may log in."""


def reason_for_none() -> str:
    """Say why no server can be run here; empty when one can."""
    return (
        ""
        if _program("pg_ctl")
        else "PostgreSQL is not installed: on Debian, sudo apt-get install postgresql"
    )


@contextmanager
def private_postgres() -> Iterator[Path]:
    """Run a server; yield the folder of its socket, whose path is short, as a socket needs it."""
    folder = Path(tempfile.mkdtemp(prefix="ai-proxy-pg-"))
    data, log = str(folder / "data"), str(folder / "log")
    settings = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=30"
    try:
        if os.geteuid() == 0:
            os.chown(folder, pwd.getpwnam(USER).pw_uid, -1)
        _run("initdb", ["-D", data, "-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync"], folder)
        _run("pg_ctl", ["start", "-w", "-D", data, "-l", log, "-o", settings], folder)
        try:
            yield folder
        finally:
            _run("pg_ctl", ["stop", "-m", "immediate", "-D", data], folder)
    finally:
        shutil.rmtree(folder)


def database_url(folder: Path, name: str) -> str:
    """Return the URL of a database on the server in a folder."""
    return f"postgresql://{USER}@/{name}?host={folder}"


def run_sql(folder: Path, statement: str) -> None:
    """Run a statement as the server's owner."""
    _run("psql", ["-h", str(folder), "-U", USER, "-d", "postgres", "-q", "-c", statement], folder)


def _run(program: str, arguments: Sequence[str], folder: Path) -> None:
    user = USER if os.geteuid() == 0 else None
    subprocess.run(
        [_program(program) or program, *arguments],
        user=user,
        extra_groups=None if user is None else [],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def _program(name: str) -> str | None:
    """Return the path of one of the server's programs; Debian keeps some off the PATH."""
    kept = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(kept[-1]) if kept else None)
