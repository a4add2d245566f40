"""The embedded llama.cpp: its own HTTP server out of the xllamacpp wheel, driven by llama-server's flags.

`python -m ai_proxy.engines.llamacpp_embedded -m model.gguf --port 8080` stands in for `llama-server` where
that is not installed. It knows the flags in `FLAGS` (llama.cpp, `tools/server/README.md`) and no others.
"""

import argparse
import functools
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from ai_proxy.platform.extras import how_to_install


def gpu_layers(text: str) -> int:
    """Return the number of layers to put on the GPU.

    >>> [gpu_layers(text) for text in ("auto", "20", "all")]
    [-1, 20, 9999]
    """
    return {"auto": -1, "all": 9999}.get(text) or int(text)


def one_of(*words: str, **meanings: str) -> Callable[[str], str]:
    """Return a converter that takes one of these words, or one that means another."""
    choices = {word: word for word in words} | meanings

    def choice(text: str) -> str:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(choices)}")
        return choices[text]

    return choice


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag of llama-server.

    Attributes:
        names: As llama-server spells them.
        target: The attribute of xllamacpp's `CommonParams` it sets, dotted; empty when nothing needs setting.
        convert: Makes the value from the argument that follows.
        constant: The value set when the flag takes no argument.
    """

    names: tuple[str, ...]
    target: str
    convert: Callable[[str], object] | None = None
    constant: object = None


FLAGS = (
    Flag(("-m", "--model"), "model.path", str),
    Flag(("--mmproj", "-mm"), "mmproj.path", str),
    Flag(("-a", "--alias"), "model_alias", lambda text: set(text.split(","))),
    Flag(("--host",), "hostnames", lambda text: [text]),
    Flag(("--port",), "port", int),
    Flag(("--api-key",), "api_keys", lambda text: text.split(",")),
    Flag(("-to", "--timeout"), "timeout_read", int),
    Flag(("-c", "--ctx-size"), "n_ctx", int),
    Flag(("-np", "--parallel"), "n_parallel", int),
    Flag(("-n", "--predict", "--n-predict"), "n_predict", int),
    Flag(("-b", "--batch-size"), "n_batch", int),
    Flag(("-ub", "--ubatch-size"), "n_ubatch", int),
    Flag(("-t", "--threads"), "cpuparams.n_threads", int),
    Flag(("-tb", "--threads-batch"), "cpuparams_batch.n_threads", int),
    Flag(("-ngl", "--gpu-layers", "--n-gpu-layers"), "n_gpu_layers", gpu_layers),
    Flag(("-s", "--seed"), "sampling.seed", int),
    Flag(("--temp", "--temperature"), "sampling.temp", float),
    Flag(("--top-k",), "sampling.top_k", int),
    Flag(("--top-p",), "sampling.top_p", float),
    Flag(("--min-p",), "sampling.min_p", float),
    Flag(("--chat-template",), "chat_template", str),
    Flag(("--jinja",), "use_jinja", constant=True),
    Flag(("--no-jinja",), "use_jinja", constant=False),
    Flag(("--embedding", "--embeddings"), "embedding", constant=True),
    Flag(("--pooling",), "pooling_type", one_of("none", "mean", "cls", "last", "rank")),
    Flag(("-fa", "--flash-attn"), "flash_attn_type", one_of("auto", on="enabled", off="disabled")),
    Flag(("--metrics",), "endpoint_metrics", constant=True),
    Flag(("--props",), "endpoint_props", constant=True),
    Flag(("--slots",), "endpoint_slots", constant=True),
    Flag(("--no-slots",), "endpoint_slots", constant=False),
    Flag(("--no-warmup",), "warmup", constant=False),
    Flag(("--no-mmap",), "load_mode", constant="none"),
    Flag(("--mlock",), "load_mode", constant="mmap_mlock"),
    Flag(("-v", "--verbose"), "verbosity", constant=99),
    Flag(("-lv", "--verbosity", "--log-verbosity"), "verbosity", int),
)


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Return what the flags given ask for, by target.

    >>> parse(["-m", "a.gguf", "-ngl", "20", "--no-warmup"])
    {'model.path': 'a.gguf', 'n_gpu_layers': 20, 'warmup': False}
    """
    parser = argparse.ArgumentParser(
        prog="llamacpp_embedded",
        description="llama.cpp's server out of the xllamacpp wheel, driven by llama-server's own flags.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    for flag in FLAGS:
        if flag.convert is None:
            parser.add_argument(*flag.names, dest=flag.target, action="store_const", const=flag.constant)
        else:
            parser.add_argument(*flag.names, dest=flag.target, type=flag.convert, metavar="VALUE")
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        known = ", ".join(name for flag in FLAGS for name in flag.names)
        sys.exit(
            f"error: the embedded llama.cpp does not know {' '.join(unknown)}; it knows {known}. "
            "Install llama.cpp's llama-server for the rest"
        )
    return vars(options)


def apply(settings: dict[str, Any], params: Any) -> None:
    """Set xllamacpp's `CommonParams`; its enumerations are named by the last words of their members."""
    if "cpuparams.n_threads" in settings:
        settings = {"cpuparams_batch.n_threads": settings["cpuparams.n_threads"], **settings}
    for target, value in settings.items():
        *path, attribute = target.split(".")
        owner = functools.reduce(getattr, path, params)
        present = getattr(owner, attribute)
        if isinstance(present, Enum):
            value = type(present)[f"{type(present).__name__}_{value}".upper()]  # noqa: PLW2901
        setattr(owner, attribute, value)


def serve(settings: dict[str, Any]) -> None:
    """Run the server until SIGTERM or SIGINT.

    Loading holds the interpreter lock, so until it is done both signals keep their plain effect.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    model = Path(settings.get("model.path", ""))
    if not model.is_file():
        sys.exit(f"error: -m must name a model file in GGUF format; there is none at '{model}'")
    try:
        import xllamacpp
    except ModuleNotFoundError:
        sys.exit(
            "error: the embedded llama.cpp is not installed: install llama.cpp's llama-server, "
            f"or: {how_to_install('llamacpp')}"
        )
    except ImportError as error:  # most often libgomp, which slim images lack
        sys.exit(
            f"error: the embedded llama.cpp cannot be loaded: {error}; "
            "install that library (libgomp.so.1 is Debian's libgomp1), or llama.cpp's llama-server"
        )
    params = xllamacpp.CommonParams()
    apply({"hostnames": ["127.0.0.1"], "port": 8080} | settings, params)
    try:
        server = xllamacpp.Server(params)  # noqa: F841 - it serves for as long as it is referenced
    except RuntimeError:
        place = f"{params.hostnames[0]}:{params.port}"
        sys.exit(
            f"error: llama.cpp could not load {model} or not listen on {place}; the lines above say which"
        )
    _wait_for_signal()
    os._exit(0)  # without the interpreter's own end, which would wait for `server` to finish its requests


def _wait_for_signal() -> None:
    """Return when SIGTERM or SIGINT comes, in whichever thread and at whichever moment it is delivered."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    os.read(reader, 1)


if __name__ == "__main__":
    serve(parse(sys.argv[1:]))
