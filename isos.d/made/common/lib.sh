# What the recipes of made media share; sourced by their "make", which runs in an empty folder with the environment that
# osimager/media/made.py gives: RECIPE its folder, ARCH amd64 or arm64, OUT the ISO to write, SOURCES apt lines (empty: those that
# mmdebstrap knows for Debian).
set -eu
case $ARCH in
    amd64) folder=install.amd efi=x86_64-efi cd_loader=gcdx64.efi loader=BOOTX64.EFI consoles='console=tty0 console=ttyS0,115200' ;;
    arm64) folder=install.a64 efi=arm64-efi cd_loader=gcdaa64.efi loader=BOOTAA64.EFI consoles='console=tty0 console=ttyAMA0,115200' ;;
esac
say() { echo "$*" >&2; }
strip_comments() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@"; }

# apt's sources, as mmdebstrap's last arguments: none where it is to use its own.
[ -z "$SOURCES" ] || printf '%s\n' "$SOURCES" >sources.list
run_mmdebstrap() { # SUITE ROOT are added at the end
    if [ -n "$SOURCES" ]; then set -- "$@" bookworm root sources.list; else set -- "$@" bookworm root; fi
    mmdebstrap --quiet --architectures="$ARCH" --aptopt='Acquire::Languages "none"' --aptopt='APT::Sandbox::User "root"' "$@" >&2
}

# Unpack the loaders of the medium out of their packages, which lie in tools/, into the folder tools.
unpack_tools() { for file in tools/*.deb; do dpkg-deb -x "$file" tools; rm "$file"; done; }
loader_packages() { if [ "$ARCH" = amd64 ]; then echo isolinux:all syslinux-common:all "grub-efi-$ARCH-bin"; else echo "grub-efi-$ARCH-bin"; fi; }

# write_iso LABEL KERNEL ARGUMENTS: the folder iso, with boot menus that start /$folder/KERNEL and initrd.gz, becomes $OUT.
write_iso() {
    mkdir -p iso/.disk iso/boot/grub
    fill() { sed -e "s|@folder@|$folder|" -e "s|@kernel@|$2|" -e "s|@arguments@|$3|" "$1"; }
    fill "$RECIPE/../common/grub.cfg" "$2" "$3" >iso/boot/grub/grub.cfg
    rm -f iso/boot/grub/efi.img
    mkfs.fat -C iso/boot/grub/efi.img 4096 >/dev/null
    mmd -i iso/boot/grub/efi.img ::EFI ::EFI/BOOT
    mcopy -i iso/boot/grub/efi.img "tools/usr/lib/grub/$efi/monolithic/$cd_loader" "::EFI/BOOT/$loader"
    set -- "$1" "$2" "$3" -e boot/grub/efi.img -no-emul-boot
    if [ "$ARCH" = amd64 ]; then
        mkdir -p iso/isolinux
        cp tools/usr/lib/ISOLINUX/isolinux.bin tools/usr/lib/syslinux/modules/bios/ldlinux.c32 "$RECIPE/../common/isolinux.cfg" iso/isolinux/
        fill "$RECIPE/../common/txt.cfg" "$2" "$3" >iso/isolinux/txt.cfg
        set -- "$1" "$2" "$3" -isohybrid-mbr tools/usr/lib/ISOLINUX/isohdpfx.bin -b isolinux/isolinux.bin -c isolinux/boot.cat \
            -no-emul-boot -boot-load-size 4 -boot-info-table -eltorito-alt-boot -e boot/grub/efi.img -no-emul-boot -isohybrid-gpt-basdat
    fi
    label=$1
    shift 3
    xorriso -as mkisofs -quiet -r -J -joliet-long -V "$label" -o "$OUT" "$@" iso >&2
}
