#!/usr/bin/env bash
# The wheel as a user installs it: each role's lock in a clean environment of its own, then the role's command. Minutes long.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$(mkdir -p "$work/source" && echo "$work/source")"
"$python" -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w "$work/dist" "$work/source"
echo "built $(basename "$work"/dist/*.whl)"

try() {
    role=$1; shift
    "${BASE_PYTHON:-python3}" -m venv "$work/$role"
    "$work/$role/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r "locks/$role.txt"
    "$work/$role/bin/python" -m pip install -q --disable-pip-version-check --no-deps "$work"/dist/*.whl
    mkdir -p "$work/$role/away"
    for command in "$@"; do
        if ! (cd "$work/$role/away" && eval "PATH=$work/$role/bin:\$PATH $command" >out 2>&1); then
            echo "$role: '$command' failed:"; tail -n 20 "$work/$role/away/out"; exit 1
        fi
        echo "$role: $command"
    done
}

try gateway "ansim-gateway --help" "ansim-gateway schema"
try reader "ansim-reader --help" "ansim-reader build --out firmware"
try city "ansim-city --help" "ansim-city operator kim --file operators.json"
try sim "ansim-sim --help" "ansim-sim walks make sites --sites 1 --seed 3"
try demo "ansim-sim demo --once --seconds 20 --children 3 --readers 4 --seed 1 --json out.json; test -s out.json"
