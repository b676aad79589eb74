#!/bin/sh
# Install programs that some tests need: sh tests/apt.sh PROGRAM ...   (Debian's package has the same name)
# As root, or where sudo asks for nothing: apt-get install. Otherwise: the packages that this machine lacks are
# unpacked into $VENV/tools, and started by $VENV/bin/PROGRAM; nothing else on the machine changes.
# Never fails: a test whose program is missing skips, and says so.
venv=$(realpath -m "${VENV:-.venv}")
tools=$venv/tools
missing=""
for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ] || [ -x "$venv/bin/$program" ] \
        || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
command -v apt-get >/dev/null 2>&1 || { echo "no apt-get here; not installed:$missing (tests that need them skip)"; exit 0; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT

with_root() {
    echo "installing$missing by apt ..."
    $1 apt-get update -qq >"$log" 2>&1
    for program in $missing; do  # one at a time: one that this release lacks must not keep the others away
        $1 env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$program" >"$log" 2>&1 \
            || { echo "apt could not install $program:"; tail -n 3 "$log"; }
    done
}

# apt with its lists and its cache in our own folder; what is installed here, it reads from the machine.
own_apt() { apt-get -qq -o Dir::State="$tools/apt" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$tools/apt" "$@"; }

without_root() {
    echo "not root: unpacking$missing into $tools ..."
    mkdir -p "$tools/apt/lists/partial" "$tools/apt/archives/partial" "$tools/debs" "$venv/bin"
    own_apt update >"$log" 2>&1 || { echo "apt has no lists here:"; tail -n 3 "$log"; return; }
    for program in $missing; do
        packages=$(own_apt -s install --no-install-recommends "$program" 2>"$log" | awk '/^Inst /{print $2}')
        # shellcheck disable=SC2086
        [ -n "$packages" ] && (cd "$tools/debs" && own_apt download $packages) >"$log" 2>&1 \
            || { echo "apt could not download $program:"; tail -n 3 "$log"; continue; }
        for deb in "$tools"/debs/*.deb; do dpkg -x "$deb" "$tools" && rm -f "$deb"; done
        libraries=$(find "$tools/usr/lib" "$tools/lib" -name '*.so*' -printf '%h\n' 2>/dev/null | sort -u | paste -sd:)
        for binary in "$tools/usr/lib/$program/$program" "$tools/usr/sbin/$program" "$tools/usr/bin/$program"; do
            [ -x "$binary" ] || continue
            printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$libraries" "$binary" >"$venv/bin/$program"
            chmod +x "$venv/bin/$program"
            break
        done
        [ -x "$venv/bin/$program" ] && ! "$venv/bin/$program" --version 2>&1 | grep -q "error while loading" \
            || { rm -f "$venv/bin/$program"; echo "$program does not start from there; as root: apt-get install $program"; }
    done
}

if [ "$(id -u)" = 0 ]; then with_root ""
elif sudo -n true 2>/dev/null; then with_root "sudo -n"
else without_root
fi
# Debian starts a freshly installed broker or web server on its default port; the tests start their own on free ports.
exit 0
