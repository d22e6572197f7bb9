#!/bin/sh
# What every image needs in a cloud: cloud-init, growpart, the QEMU guest agent, a serial console.
# Idempotent; needs the network only for packages that are missing. Debian, Ubuntu, EL, Fedora, SUSE, Alpine.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

ID=linux ID_LIKE=
# shellcheck source=/dev/null
[ ! -r /etc/os-release ] || . /etc/os-release
case " $ID $ID_LIKE " in
*" debian "* | *" ubuntu "*) family=debian ;;
*" rhel "* | *" fedora "* | *" centos "*) family=redhat ;;
*" suse "* | *" opensuse "* | *" sles "*) family=suse ;;
*" alpine "*) family=alpine ;;
*) family=other ;;
esac

have() { command -v "$1" >/dev/null 2>&1; }

missing=
need() { # PROGRAM PACKAGE-THAT-BRINGS-IT
    have "$1" || missing="$missing $2"
}
need cloud-init cloud-init
case $family in
debian) need growpart cloud-guest-utils ;;
redhat) need growpart cloud-utils-growpart ;;
suse) need growpart growpart ;;
alpine) need growpart cloud-utils-growpart ;;
esac
need qemu-ga qemu-guest-agent

install_packages() {
    case $family in
    debian)
        export DEBIAN_FRONTEND=noninteractive
        # The lists that the installer left are often good enough.
        apt-get -q -y install --no-install-recommends "$@" 2>/dev/null || {
            apt-get -q update
            apt-get -q -y install --no-install-recommends "$@"
        }
        ;;
    redhat)
        if have dnf; then dnf -q -y install "$@"; else yum -q -y install "$@"; fi
        ;;
    suse) zypper -n install --no-recommends "$@" ;;
    alpine) apk add --no-progress "$@" ;;
    *)
        echo "no package manager is known for $ID; missing:$missing" >&2
        exit 4
        ;;
    esac
}

if [ -n "$missing" ]; then
    echo "installing:$missing"
    # shellcheck disable=SC2086  # words, on purpose
    install_packages $missing || {
        echo "cannot install$missing: the guest needs a package source, or an ISO that has them" >&2
        exit 4
    }
fi

# Where user data may come from, asked in this order; without the list every boot asks a dozen clouds.
if have cloud-init; then
    mkdir -p /etc/cloud/cloud.cfg.d
    cat >/etc/cloud/cloud.cfg.d/90-osimager.cfg <<'END'
# Written by osimager (scripts.d/base.sh).
datasource_list: [NoCloud, ConfigDrive, OpenStack, Ec2, CloudStack, VMware, Azure, GCE, None]
growpart:
  mode: auto
  devices: ["/"]
resize_rootfs: true
END
    # Debian's package asks this list first, by debconf; ours is the one that holds.
    rm -f /etc/cloud/cloud.cfg.d/90_dpkg.cfg
    # /etc/cloud/cloud-init.disabled, an installer's, stays: the seal removes it. A guest that boots once more between
    # two steps would ask every cloud for minutes.
fi

# cloud-init grows partitions and the file systems on them; where the root is a logical volume, what lies between is ours.
# The tools know it by its name; the source of an initrd that mounts by UUID is /dev/dm-0.
root=$(cat "/sys/dev/block/$(findmnt -rno MAJ:MIN / 2>/dev/null)/dm/name" 2>/dev/null || :)
if have lvs && have systemctl && [ -n "$root" ] && lvs "/dev/mapper/$root" >/dev/null 2>&1; then
    cat >/usr/local/sbin/osimager-grow-root <<'END'
#!/bin/sh
# Written by osimager (scripts.d/base.sh): let the logical volume of the root have all of a disk that has grown.
root=/dev/mapper/$(cat "/sys/dev/block/$(findmnt -rno MAJ:MIN /)/dm/name")
lvs --noheadings -o devices "$root" | sed 's/(.*//' | sort -u | while read -r volume; do
    part=/sys/class/block/${volume##*/}
    [ ! -e "$part/partition" ] || growpart "/dev/$(basename "$(readlink -f "$part/..")")" "$(cat "$part/partition")"
    pvresize "$volume"
done
[ "$(lvs --noheadings -o vg_free_count "$root")" -eq 0 ] || lvextend -l +100%FREE "$root"
# Not by lvextend --resizefs: where the root's source is /dev/dm-0, fsadm takes it for unmounted, and checks it in vain.
case $(findmnt -rno FSTYPE /) in
xfs) xfs_growfs / ;;
ext*) resize2fs "$root" ;;
btrfs) btrfs filesystem resize max / ;;
esac
END
    chmod 755 /usr/local/sbin/osimager-grow-root
    cat >/etc/systemd/system/osimager-grow-root.service <<'END'
# Written by osimager (scripts.d/base.sh).
[Unit]
Description=Grow the logical volume of the root file system
After=local-fs.target cloud-init-local.service
Before=cloud-final.service

[Service]
Type=oneshot
ExecStart=/usr/local/sbin/osimager-grow-root

[Install]
WantedBy=multi-user.target
END
    systemctl -q enable osimager-grow-root.service
fi

if have systemctl; then
    units=
    for unit in cloud-init-local cloud-init cloud-init-main cloud-init-network cloud-config cloud-final \
        qemu-guest-agent; do
        [ ! -e "/usr/lib/systemd/system/$unit.service" ] && [ ! -e "/lib/systemd/system/$unit.service" ] ||
            units="$units $unit.service"
    done
    # Asked at once, and enabled only where it is not: each call takes half a second under emulation.
    # shellcheck disable=SC2086
    if [ -n "$units" ] && systemctl is-enabled $units 2>/dev/null | grep -q '^disabled'; then
        systemctl -q enable $units
    fi
elif have rc-update; then
    ! have setup-cloud-init || setup-cloud-init >/dev/null
    rc-update -q add qemu-guest-agent default
fi

# A console on the serial port: what clouds log, and what `osimager image run` shows. systemd starts a login there.
case $(uname -m) in
aarch64 | arm64) console=ttyAMA0 ;;
*) console=ttyS0 ;;
esac
if [ -e "/sys/class/tty/$console" ] && ! grep -q "console=$console" /proc/cmdline; then
    arguments="console=tty0 console=$console,115200"
    if have grubby; then
        grubby --update-kernel=ALL --args="$arguments"
    elif [ -f /etc/default/grub ] && ! grep -q "console=$console" /etc/default/grub; then
        # shellcheck disable=SC2016  # GRUB's own script expands it
        printf 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX %s"\n' "$arguments" >>/etc/default/grub
        if have update-grub; then update-grub 2>&1; else grub2-mkconfig -o /boot/grub2/grub.cfg 2>&1; fi
    elif [ -f /etc/update-extlinux.conf ] && ! grep -q "console=$console" /etc/update-extlinux.conf; then
        sed -i "s/^default_kernel_opts=\"/&$arguments /" /etc/update-extlinux.conf
        update-extlinux >/dev/null
    fi
fi
