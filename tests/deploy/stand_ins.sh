# What a machine of tests/deploy/page.py has instead of commands that need a real Debian, root, a network or a person.
# Everything else of docs/INSTALL.md is run as it stands. $ROOT is the machine's folder, $ROOTS holds all of them.

apt-get() { :; }        # the packages are there; mosquitto's own configuration is written by the test
git() {                 # clone REPOSITORY FOLDER: the files of this checkout, with the paths and ports of the machine
    mkdir -p "$(dirname "$3")" && cp -r "$ROOTS/checkout-$MACHINE" "$3"
}
useradd() { :; }        # everything belongs to who runs the test
chown() { :; }
runuser() { shift 3; "$@"; }  # -u USER -- COMMAND
install() {             # without -o OWNER and -g GROUP
    local kept=()
    while [ $# -gt 0 ]; do
        case $1 in -o | -g) shift ;; *) kept+=("$1") ;; esac
        shift
    done
    command install "${kept[@]}"
}
nano() { :; }           # nobody edits: the sample's own zone is used
scp() {                 # to root@HOST:PATH is to that machine's home folder
    local kept=("$@") to=${!#} host
    unset "kept[-1]"
    host=${to#root@}; host=${host%%:*}
    [ "$host" = "$BOX_HOST" ] || { echo "scp: no machine $host" >&2; return 1; }
    command cp "${kept[@]}" "$ROOTS/box/home/${to#*:}"
}
python3() {             # -m venv FOLDER: with the packages of the checkout's environment, but not the product itself
    if [ "$1 $2" != "-m venv" ]; then "$PYTHON" "$@"; return; fi
    "$PYTHON" -m venv --without-pip "$3"
    echo "$SITE_PACKAGES" > "$("$3/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/all.pth"
    cat > "$3/bin/pip" <<PIP
#!/bin/bash
# No network: the lock must be there, and its packages are; the wheel is really installed.
if [ "\$2" = --require-hashes ]; then exec test -s "\$4"; fi
exec "$PYTHON" -m pip --python "$3/bin/python" \$1 -q --no-index --disable-pip-version-check "\${@:2}"
PIP
    chmod +x "$3/bin/pip"
}
systemctl() {           # start, restart and is-active mean the ExecStart of the unit, in the background
    local verb=$1 name=${!#} pid=""
    [ ! -e "$ROOTS/pids/$name" ] || pid=$(cat "$ROOTS/pids/$name")
    case "$verb $name" in
        "restart systemd-journald" | "daemon-reload daemon-reload" | "enable mosquitto") return ;;
        "restart mosquitto") set -- "$MOSQUITTO" -c "$ROOT/etc/mosquitto/mosquitto.conf" ;;
        "reload mosquitto") kill -HUP "$pid"; return ;;
        "enable ansim-"* | "restart ansim-"*) set -- $(sed -n 's/^ExecStart=//p' "$ROOT/etc/systemd/system/$name.service") ;;
        "is-active ansim-"*) kill -0 "$pid" && echo active; return ;;
        *) echo "systemctl: what is $*?" >&2; return 1 ;;
    esac
    if [ -n "$pid" ]; then kill "$pid" && while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done; fi
    setsid "$@" >> "$ROOT/$name.log" 2>&1 < /dev/null &
    echo $! > "$ROOTS/pids/$name"
}
journalctl() { cat "$ROOT/$2.log"; }  # -u UNIT -o cat
