#!/bin/sh
# Started by hand in the live system: install, then make the build's access in what was installed, then switch off.
set -eu
export ERASE_DISKS=/dev/vda
setup-alpine -e -f /tmp/answers
mount E>'/dev/vg0/lv_root' if disk_layout == 'lvm' else '/dev/vda2'<E /mnt
cp /etc/resolv.conf /mnt/etc/resolv.conf
chroot /mnt apk add --no-progress sudo bash E>' '.join(packages)<E
chroot /mnt adduser -D -s /bin/bash >>build_user<<
echo '>>build_user<<:>>build_password_crypt<<' | chroot /mnt chpasswd -e
give() { # USER KEYS
    mkdir -p "/mnt/home/$1/.ssh"
    echo "$2" >"/mnt/home/$1/.ssh/authorized_keys"
    chmod 700 "/mnt/home/$1/.ssh"
    chmod 600 "/mnt/home/$1/.ssh/authorized_keys"
    chroot /mnt chown -R "$1:$1" "/home/$1/.ssh"
}
give >>build_user<< '>>build_public_key<<'
echo '>>build_user<< ALL=(ALL) NOPASSWD: ALL' >/mnt/etc/sudoers.d/osimager-build
chmod 440 /mnt/etc/sudoers.d/osimager-build
E>'chroot /mnt adduser -D -s /bin/bash -G wheel ' + username + '\necho ' + shell(username + ':' + (get('password', '') or '*')) + ' | chroot /mnt chpasswd -e\ngive ' + username + ' ' + shell('\n'.join(authorized_keys)) + '\necho ' + shell(username + (' ALL=(ALL) ALL' if get('password', '') else ' ALL=(ALL) NOPASSWD: ALL')) + ' >/mnt/etc/sudoers.d/' + username + '\nchmod 440 /mnt/etc/sudoers.d/' + username if get('username', '') else ''<E
E>'chroot /mnt sh -c ' + shell(late_command) if late_command else ''<E
chroot /mnt passwd -l root
umount /mnt
poweroff
