# What the recipes share whose media have a live system, made out of Debian packages: functions for their "make", which sources this
# after lib.sh, defines label and make_image, and ends with: make_live "$@". Root, or any user with subordinate ids (mmdebstrap's unshare
# mode), in a folder that these ids can reach. The root file system is one ext4 image: the live system runs over it, and installing
# copies it.
# The recipe's files: packages, pool, installer/ (run is its first program, medium says how to find the medium); modules and excludes are optional.
common=$RECIPE/../common
# The recipe's own lines of the list $1, after those that all recipes share.
both_lists() { if [ -e "$RECIPE/$1" ]; then strip_comments "$common/$1" "$RECIPE/$1"; else strip_comments "$common/$1"; fi; }
package_names() { strip_comments "$1" | sed -n -e "s/:$ARCH\$//p" -e '/:/d' -e p | sort -u; }

# The packages, unpacked and configured, into the folder root (as root) or the archive root.tar.
unpack_packages() {
    say "made: unpacking the packages"
    both_lists excludes >dpkg.cfg
    mkdir -p tools iso/pool
    chmod 1777 tools iso/pool
    # INITRD=No: Debian's kernel package would make a RAM disk, which takes ten minutes where the processor is emulated.
    export ARCH RECIPE INITRD=No
    set -- --variant=apt --aptopt='APT::Install-Recommends "false"' --dpkgopt="$PWD/dpkg.cfg" \
        --include="$(package_names "$RECIPE/packages" | paste -sd,)" --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --customize-hook="sh '$common/collect' '$PWD' '$(loader_packages)'"
    if [ "$(id -u)" = 0 ]; then run_mmdebstrap --mode=root --format=directory "$@"; else run_mmdebstrap --mode=unshare --format=tar "$@"; mv root root.tar; fi
    unpack_tools
}

finish_root() {
    rm -f root/etc/ssh/ssh_host_* root/var/cache/debconf/*-old root/var/lib/dpkg/*-old root/etc/hostname root/etc/resolv.conf
    : >root/etc/machine-id
    : >root/etc/fstab
    [ -z "$SOURCES" ] || { rm -f root/etc/apt/sources.list.d/*; printf '%s\n' "$SOURCES" >root/etc/apt/sources.list; }
    # Nothing to reap without LVM, and it takes nine seconds of a first boot.
    rm -f root/etc/systemd/system/*/e2scrub_*
    cp "$common/grub.default" root/etc/default/grub
    sed -i 's/^# *\(en_US.UTF-8 UTF-8\)/\1/' root/etc/locale.gen
    chroot root localedef -i en_US -f UTF-8 -A /usr/share/locale/locale.alias en_US.UTF-8
}

pack() { (cd ram && LC_ALL=C sort | cpio -o -H newc -R 0:0 --quiet) | zstd -q -12; }
# What a recipe adds to the RAM disk, in the folder ram.
add_to_ram() { :; }
# make_ram_disk KERNEL INITRD: one for the installed system; the medium's, which goes with its kernel to these places, has the installer besides.
make_ram_disk() {
    version=$(basename root/lib/modules/*)
    tree=root/lib/modules/$version modules=ram/lib/modules/$version
    mkdir -p ram/bin ram/installer "$modules"
    cp root/usr/bin/busybox ram/bin/
    cp "$common/init" ram/init
    chmod 755 ram/init
    printf '%s\n' "$label" >ram/medium-label
    awk -v wanted="$(both_lists modules | paste -sd' ')" -v out="$modules" -f "$common/modules.awk" \
        "$tree/modules.dep" "$tree/modules.alias" | while read -r file; do install -D -m 644 "$tree/$file" "$modules/$file"; done
    cp "$tree/modules.order" "$tree/modules.builtin" "$modules/"
    add_to_ram
    cp -r "$common"/installer/. "$RECIPE"/installer/. ram/installer/
    chmod 755 ram/installer/run ram/installer/udhcpc
    [ ! -d ram/installer/bin ] || chmod 755 ram/installer/bin/*
    mkdir -p "$(dirname "iso/$1")" "$(dirname "iso/$2")"
    (cd ram && find . ! -path './installer*') | pack >"root/boot/initrd.img-$version"
    { cat "root/boot/initrd.img-$version"; (cd ram && find installer) | pack; } >"iso/$2"
    cp "root/boot/vmlinuz-$version" "iso/$1"
}

# make_file_system FILE: the folder root as an image on the medium.
make_file_system() {
    size_kib=$(($(du -sk --apparent-size root | cut -f1) * 104 / 100 + 49152))
    mkdir -p "$(dirname "iso/$1")"
    mke2fs -q -F -t ext4 -b 4096 -m 1 -J size=32 -L root -i 16384 -d root -E lazy_itable_init=1,root_owner=0:0 \
        -O none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum \
        "iso/$1" "${size_kib}k" >&2
}

# Everything: the packages, then make_image, a function of the recipe's, in the folder with root and tools.
make_live() {
    case ${1:-} in
        image) mkdir root; tar -xpf root.tar -C root; make_image ;;
        *)
            unpack_packages
            if [ "$(id -u)" = 0 ]; then make_image; else chmod 777 . iso; mmdebstrap --unshare-helper sh "$RECIPE/make" image; fi ;;
    esac
}
