#!/bin/sh
# Seal an image, run as root in the guest as the last script of a build. Few processes: under TCG each takes 50 ms.
# OSIMAGER_SEAL=template|machine, OSIMAGER_BUILD_USER=NAME, OSIMAGER_REMOVE_USER=yes|no. Says `was NAME VALUE` for what
# the image was before, `login NAME` for who can log in afterwards, and `left WHAT` for everything that it could not
# remove (then it exits with status 9).
set -u
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
user=$OSIMAGER_BUILD_USER
have() { command -v "$1" >/dev/null 2>&1; }

# What `cloud-init clean --logs` does (cloudinit/cmd/clean.py), without a second of Python, five under TCG.
clean_cloud_init() {
    set -- /var/log/cloud-init.log /var/log/cloud-init-output.log
    for path in /var/lib/cloud/*; do
        [ "$path" = /var/lib/cloud/seed ] || set -- "$@" "$path"
    done
    rm -rf "$@"
    for hook in /etc/cloud/clean.d/*; do
        [ ! -f "$hook" ] || [ ! -x "$hook" ] || "$hook" >/dev/null 2>&1
    done
}

# What writes once more when it stops, is stopped before that is removed; the rest goes on beside it.
set --
if have systemctl; then
    systemctl stop systemd-random-seed.service systemd-update-utmp.service rsyslog.service syslog.socket 2>/dev/null &
    set -- "$!"
    journalctl -q --relinquish-var 2>/dev/null &
    set -- "$@" "$!"
fi
[ ! -s /etc/machine-id ] || { read -r id </etc/machine-id; echo "was machine-id $id"; }
for key in /etc/ssh/ssh_host_*_key.pub; do
    [ ! -r "$key" ] || { read -r kind blob _ <"$key" && echo "was host-key $kind $blob"; }
done

echo "was root-kib $(df -Pk / | { read -r _; read -r _ size _; echo "$size"; })"
if have cloud-init; then
    echo "was cloud-init yes"
    # Subiquity's hook takes the static network with it (cloud-init's documentation, "clean.d"): a machine keeps its own.
    [ "$OSIMAGER_SEAL" != machine ] || rm -f /etc/cloud/clean.d/99-installer
    clean_cloud_init
fi

[ $# -eq 0 ] || wait "$@"
# What the installer and the build left, and entropy that was used: it must not be used again.
rm -rf /root/anaconda-ks.cfg /root/original-ks.cfg /root/initial-setup-ks.cfg /root/ks-*.cfg /root/ks-*.log \
    /root/autoinst.xml /root/install.log* /root/.config/osimager \
    /var/adm/autoinstall /var/log/installer /var/log/anaconda /var/log/YaST2 /var/lib/cdebconf \
    /var/cache/debconf/passwords.dat-old /etc/cloud/cloud.cfg.d/99-installer.cfg /etc/cloud/cloud-init.disabled \
    /var/cache/apt/archives/*.deb /var/cache/dnf/* /var/cache/yum/* /var/cache/zypp/packages/* /var/cache/apk/* \
    /tmp/* /tmp/.[!.]* /var/tmp/* /var/crash/* /var/lib/systemd/coredump/* \
    /root/.*_history /home/*/.*_history /root/.lesshst /home/*/.lesshst /root/.viminfo /home/*/.viminfo \
    /root/.wget-hsts /root/.ansible /home/*/.ansible /var/log/journal/* \
    /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed \
    /var/lib/misc/random-seed /var/lib/random-seed /var/lib/seedrng /boot/efi/loader/random-seed /efi/loader/random-seed
[ ! -e /var/cache/debconf/passwords.dat ] || : >/var/cache/debconf/passwords.dat

install_key_unit() {
    # cloud-init makes host keys anew; where it finds no cloud it does not even run.
    have systemctl || return 0 # OpenRC's sshd makes its own
    for unit in sshd-keygen.target sshd-keygen@.service sshd-keygen.service sshdgenkeys.service; do
        [ ! -e "/usr/lib/systemd/system/$unit" ] || return 0
    done
    cat >/etc/systemd/system/osimager-hostkeys.service <<'END'
# Written by osimager when it sealed this image.
[Unit]
Description=Make the SSH host keys that this machine lacks
After=cloud-init.service cloud-init-network.service
Before=ssh.service sshd.service ssh.socket
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
END
    mkdir -p /etc/systemd/system/multi-user.target.wants
    ln -sf ../osimager-hostkeys.service /etc/systemd/system/multi-user.target.wants/osimager-hostkeys.service
}

# Without its notes ifupdown leaves the network alone at shutdown: dhclient would write a lease, with its DUID.
forget_identity() {
    [ ! -e /etc/machine-id ] || : >/etc/machine-id
    if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
        ln -sf /etc/machine-id /var/lib/dbus/machine-id
    fi
    rm -rf /run/network/ifstate* /etc/ssh/ssh_host_* /var/lib/dhcp/* /var/lib/dhclient/* /var/lib/dhcpcd/* /var/lib/wicked/* \
        /var/lib/NetworkManager/*.lease /var/lib/NetworkManager/secret_key /var/lib/NetworkManager/timestamps \
        /etc/udev/rules.d/70-persistent-net.rules /etc/lvm/devices/system.devices /etc/nvme/hostid /etc/nvme/hostnqn \
        /etc/netplan/50-cloud-init.yaml /etc/network/interfaces.d/50-cloud-init* \
        /etc/NetworkManager/system-connections/cloud-init-*.nmconnection \
        /etc/cloud/cloud.cfg.d/95-osimager-machine.cfg \
        /etc/cloud/cloud.cfg.d/subiquity-disable-cloudinit-networking.cfg
    for file in /etc/sysconfig/network-scripts/ifcfg-*; do
        [ ! -f "$file" ] || sed -i '/^\(HWADDR\|UUID\)=/d' "$file"
    done
    if [ -s /etc/hostname ]; then
        echo localhost >/etc/hostname
        ! grep -q '^127\.0\.1\.1' /etc/hosts || sed -i '/^127\.0\.1\.1/d' /etc/hosts
    fi
    install_key_unit
}

keep_identity() {
    [ -d /etc/cloud/cloud.cfg.d ] || return 0
    cat >/etc/cloud/cloud.cfg.d/95-osimager-machine.cfg <<'END'
# Written by osimager when it sealed this machine: its name, address and host keys are its own.
preserve_hostname: true
ssh_deletekeys: false
network: {config: disabled}
END
}

# The build's own way in. The account's last session is the one that runs this: already root, it goes on without it.
close_build_access() {
    rm -f /etc/sudoers.d/osimager-build /etc/doas.d/osimager-build.conf /etc/ssh/sshd_config.d/*osimager-build*
    for keys in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
        grep -q ' osimager-build$' "$keys" 2>/dev/null || continue
        kept=$(grep -v ' osimager-build$' "$keys")
        if [ -n "$kept" ]; then printf '%s\n' "$kept" >"$keys"; else rm -f "$keys"; fi
    done
    [ "$OSIMAGER_REMOVE_USER" = yes ] || return 0
    if [ "$user" = root ]; then
        # The account stays; the password that the build gave it does not.
        if have usermod; then usermod -p '!' root; else passwd -l root >/dev/null; fi
        return 0
    fi
    home=$(sed -n "s/^$user:[^:]*:[^:]*:[^:]*:[^:]*:\([^:]*\):.*/\1/p" /etc/passwd)
    if have userdel; then userdel -f "$user" 2>/dev/null; else deluser "$user" >/dev/null; fi
    if grep -q "^$user:" /etc/group; then groupdel "$user" 2>/dev/null || delgroup "$user" >/dev/null; fi
    # The tools leave the account, with its password's hash, in their backups.
    set -- /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid- \
        "/var/mail/$user" "/var/spool/mail/$user" "/var/spool/cron/crontabs/$user" "/var/spool/cron/$user" \
        "/var/lib/AccountsService/users/$user" "/var/lib/systemd/linger/$user" \
        "/var/lib/sudo/lectured" "/var/db/sudo/lectured"
    case $home in
    /home/?* | /var/home/?* | /var/lib/?*) set -- "$@" "$home" ;;
    esac
    rm -rf "$@"
}

left() {
    echo "left $1"
    status=9
}

check() {
    status=0
    for path in /etc/sudoers.d/osimager-build /root/anaconda-ks.cfg /var/log/installer /var/lib/systemd/random-seed; do
        [ ! -e "$path" ] || left "$path"
    done
    if [ "$OSIMAGER_REMOVE_USER" = yes ] && [ "$user" != root ]; then
        # shellcheck disable=SC2013 # one grep for all: none of these paths has a space
        for path in $(grep -ls "^$user:" /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/shadow-); do
            left "the account $user in $path"
        done
        ! grep -qs "^${user}[[:space:]]" /etc/sudoers /etc/sudoers.d/* || left "rights of $user in sudoers"
        [ ! -e "${home:-/home/$user}" ] || left "${home:-/home/$user}"
    fi
    where=$(grep -rls ' osimager-build$' /root/.ssh /home/*/.ssh /etc/ssh)
    [ -z "$where" ] || left "the build's key in $where"
    [ "$OSIMAGER_SEAL" = template ] || return 0
    [ ! -s /etc/machine-id ] || left "/etc/machine-id"
    for path in /etc/ssh/ssh_host_* /var/lib/cloud/instance /var/lib/cloud/data/* /var/lib/dhcp/*; do
        if [ -e "$path" ] || [ -L "$path" ]; then left "$path"; fi
    done
}

case $OSIMAGER_SEAL in
template) forget_identity ;;
machine) keep_identity ;;
esac
# shellcheck disable=SC2016 # $file is the inner shell's
find /var/log -type f \( \( -name '*.gz' -o -name '*.xz' -o -name '*.[0-9]' -o -name '*.old' -o -name '*-20[0-9]*' \) \
    -exec rm -f {} + -o -size +0 -exec sh -c 'for file; do : >"$file"; done' sh {} + \)
close_build_access
awk -F: '$2 ~ /^[$.\/0-9A-Za-z]/ { print "login " $1 " (password)" }' /etc/shadow
for keys in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
    [ ! -s "$keys" ] || echo "login $keys"
done
check
sync
fstrim -a 2>/dev/null || fstrim / 2>/dev/null || echo "the disk takes no discards: the image may be larger than it need be"
exit "$status"
