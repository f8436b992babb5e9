# SPDX-License-Identifier: Apache-2.0
# The project's Python environment, .venv, in one place. Source this file, then call `ensure_environment EXTRA...`;
# run things with "$VENV_PYTHON". It needs Python 3.11 or newer and a Python package index, nothing else.
# PYTHON=/path/to/python chooses the interpreter of a new .venv; pip's own settings (PIP_INDEX_URL, ...) hold.

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd -P)
VENV=$ROOT/.venv
VENV_PYTHON=$VENV/bin/python
unset PYTHONHOME PYTHONPATH
export PYTHONNOUSERSITE=1

# step N OF TEXT: one line of progress
step() {
    printf '[%s/%s] %s\n' "$1" "$2" "$3"
}

# fail WHAT [LINE...]: one clear error on stderr, exit code 1
fail() {
    printf 'error: %s\n' "$1" >&2
    shift
    if [ $# -gt 0 ]; then printf '  %s\n' "$@" >&2; fi
    exit 1
}

# True if $1 is a Python that can make our environment. Debian splits venv and ensurepip into packages of their own.
_usable_python() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# "python3 is 3.9.2" or why else $1 is of no use
_describe_python() {
    local version
    if ! command -v "$1" >/dev/null 2>&1; then
        echo "$1 is not there"
    elif ! version=$("$1" -c 'import platform; print(platform.python_version())' 2>/dev/null); then
        echo "$1 does not run"
    elif ! "$1" -c 'import ensurepip, venv' 2>/dev/null; then
        echo "$1 is $version without its venv module (Debian and Ubuntu: the package python3-venv)"
    else
        echo "$1 is $version"
    fi
}

# Prints the Python to build .venv with
_find_python() {
    local candidates='python3 python3.11 python3.12 python3.13' candidate
    if [ -n "${PYTHON:-}" ]; then
        if _usable_python "$PYTHON"; then echo "$PYTHON"; return; fi
        fail "edgec needs Python 3.11 or newer" "have   PYTHON=$(_describe_python "$PYTHON")" \
            "try    PYTHON=/path/to/python3.11 $0"
    fi
    for candidate in $candidates; do
        if _usable_python "$candidate"; then echo "$candidate"; return; fi
    done
    fail "edgec needs Python 3.11 or newer" \
        "have   $(for candidate in $candidates; do _describe_python "$candidate"; done | paste -sd ';' - | sed 's/;/; /g')" \
        "try    install Python 3.11 or newer (python.org, your distribution, pyenv or uv), then run this again" \
        "       PYTHON=/path/to/python3.11 $0     if it is not on PATH"
}

# ensure_environment EXTRA...: .venv exists and holds edgec (editable) with at least these extras.
# A stamp in .venv remembers what was installed for which pyproject.toml, so a second call costs a fraction of a second.
# Extras only ever grow: quickstart after test, or test after quickstart, installs what is missing and no more.
ensure_environment() {
    local stamp=$VENV/edgec.stamp fingerprint stamped='' installed='' extras python
    if ! { [ -x "$VENV_PYTHON" ] && _usable_python "$VENV_PYTHON" && "$VENV_PYTHON" -c 'import pip' 2>/dev/null; }; then
        python=$(_find_python)
        echo "      making .venv: $(_describe_python "$python")"
        "$python" -m venv --clear "$VENV"
    fi
    # The folder counts too: in a checkout that was moved, the editable install points nowhere.
    fingerprint=$("$VENV_PYTHON" -c 'import hashlib, pathlib, sys
root = pathlib.Path(sys.argv[1])
print(hashlib.sha256(bytes(root) + (root / "pyproject.toml").read_bytes()).hexdigest())' "$ROOT")
    if [ -f "$stamp" ]; then { read -r stamped && read -r installed; } <"$stamp" || true; fi
    extras=$(printf '%s\n' "$@" "$installed" | tr , '\n' | grep . | sort -u | paste -sd , -)
    if [ "$fingerprint" = "$stamped" ] && [ "$extras" = "$installed" ]; then
        return
    fi
    echo "      installing edgec[$extras] into .venv (the first time this downloads a few hundred MB)"
    case $extras in
        *models*) echo "      PyTorch's CPU build is enough: the head of scripts/test says how to get it" ;;
    esac
    local quiet=--quiet
    if [ -t 1 ]; then quiet=--progress-bar=on; fi
    "$VENV_PYTHON" -m pip install --disable-pip-version-check --no-input "$quiet" --editable "$ROOT[$extras]" ||
        fail "pip could not install edgec[$extras]; its own message is above" \
            "need   a Python package index that pip can reach (set PIP_INDEX_URL for a mirror)" \
            "try    run this again: what was downloaded is kept"
    printf '%s\n%s\n' "$fingerprint" "$extras" >"$stamp"
}
