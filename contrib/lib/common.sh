# shellcheck shell=sh
# Shared by contrib/quickstart and contrib/check; read in by them after `repo` is set.

: "${repo:?}"
cache=$repo/.cache

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

# What one run as root has left in there would fail the next run somewhere in the middle.
need_cache() {
    mkdir -p "$cache" 2>/dev/null || die "cannot make $cache"
    [ "$(id -u)" != 0 ] || return 0
    _foreign=$(find "$cache" -maxdepth 2 -type d ! -writable -print 2>/dev/null | head -n 1)
    [ -z "$_foreign" ] ||
        die "$_foreign is not yours to write, perhaps after a run as root or with sudo; take it back: sudo chown -R $(id -un) $cache"
}
need_cache

cores() {
    nproc 2>/dev/null || echo 1
}
