#!/bin/sh
# What a technician types: ./flash.sh --number 17 --name "pole 17, school gate"
# It finds the tool and the one connected reader; all the rest is `ansim-reader flash` (its --help tells the options).
# Its own exit codes are those of every command: 2 give --port, 3 no serial port, 6 the tool is not installed.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
tool=$here/.venv/bin/ansim-reader
ports=${ANSIM_PORTS:-/dev/serial/by-id}

if [ ! -x "$tool" ]; then
    echo "flash.sh: $tool is not there. Next: cd $here && make venv" >&2
    exit 6
fi

for word in "$@"; do
    case $word in
        --version) exec "$tool" --version ;;
        --port | --port=* | -p | -p?* | --help) exec "$tool" flash "$@" ;;
    esac
done
[ -z "${ANSIM_PORT:-}" ] || exec "$tool" flash "$@"

port='' count=0
for found in "$ports"/*; do
    [ -e "$found" ] || continue
    port=$found count=$((count + 1))
done
case $count in
    1) ;;
    0)
        echo "flash.sh: no USB serial adapter in $ports. Next: plug the reader in, or give --port /dev/ttyUSB0" >&2
        exit 3
        ;;
    *)
        echo "flash.sh: $count serial adapters are connected. Next: unplug all but the reader, or give --port, one of:" >&2
        ls "$ports" >&2
        exit 2
        ;;
esac
echo "port    $port"
exec "$tool" flash --port "$port" "$@"
