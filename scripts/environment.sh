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

missing=() # Debian packages that the script needs, and that are not there

# want PROGRAM PACKAGE: note that the script needs a program.
want() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null || missing+=("$2"); }

# want_llamacpp: note what the embedded llama.cpp needs of the system. Where nobody lists libraries, it says so itself.
want_llamacpp() {
    local libraries
    if libraries=$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null) && [[ $libraries != *libgomp.so.1* ]]; then
        missing+=(libgomp1)
    fi
}

# get_missing: install as root what is missing; tell anybody else to do it, in one command.
get_missing() {
    [[ ${#missing[@]} -eq 0 ]] && return
    can_install || fail "this needs packages of the system that are not installed; on Debian and Ubuntu, run:
    sudo apt-get install ${missing[*]}"
    echo "installing with apt-get: ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get update -qq && quietly apt-get install -y -qq --no-install-recommends "${missing[@]}" ||
        fail "could not install ${missing[*]}"
}

OWN_UV=.venv/uv/bin/uv # made here where there is no other

uv() {
    if command uv --version >/dev/null 2>&1; then
        command uv "$@"
    elif [[ -x $OWN_UV ]]; then
        "$OWN_UV" "$@"
    else
        python3 -m uv "$@"
    fi
}

# make_uv: install uv within .venv, whatever pip's settings say.
make_uv() {
    quietly python3 -m venv --clear .venv/uv || fail "python3 cannot make a virtual environment, see above"
    quietly env -u PIP_USER -u PIP_TARGET -u PIP_PREFIX -u PIP_ROOT PIP_DISABLE_PIP_VERSION_CHECK=1 \
        .venv/uv/bin/python -m pip install --quiet --require-hashes --no-deps --requirement requirements-uv.lock ||
        fail "uv could not be installed from the package index, see above; install it yourself, then run this again"
}

# make_python: make .venv with the Python of .python-version if it is here, else with any that is new enough.
make_python() {
    uv venv --quiet --allow-existing --no-python-downloads --python "$(<.python-version)" .venv 2>/dev/null ||
        uv venv --quiet --allow-existing --no-python-downloads --python ">=3.12" .venv 2>/dev/null ||
        UV_PYTHON_INSTALL_DIR="$PWD/.venv/python" \
            quietly uv venv --quiet --allow-existing --python-preference managed --python "$(<.python-version)" .venv ||
        fail "there is no Python 3.12 or newer, and none could be downloaded, see above; install one, then run this again"
}

# need_environment: make .venv, and put its programs first. It alone is written to, whatever environment is active
# or named by VIRTUAL_ENV, CONDA_PREFIX, UV_PYTHON, UV_SYSTEM_PYTHON.
need_environment() {
    local made_from=.venv/.made-from with_uv=true
    uv --version >/dev/null 2>&1 || with_uv=false
    $with_uv || python3 -c "import ensurepip, venv" >/dev/null 2>&1 || missing+=(python3-venv)
    get_missing
    if ! cmp -s requirements.lock "$made_from" || [[ ! -x .venv/bin/ai-proxy ]]; then
        echo "setting up .venv (once)" >&2
        $with_uv || make_uv
        .venv/bin/python --version >/dev/null 2>&1 || make_python
        quietly uv pip sync --quiet --compile-bytecode --python .venv/bin/python requirements.lock
        quietly uv pip install --quiet --no-deps --no-build-isolation --python .venv/bin/python --editable .
        quietly .venv/bin/python -m compileall -q src
        cp requirements.lock "$made_from"
    fi
    PATH="$PWD/.venv/bin:$PATH"
}
