#!/bin/sh
# `npm start`: serves with the system's Node if it is new enough, else with the one that `npm ci` installs
# (docs/setup/running.md, "Node"). npm puts node_modules/.bin, which has that one, first in PATH.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
latchkey=$root/packages/server/bin/latchkey.mjs
# `"node": ">=24.15"` in the manifest.
needed=$(sed -n 's/.*"node": ">=\([0-9]*\)\.\([0-9]*\)".*/\1 \2/p' "$root/packages/server/package.json")

# Prints the first node in PATH that npm has not put there.
system_node() {
  IFS=:
  for directory in $PATH; do
    case $directory in */node_modules/.bin | */node_modules/.bin/) continue ;; esac
    if [ -x "$directory/node" ] && [ -f "$directory/node" ]; then
      printf '%s\n' "$directory/node"
      return
    fi
  done
}

# $1: a version such as v24.21.0. $2, $3: the oldest major and minor version.
new_enough() {
  major=${1#v}
  minor=${major#*.}
  major=${major%%.*}
  minor=${minor%%.*}
  case $major$minor in '' | *[!0-9]*) return 1 ;; esac
  [ "$major" -gt "$2" ] || { [ "$major" -eq "$2" ] && [ "$minor" -ge "$3" ]; }
}

node=$(system_node)
# shellcheck disable=SC2086
if [ -n "$node" ] && version=$("$node" --version 2>/dev/null) && new_enough "$version" $needed; then
  exec "$node" "$latchkey" serve "$@"
fi
exec node "$latchkey" serve "$@"
