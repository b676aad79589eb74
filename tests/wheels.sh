#!/usr/bin/env bash
# The wheels as a box installs them: each role's lock and its own wheel in a clean environment, then its command; and the
# whole product with the demo's lock. Minutes long. The wheels stay in build/wheels.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$(mkdir -p "$work/source" && echo "$work/source")"
"$python" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$work/dist" "$work/source"
whole=$(echo "$work"/dist/*.whl)
rm -rf build/wheels

try() {
    role=$1 wheel=$2; shift 2
    "${BASE_PYTHON:-python3}" -m venv "$work/$role"
    "$work/$role/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "locks/$role.txt"
    "$work/$role/bin/python" -m pip install -q --disable-pip-version-check --no-deps "$wheel"
    "$work/$role/bin/python" -m pip check --disable-pip-version-check > /dev/null
    mkdir -p "$work/$role/away"
    for command in "$@"; do
        if ! (cd "$work/$role/away" && eval "PATH=$work/$role/bin:\$PATH $command" >out 2>&1); then
            echo "$role: '$command' failed:"; tail -n 20 "$work/$role/away/out"; exit 1
        fi
        echo "$role: $command"
    done
}

build() { "$python" "$work/source/deploy/wheel.py" "$1" --out build/wheels; }

for role in gateway reader city sim; do
    wheel=$(build "$role")
    echo "built $wheel, $(stat -c %s "$wheel") bytes"
    only='test "$(cd '"$work/$role"'/bin && echo ansim*)" = ansim-'$role
    case $role in
        gateway) try gateway "$wheel" "$only" "ansim-gateway --help" "ansim-gateway schema" ;;
        reader) try reader "$wheel" "$only" "ansim-reader --help" "ansim-reader build --out firmware" ;;
        city) try city "$wheel" "$only" "ansim-city --help" "ansim-city operator kim --file operators.json" ;;
        sim) try sim "$wheel" "$only" "ansim-sim --help" "ansim-sim walks make sites --sites 1 --seed 3" ;;
    esac
done
try demo "$whole" "ansim-sim demo --once --seconds 20 --children 3 --readers 4 --seed 1 --json out.json; test -s out.json"
