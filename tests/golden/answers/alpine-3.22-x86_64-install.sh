#!/bin/sh
# Started by hand in the live system: install, then make the build's access in what was installed, then switch off.
set -eu
export ERASE_DISKS=/dev/vda
setup-alpine -e -f /tmp/answers
mount /dev/vda2 /mnt
cp /etc/resolv.conf /mnt/etc/resolv.conf
chroot /mnt apk add --no-progress sudo bash tmux
chroot /mnt adduser -D -s /bin/bash osimager
echo 'osimager:{{build_password_crypt}}' | chroot /mnt chpasswd -e
give() { # USER KEYS
    mkdir -p "/mnt/home/$1/.ssh"
    echo "$2" >"/mnt/home/$1/.ssh/authorized_keys"
    chmod 700 "/mnt/home/$1/.ssh"
    chmod 600 "/mnt/home/$1/.ssh/authorized_keys"
    chroot /mnt chown -R "$1:$1" "/home/$1/.ssh"
}
give osimager '{{build_public_key}}'
echo 'osimager ALL=(ALL) NOPASSWD: ALL' >/mnt/etc/sudoers.d/osimager-build
chmod 440 /mnt/etc/sudoers.d/osimager-build
chroot /mnt adduser -D -s /bin/bash -G wheel keeper
echo 'keeper:*' | chroot /mnt chpasswd -e
give keeper 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0 keeper@example.org'
echo 'keeper ALL=(ALL) NOPASSWD: ALL' >/mnt/etc/sudoers.d/keeper
chmod 440 /mnt/etc/sudoers.d/keeper

chroot /mnt passwd -l root
umount /mnt
poweroff
