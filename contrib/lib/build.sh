# shellcheck shell=sh
# Builds out of tree.

: "${repo:?}" "${cache:?}"

# need_build DIR [configure flags]
need_build() {
    need_configured "$@" || return 1
    say "building ${1#"$repo"/}"
    run_logged "$1.make.log" make -C "$1" -j "$(cores)" || return 1
}

# need_configured DIR [configure flags]
need_configured() {
    _dir=$1
    shift
    [ ! -e "$repo/config.status" ] ||
        die "the source tree itself is configured; run \`make distclean\` there first"
    need_configure
    mkdir -p "$_dir"
    # The prefix is that of the build directory: nothing is installed by us.
    _flags="--prefix=$_dir/root --enable-silent-rules $*"
    if [ ! -e "$_dir/config.status" ] || [ "$(cat "$_dir/.flags" 2>/dev/null)" != "$_flags" ] ||
        [ "$repo/configure" -nt "$_dir/config.status" ]; then
        say "configuring ${_dir#"$repo"/} $*"
        rm -f "$_dir/config.status"
        # shellcheck disable=SC2016
        run_logged "$_dir.configure.log" sh -c 'cd "$1" && shift && exec "$@"' sh \
            "$_dir" "$repo/configure" --prefix="$_dir/root" --enable-silent-rules "$@" || return 1
        printf '%s\n' "$_flags" >"$_dir/.flags"
        make -s -C "$_dir" clean # make does not know that the compiler's flags are others
    fi
}

need_configure() {
    if [ -e "$repo/configure" ] && [ -e "$repo/Makefile.in" ] && [ -e "$repo/config.h.in" ] &&
        [ ! "$repo/configure.ac" -nt "$repo/configure" ] &&
        [ ! "$repo/Makefile.am" -nt "$repo/Makefile.in" ]; then
        return 0
    fi
    say "making configure"
    # shellcheck disable=SC2016
    run_logged "$cache/autoreconf.log" sh -c 'cd "$1" && exec autoreconf -fi' sh "$repo" || return 1
}
