#!/bin/sh
# Debian: a smaller image that stays small.
set -eu
export DEBIAN_FRONTEND=noninteractive
cat >/etc/apt/apt.conf.d/90osimager <<'END'
// Written by osimager (scripts.d/debian.sh): package lists are fetched again when they are wanted.
Acquire::Languages "none";
END
rm -rf /var/cache/apt/archives/*.deb /var/cache/apt/*.bin
echo "Debian $(cat /etc/debian_version), kernel $(uname -r)"
