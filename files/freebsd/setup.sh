#!/bin/sh
# Runs in the new system: network, the build's access, what an image needs.
set -e
sysrc hostname=E>shell(fqdn)<E
E>'sysrc ' + shell('ifconfig_vtnet0=inet ' + ip + ' netmask ' + netmask) + ' ' + shell('defaultrouter=' + gateway) if ip and ip != 'dhcp' else 'sysrc ifconfig_vtnet0=SYNCDHCP'<E
E>'echo ' + shell('nameserver ' + dns1) + ' > /etc/resolv.conf' + ('\necho ' + shell('nameserver ' + dns2) + ' >> /etc/resolv.conf' if dns2 else '') if dns1 and ip and ip != 'dhcp' else ''<E
sysrc sshd_enable=YES keymap=E>shell(keyboard)<E E>'ntpd_enable=YES' if ntp1 else ''<E
tzsetup E>shell('UTC' if timezone == 'Etc/UTC' else timezone)<E
echo 'autoboot_delay="1"' >> /boot/loader.conf
echo 'console="comconsole,vidconsole"' >> /boot/loader.conf
E>'export HTTP_PROXY=' + shell(proxy) + ' HTTPS_PROXY=' + shell(proxy) if proxy else ''<E
env ASSUME_ALWAYS_YES=yes pkg install sudo bash E>' '.join(packages)<E
# Root stays locked; the account of the build is removed when the image is sealed.
pw lock root
echo '>>build_password_crypt<<' | pw useradd >>build_user<< -m -s /usr/local/bin/bash -H 0
give() { # USER KEYS
    install -d -m 700 -o "$1" "/home/$1/.ssh"
    echo "$2" > "/home/$1/.ssh/authorized_keys"
    chown "$1" "/home/$1/.ssh/authorized_keys"
    chmod 600 "/home/$1/.ssh/authorized_keys"
}
give >>build_user<< '>>build_public_key<<'
mkdir -p /usr/local/etc/sudoers.d
echo '>>build_user<< ALL=(ALL) NOPASSWD: ALL' > /usr/local/etc/sudoers.d/osimager-build
chmod 440 /usr/local/etc/sudoers.d/osimager-build
E>'echo ' + shell(get('password', '') or '*') + ' | pw useradd ' + username + ' -m -G wheel -s /usr/local/bin/bash -H 0\ngive ' + username + ' ' + shell('\n'.join(authorized_keys)) + '\necho ' + shell(username + (' ALL=(ALL) ALL' if get('password', '') else ' ALL=(ALL) NOPASSWD: ALL')) + ' > /usr/local/etc/sudoers.d/' + username + '\nchmod 440 /usr/local/etc/sudoers.d/' + username if get('username', '') else ''<E
E>late_command<E
