#!/bin/sh
# Install what some tests need, where this machine allows it: tests/apt.sh PACKAGE ...
# Only as root, or where sudo asks for nothing. Never fails: a test whose tool is missing skips and says so.
missing=""
for package in "$@"; do
    command -v "$package" >/dev/null 2>&1 || [ -x "/usr/sbin/$package" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null 2>&1 || { echo "no apt-get here; not installed:$missing (tests that need them skip)"; exit 0; }
if [ "$(id -u)" = 0 ]; then as_root=""
elif sudo -n true 2>/dev/null; then as_root="sudo -n"
else echo "not root; not installed:$missing (tests that need them skip; next: sudo apt-get install$missing)"; exit 0
fi
echo "installing$missing by apt ..."
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive sh -c "apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing" \
    >/tmp/ansim-apt.$$ 2>&1 || { echo "apt could not install$missing:"; tail -n 3 /tmp/ansim-apt.$$; }
rm -f /tmp/ansim-apt.$$
# Debian starts a freshly installed mosquitto or nginx on its default port; the tests start their own on free ports.
exit 0
