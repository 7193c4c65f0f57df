# shellcheck shell=sh
# Shared by contrib/quickstart and contrib/check; read in by them after `repo` is set.

: "${repo:?}"
cache=$repo/.cache
mkdir -p "$cache"

say() {
    printf '==> %s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# run_logged LOG COMMAND...: quiet while it works; the end of its output when it does not.
run_logged() {
    _log=$1
    shift
    _rc=0
    "$@" >"$_log" 2>&1 </dev/null || _rc=$?
    [ "$_rc" != 0 ] || return 0
    printf '%s failed; the end of %s:\n' "$*" "$_log" >&2
    tail -n 40 "$_log" | sed 's/^/    /' >&2
    return "$_rc"
}

cores() {
    nproc 2>/dev/null || echo 1
}
