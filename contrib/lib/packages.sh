# shellcheck shell=sh
# Debian packages. All is looked up with dpkg-query first, so that a second run needs no network.

build_packages="build-essential autoconf automake pkg-config libuv1-dev libcurl4-openssl-dev
    libinih-dev libsystemd-dev libmicrohttpd-dev libjansson-dev libzip-dev libzstd-dev zlib1g-dev libcmocka-dev"
# A systemd to boot in namespaces (tests/systemd), with users' managers.
systemd_packages="systemd dbus libpam-systemd util-linux"
python_packages="python3 python3-venv ca-certificates"

can_be_root() {
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null 2>&1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Prints those of "$@" that are not installed.
missing_packages() {
    for _p; do
        _status=$(dpkg-query -W -f '${db:Status-Status}' "$_p" 2>/dev/null) || _status=
        [ "$_status" = installed ] || printf '%s ' "$_p"
    done
}

install_packages() {
    # Here, and not in as_root(): what that says goes into a log.
    can_be_root || die "neither root nor sudo here; as root run: apt-get install $*"
    if [ ! -e "$cache/apt-updated" ] || [ -n "$(find "$cache/apt-updated" -mmin +360)" ]; then
        # One unreachable archive among several need not matter: the installation tells.
        run_logged "$cache/apt-update.log" as_root apt-get update || true
        touch "$cache/apt-updated"
    fi
    run_logged "$cache/apt-install.log" as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}

need_packages() {
    command -v dpkg-query >/dev/null 2>&1 || {
        say "no Debian packages here: these must be there already: $*"
        return 0
    }
    _missing=$(missing_packages "$@")
    [ -n "$_missing" ] || return 0
    say "installing packages: $_missing"
    # shellcheck disable=SC2086 # names, to be split
    if ! install_packages $_missing; then
        # The lists may be older than the archive.
        rm -f "$cache/apt-updated"
        install_packages $_missing || die "these packages could not be installed: $_missing"
    fi
}

# Packages without which a check is left out, and says so.
want_packages() {
    command -v dpkg-query >/dev/null 2>&1 || return 0
    _missing=$(missing_packages "$@")
    [ -n "$_missing" ] || return 0
    can_be_root || {
        say "neither root nor sudo here; going on without: $_missing"
        return 0
    }
    say "installing packages: $_missing"
    # shellcheck disable=SC2086
    install_packages $_missing || say "going on without: $_missing"
}

# Packages of which only the programs are wanted: a service that comes with one is ended, and does not begin
# again; where the package was there before it is somebody's.
want_programs() {
    command -v dpkg-query >/dev/null 2>&1 || return 0
    _came=$(missing_packages "$@")
    want_packages "$@"
    for _p in $_came; do
        if [ -d /run/systemd/system ]; then
            run_logged "$cache/$_p.log" as_root systemctl disable --now "$_p" 2>/dev/null || true
        elif [ -x "/etc/init.d/$_p" ]; then
            run_logged "$cache/$_p.log" as_root "/etc/init.d/$_p" stop 2>/dev/null || true
            run_logged "$cache/$_p.log" as_root update-rc.d "$_p" disable 2>/dev/null || true
        fi
    done
}

# java_major JAVA: 8, 11, 17, ...; nothing when it does not run.
java_major() {
    _version=$("$1" -version 2>&1 | sed -n 's/.* version "\([0-9][0-9._]*\).*/\1/p' | head -n 1) || return 0
    _version=${_version#1.}
    printf '%s' "${_version%%[._]*}"
}

# Prints the first java that H2O supports (8 to 17), in the order in which the H2O client looks.
find_java() {
    for _java in "${H2O_JAVA_HOME:-/nonexistent}/bin/java" "$(command -v java || true)" \
        "${JAVA_HOME:-/nonexistent}/bin/java" /usr/lib/jvm/*/bin/java; do
        [ -x "$_java" ] || continue
        _major=$(java_major "$_java")
        case $_major in
        8 | 9 | 1[0-7])
            printf '%s' "$_java"
            return 0
            ;;
        esac
    done
    return 1
}

# Sets `java`.
need_java() {
    if ! java=$(find_java); then
        need_packages openjdk-17-jdk-headless
        java=$(find_java) || die "no Java 8 to 17 was found, not even after installing openjdk-17-jdk-headless"
    fi
}
