#!/bin/sh
# $1 is where the new root file system is mounted. The build's access; the seal removes it.
set -e
mkdir -p "$1/root/.ssh"
echo E>shell(build_public_key)<E > "$1/root/.ssh/authorized_keys"
E>'echo ' + shell('\n'.join(authorized_keys)) + ' >> "$1/root/.ssh/authorized_keys"' if authorized_keys else ''<E
chmod 700 "$1/root/.ssh"
chmod 600 "$1/root/.ssh/authorized_keys"
E>'echo ' + shell('proxy=' + proxy) + ' >> "$1/etc/yum.conf"' if proxy else ''<E
E>'chroot "$1" sh -c ' + shell(late_command) if late_command else ''<E
