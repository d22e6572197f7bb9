#!/bin/sh
# For a distribution or profile that has no script of its own: say what was made.
set -eu
NAME=unknown
# shellcheck source=/dev/null
[ ! -r /etc/os-release ] || . /etc/os-release
echo "${PRETTY_NAME:-$NAME}, kernel $(uname -r), $(df -Pk / | awk 'NR == 2 { printf "%d MiB used", $3 / 1024 }')"
