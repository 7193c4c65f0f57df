# shellcheck shell=sh
# A private virtual environment with the h2o package, which holds h2o.jar.

venv=${H2OFLEET_VENV:-$cache/venv}

# Debian's own python first: what else stands on PATH (pyenv, conda, another venv) may lack ensurepip
# or go away.
make_venv() {
    for _python in /usr/bin/python3 "$(command -v python3 || true)"; do
        [ -x "$_python" ] || continue
        rm -rf "$venv"
        if run_logged "$cache/venv.log" "$_python" -m venv "$venv"; then
            return 0
        fi
    done
    die "no virtual environment could be made at $venv"
}

# need_venv REQUIREMENTS...: files with pinned versions. A stamp says what is installed already.
need_venv() {
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        say "making a virtual environment: $venv"
        mkdir -p "$(dirname "$venv")"
        make_venv
    fi
    _todo=
    for _req; do
        _stamp=$venv/.installed-$(printf '%s' "${_req#"$repo"/}" | tr / -)
        cmp -s "$_req" "$_stamp" || _todo="$_todo $_req"
    done
    [ -n "$_todo" ] || return 0
    for _req in $_todo; do
        say "installing into the virtual environment: $(grep -v '^#' "$_req" | tr '\n' ' ')"
        run_logged "$cache/pip.log" "$venv/bin/python" -m pip install --disable-pip-version-check \
            --no-input -r "$_req" || die "pip could not install $_req"
        cp "$_req" "$venv/.installed-$(printf '%s' "${_req#"$repo"/}" | tr / -)"
    done
}

# Sets `jar`.
need_jar() {
    for jar in "$venv"/lib/python3*/site-packages/h2o/backend/bin/h2o.jar; do
        [ -s "$jar" ] && return 0
    done
    die "the h2o package in $venv holds no h2o.jar; remove $venv and try again"
}
