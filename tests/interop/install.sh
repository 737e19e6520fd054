#!/bin/sh
# Installs the real peers and servers that tests talk to, by name from the ordinary package registries:
#   LDK and a BOLT 8 client (npm)  -> tests/interop/ldk/node_modules
#   Electrum (Debian's packages)   -> .peers/electrum, unpacked only, so that it needs no root
#   PostgreSQL (Debian's package)  -> the system; the tests start a cluster of their own with it
#   Prometheus, HAProxy (Debian)   -> the system; the tests start their own on ports of their own
#   nftables, iproute2 (Debian)    -> the system; for hosts that are network namespaces
#   Ray (PyPI, 80 MB)              -> .venv, as the extra `ray` of this project: its actors run the project's code
#   pyln-proto (PyPI)              -> .venv-peers, its own because its coincurve fork shadows ours
#   onionbalance (PyPI)            -> .peers/onionbalance, its own because nothing of ours needs what it brings
# Run again at will: what is there already stays. `make peers` calls it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
peers="$root/.peers"
venv="$root/.venv-peers"
missing=""

lacks() {
    echo "peers: $1" >&2
    missing="$missing $2"
}

is_root() { [ "$(id -u)" = 0 ]; }

has() { command -v "$1" >/dev/null 2>&1; }

# apt_get PACKAGE...: from Debian, when we may
apt_get() {
    is_root && has apt-get || return 1
    refresh_lists
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

refresh_lists() {
    if is_root && [ -z "${lists_are_fresh:-}" ]; then
        apt-get update -qq || echo "peers: apt-get update failed; going on with the package lists that are here" >&2
        lists_are_fresh=yes
    fi
}

node_is_there() { has node && has npm && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge 18 ]; }

install_ldk() {
    if ! node_is_there && ! { apt_get nodejs npm && node_is_there; }; then
        lacks "LDK needs Node.js 18 or later with npm; install both and run this again" ldk
        return
    fi
    if ! cmp -s "$here/ldk/package-lock.json" "$here/ldk/node_modules/.lock"; then
        (cd "$here/ldk" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) || { lacks "npm ci failed" ldk; return; }
        cp "$here/ldk/package-lock.json" "$here/ldk/node_modules/.lock"
    fi
}

install_electrum() {
    [ ! -e "$peers/electrum/usr/bin/electrum" ] || return 0
    if ! has apt-get || ! has dpkg || [ ! -x /usr/bin/python3 ]; then
        lacks "Electrum comes from Debian's packages; this is not Debian, so its tests cannot run" electrum
        return
    fi
    refresh_lists
    work=$(mktemp -d)
    chmod 755 "$work"
    # What an installation would bring in, of what the daemon uses: the rest is for its windows.
    apt-get install --simulate --no-install-recommends python3-electrum |
        awk '/^Inst (python3-|libsecp256k1|libprotobuf)/ {print $2}' >"$work/names"
    # The starting script is in a package of its own, which would draw the windows in too.
    printf '%s\n' electrum python3-electrum >>"$work/names"
    if (cd "$work" && sort -u names | xargs apt-get -o APT::Sandbox::User="$(id -un)" download -qq) && unpack; then
        mkdir -p "$peers"
        rm -rf "$peers/electrum"
        mv "$work/tree" "$peers/electrum"
    else
        lacks "Electrum's packages could not be fetched (as root: apt-get update)" electrum
    fi
    rm -rf "$work"
}

unpack() {
    mkdir "$work/tree"
    for package in "$work"/*.deb; do
        dpkg -x "$package" "$work/tree" || return 1
    done
    # Electrum must start with Debian's own Python, here and now.
    PYTHONPATH="$work/tree/usr/lib/python3/dist-packages" \
        LD_LIBRARY_PATH="$(echo "$work"/tree/usr/lib/*-linux-*)" \
        /usr/bin/python3 "$work/tree/usr/bin/electrum" --regtest -D "$work/home" --offline version >/dev/null
}

install_operations() {
    has prometheus && has promtool && has haproxy && return 0
    apt_get prometheus haproxy ||
        lacks "prometheus or haproxy is missing (as root: apt-get install --no-install-recommends prometheus haproxy)" prometheus
}

install_network_tools() {
    has nft && has ip && has tc && has setpriv && return 0
    apt_get nftables iproute2 util-linux ||
        lacks "nft, ip, tc or setpriv is missing (as root: apt-get install nftables iproute2 util-linux)" nftables
}

install_tor() {
    has tor && has tor-gencert && return 0
    apt_get tor || lacks "tor is missing (as root: apt-get install --no-install-recommends tor)" tor
}

install_postgresql() {
    has postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && return 0
    apt_get postgresql || lacks "PostgreSQL's server is missing (as root: apt-get install postgresql)" postgresql
}

install_ray() {
    ! "${PYTHON:-python3}" -c 'import ray' 2>/dev/null || return 0
    (cd "$root" && "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --editable '.[ray]') ||
        lacks "pip install '.[ray]' failed" ray
}

install_pyln() {
    [ ! -e "$venv/.done-pyln-proto-26.6.9" ] || return 0
    "${PYTHON:-python3}" -m venv --clear "$venv" || { lacks "python3 -m venv failed" pyln; return; }
    "$venv/bin/pip" install --quiet pyln-proto==26.6.9 || { lacks "pip install pyln-proto failed" pyln; return; }
    touch "$venv/.done-pyln-proto-26.6.9"
}

install_onionbalance() {
    [ ! -e "$peers/onionbalance/.done-0.2.4" ] || return 0
    "${PYTHON:-python3}" -m venv --clear "$peers/onionbalance" || { lacks "python3 -m venv failed" onionbalance; return; }
    "$peers/onionbalance/bin/pip" install --quiet onionbalance==0.2.4 ||
        { lacks "pip install onionbalance failed" onionbalance; return; }
    touch "$peers/onionbalance/.done-0.2.4"
}

install_ldk
install_electrum
install_postgresql
install_tor
install_operations
install_network_tools
install_ray
install_pyln
install_onionbalance
[ -z "$missing" ] || { echo "peers: not installed:$missing; their tests will be skipped (and fail in CI)" >&2; exit 1; }
echo "peers: LDK, Electrum, PostgreSQL, tor, Prometheus, HAProxy, nftables, Ray, pyln-proto, onionbalance: installed"
