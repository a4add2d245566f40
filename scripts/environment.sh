# Sourced by the other scripts: makes the virtual environment that they run in, from requirements.lock.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "error: $*" >&2
    exit 1
}

# quietly COMMAND...: run it, and show what it printed only if it fails.
quietly() {
    local output
    output=$(mktemp)
    if ! "$@" >"$output" 2>&1; then
        cat "$output" >&2
        rm -f "$output"
        return 1
    fi
    rm -f "$output"
}

can_install() { [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; }

# need_package PROGRAM PACKAGE: install a Debian package as root; tell anybody else to do it.
need_package() {
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null && return
    can_install || fail "$1 is needed and not installed; on Debian: sudo apt-get install $2"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get update -qq && quietly apt-get install -y -qq --no-install-recommends "$2" ||
        fail "could not install $2"
}

uv() {
    if command uv --version >/dev/null 2>&1; then command uv "$@"; else python3 -m uv "$@"; fi
}

need_uv() {
    uv --version >/dev/null 2>&1 && return
    need_package python3 python3
    if ! python3 -m pip --version >/dev/null 2>&1; then
        can_install || fail "pip is needed to install uv; or install uv yourself, then run this again"
        need_package pip3 python3-pip
    fi
    # Debian's own Python refuses pip without --break-system-packages, which older pips do not know.
    quietly python3 -m pip install --quiet --disable-pip-version-check uv ||
        quietly python3 -m pip install --quiet --disable-pip-version-check --break-system-packages uv ||
        fail "uv could not be installed with pip; install it yourself, then run this again"
}

need_environment() {
    need_uv
    local made_from=.venv/.made-from
    if ! cmp -s requirements.lock "$made_from" || [[ ! -x .venv/bin/ai-proxy ]]; then
        echo "setting up .venv (once)" >&2
        [[ -x .venv/bin/python ]] || quietly uv venv --quiet .venv || fail "no Python 3.12 could be found or installed"
        # Whatever environment is active, or named by UV_PYTHON: nothing is installed anywhere else.
        quietly uv pip sync --quiet --compile-bytecode --python .venv/bin/python requirements.lock
        quietly uv pip install --quiet --no-deps --no-build-isolation --python .venv/bin/python --editable .
        quietly .venv/bin/python -m compileall -q src
        cp requirements.lock "$made_from"
    fi
    PATH="$PWD/.venv/bin:$PATH"
}
