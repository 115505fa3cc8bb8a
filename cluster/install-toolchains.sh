#!/bin/sh
# Installs what the verifier needs on Debian or Ubuntu: compilers, and the sandbox's programs.
# Run it on every node, as root or as a user with sudo; running it again changes nothing.
set -eu

packages="gcc g++ mold clang gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64 rustc golang-go nodejs
default-jdk-headless python3 bubblewrap util-linux"

missing=""
for package in $packages; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
    echo "all installed: $packages"
    exit 0
fi

as_root=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || { echo "run this as root, or install sudo" >&2; exit 1; }
    as_root="sudo"
fi
$as_root apt-get update
# shellcheck disable=SC2086  # a list of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $missing
