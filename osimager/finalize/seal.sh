#!/bin/sh
# Seal an image, run as root in the guest as the last script of a build. Few processes: under TCG each takes 50 ms.
# OSIMAGER_SEAL=template|machine, OSIMAGER_BUILD_USER=NAME, OSIMAGER_REMOVE_USER=yes|no. Says `was NAME VALUE` for what
# the image was before, `login NAME` for who can log in afterwards, and `left WHAT` for everything that it could not
# remove (then it exits with status 9).
set -u
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
user=$OSIMAGER_BUILD_USER
have() { command -v "$1" >/dev/null 2>&1; }

# What `cloud-init clean --logs` does (cloudinit/cmd/clean.py), without a second of Python, five under TCG. The hooks go
# first: they may write what is removed afterwards.
run_clean_hooks() {
    # Subiquity's takes the static network with it (cloud-init's documentation, "clean.d"): a machine keeps its own.
    [ "$OSIMAGER_SEAL" != machine ] || [ ! -e /etc/cloud/clean.d/99-installer ] || rm -f /etc/cloud/clean.d/99-installer
    for hook in /etc/cloud/clean.d/*; do
        [ ! -f "$hook" ] || [ ! -x "$hook" ] || "$hook" >/dev/null 2>&1
    done
}
clean_cloud_init() {
    set -- /var/log/cloud-init.log /var/log/cloud-init-output.log
    for path in /var/lib/cloud/*; do
        [ "$path" = /var/lib/cloud/seed ] || set -- "$@" "$path"
    done
    rm -rf "$@"
}

# Say and remove what nothing writes any more.
remove_leftovers() {
    echo "was root-kib $(df -Pk / | { read -r _; read -r _ size _; echo "$size"; })"
    if have cloud-init; then
        echo "was cloud-init yes"
        clean_cloud_init
    fi
    rm -rf /root/anaconda-ks.cfg /root/original-ks.cfg /root/initial-setup-ks.cfg /root/ks-*.cfg /root/ks-*.log \
        /root/autoinst.xml /root/install.log* /root/.config/osimager \
        /var/adm/autoinstall /var/log/installer /var/log/anaconda /var/log/YaST2 /var/lib/cdebconf \
        /var/cache/debconf/passwords.dat-old /etc/cloud/cloud.cfg.d/99-installer.cfg /etc/cloud/cloud-init.disabled \
        /var/cache/apt/archives/*.deb /var/cache/dnf/* /var/cache/yum/* /var/cache/zypp/packages/* /var/cache/apk/* \
        /tmp/* /tmp/.[!.]* /var/tmp/* /var/crash/* /var/lib/systemd/coredump/* \
        /root/.*_history /home/*/.*_history /root/.lesshst /home/*/.lesshst /root/.viminfo /home/*/.viminfo \
        /root/.wget-hsts /root/.ansible /home/*/.ansible
    [ ! -e /var/cache/debconf/passwords.dat ] || : >/var/cache/debconf/passwords.dat
}

# What was written by whom was stopped: logs, and entropy that was used and must not be used again.
remove_last_writings() {
    rm -rf /var/log/journal/* \
        /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed \
        /var/lib/misc/random-seed /var/lib/random-seed /var/lib/seedrng \
        /boot/efi/loader/random-seed /efi/loader/random-seed
    # shellcheck disable=SC2016 # $file is the inner shell's
    find /var/log -type f \
        \( \( -name '*.gz' -o -name '*.xz' -o -name '*.[0-9]' -o -name '*.old' -o -name '*-20[0-9]*' \) \
        -exec rm -f {} + -o -size +0 -exec sh -c 'for file; do : >"$file"; done' sh {} + \)
}

# Without a process: is there a line of the pattern $2 in the (small) file $1?
has_line() {
    [ -r "$1" ] || return 1
    while IFS= read -r line || [ -n "$line" ]; do
        # shellcheck disable=SC2254 # a pattern
        case $line in $2) return 0 ;; esac
    done <"$1"
    return 1
}

# Without a process: rewrite the (small) file $1 without the lines of the pattern $2.
drop_lines() {
    has_line "$1" "$2" || return 0
    kept=
    while IFS= read -r line || [ -n "$line" ]; do
        # shellcheck disable=SC2254 # a pattern
        case $line in
        $2) ;;
        *) kept="$kept$line
" ;;
        esac
    done <"$1"
    printf %s "$kept" >"$1"
}

install_key_unit() {
    # cloud-init makes host keys anew; where it finds no cloud it does not even run.
    have systemctl || return 0 # OpenRC's sshd makes its own
    for unit in sshd-keygen.target sshd-keygen@.service sshd-keygen.service sshdgenkeys.service; do
        [ ! -e "/usr/lib/systemd/system/$unit" ] || return 0
    done
    echo "# Written by osimager when it sealed this image.
[Unit]
Description=Make the SSH host keys that this machine lacks
After=cloud-init.service cloud-init-network.service
Before=ssh.service sshd.service ssh.socket
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target" >/etc/systemd/system/osimager-hostkeys.service
    [ -d /etc/systemd/system/multi-user.target.wants ] || mkdir -p /etc/systemd/system/multi-user.target.wants
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
        drop_lines /etc/hosts '127.0.1.1*'
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
    set -- /etc/sudoers.d/osimager-build /etc/doas.d/osimager-build.conf /etc/ssh/sshd_config.d/*osimager-build*
    for keys in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
        [ -s "$keys" ] || continue
        drop_lines "$keys" '* osimager-build'
        [ -s "$keys" ] || set -- "$@" "$keys"
    done
    if [ "$OSIMAGER_REMOVE_USER" = yes ] && [ "$user" != root ]; then
        while IFS=: read -r name _ _ _ _ folder _; do
            [ "$name" != "$user" ] || home=$folder
        done </etc/passwd
        if have userdel; then userdel -f "$user" 2>/dev/null; else deluser "$user" >/dev/null; fi
        ! has_line /etc/group "$user:*" || groupdel "$user" 2>/dev/null || delgroup "$user" >/dev/null
        # The tools leave the account, with its password's hash, in their backups.
        set -- "$@" /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid- \
            "/var/mail/$user" "/var/spool/mail/$user" "/var/spool/cron/crontabs/$user" "/var/spool/cron/$user" \
            "/var/lib/AccountsService/users/$user" "/var/lib/systemd/linger/$user" \
            "/var/lib/sudo/lectured" "/var/db/sudo/lectured"
        case $home in
        /home/?* | /var/home/?* | /var/lib/?*) set -- "$@" "$home" ;;
        esac
    elif [ "$OSIMAGER_REMOVE_USER" = yes ]; then
        # The account stays; the password that the build gave it does not.
        if have usermod; then usermod -p '!' root; else passwd -l root >/dev/null; fi
    fi
    rm -rf "$@"
}

left() {
    echo "left $1"
    status=9
}

# Say who can log in, and what of the build is left in the files that tell who may do what.
read_accounts() {
    set --
    for file in /etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/subuid /etc/shadow- /etc/sudoers /etc/sudoers.d/* \
        /root/.ssh/* /home/*/.ssh/* /etc/ssh/*conf* /etc/ssh/*/* /etc/ssh/authorized_keys*; do
        if [ -f "$file" ] && [ -r "$file" ]; then set -- "$@" "$file"; fi
    done
    gone=
    [ "$OSIMAGER_REMOVE_USER" != yes ] || [ "$user" = root ] || gone=$user
    awk -F: -v gone="$gone" '
        function left(what) { if (!(what in said)) print "left " what; said[what] = bad = 1 }
        FILENAME == "/etc/shadow" && $2 ~ /^[$.\/0-9A-Za-z]/ { print "login " $1 " (password)" }
        FILENAME ~ /ssh/ { if (/ osimager-build$/) left("the build\047s key in " FILENAME); next }
        gone == "" { next }
        FILENAME ~ /sudoers/ {
            split($0, word, /[ \t]/)
            if (word[1] == gone) left("rights of " gone " in " FILENAME)
            next
        }
        $1 == gone { left("the account " gone " in " FILENAME) }
        END { exit bad ? 9 : 0 }' "$@" || status=9
    for keys in /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys; do
        [ ! -s "$keys" ] || echo "login $keys"
    done
}

check() {
    status=0
    for path in /etc/sudoers.d/osimager-build /root/anaconda-ks.cfg /var/log/installer "$home"; do
        [ ! -e "$path" ] || left "$path"
    done
    read_accounts
    [ "$OSIMAGER_SEAL" = template ] || return 0
    [ ! -s /etc/machine-id ] || left "/etc/machine-id"
    for path in /etc/ssh/ssh_host_* /var/lib/cloud/instance /var/lib/cloud/data/* /var/lib/dhcp/*; do
        if [ -e "$path" ] || [ -L "$path" ]; then left "$path"; fi
    done
}

[ ! -s /etc/machine-id ] || { read -r id </etc/machine-id; echo "was machine-id $id"; }
for key in /etc/ssh/ssh_host_*_key.pub; do
    [ ! -r "$key" ] || { read -r kind blob _ <"$key" && echo "was host-key $kind $blob"; }
done
! have cloud-init || run_clean_hooks
# Side by side, for guests with more than one processor. What writes once more when it stops, is stopped before that is
# removed.
remove_leftovers &
set -- "$!"
if have systemctl; then
    systemctl stop systemd-random-seed.service systemd-update-utmp.service rsyslog.service syslog.socket 2>/dev/null &
    set -- "$@" "$!"
    journalctl -q --relinquish-var 2>/dev/null &
    set -- "$@" "$!"
fi
case $OSIMAGER_SEAL in
template) forget_identity & ;;
machine) keep_identity & ;;
esac
set -- "$@" "$!"
home=
close_build_access
wait "$@"
remove_last_writings &
check
wait "$!"
[ ! -e /var/lib/systemd/random-seed ] || left /var/lib/systemd/random-seed
sync
fstrim -a 2>/dev/null || fstrim / 2>/dev/null ||
    echo "the disk takes no discards: the image may be larger than it need be"
exit "$status"
