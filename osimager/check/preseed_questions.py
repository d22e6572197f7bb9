"""The questions of debian-installer that a preseed file may answer, each with its debconf type.

Source: Debian Installation Guide (bookworm, trixie), appendix B.4 and its example files; the udebs' own
templates, of which those of base-installer, pkgsel and five of partman in bookworm were compared by type.
"""

from __future__ import annotations

from typing import Final

TYPES: Final = frozenset(("boolean", "error", "multiselect", "note", "password", "select", "string", "text", "title"))
OWNERS: Final = frozenset(
    ("d-i", "tasksel", "popularity-contest", "grub-pc", "grub-efi-amd64", "console-setup", "keyboard-configuration")
)

_STRINGS: Final = """
    partman-auto/method debian-installer/language debian-installer/country debian-installer/locale
    debian-installer/add-kernel-opts debian-installer/splash debian-installer/theme
    localechooser/preferred-locale netcfg/dhcp_timeout netcfg/dhcpv6_timeout netcfg/link_wait_timeout
    netcfg/dhcp_hostname netcfg/get_ipaddress netcfg/get_netmask netcfg/get_gateway netcfg/get_nameservers
    netcfg/get_hostname netcfg/hostname netcfg/get_domain netcfg/wireless_wep netcfg/wireless_essid
    netcfg/wireless_wpa netcfg/vlan_id network-console/authorized_keys_url mirror/http/hostname
    mirror/http/directory mirror/http/proxy mirror/https/hostname mirror/https/directory mirror/https/proxy
    mirror/ftp/hostname mirror/ftp/directory mirror/ftp/proxy passwd/user-fullname passwd/username
    passwd/user-uid passwd/user-default-groups clock-setup/ntp-server partman-auto/disk
    partman-auto/expert_recipe partman-auto/expert_recipe_file partman-auto-raid/recipe
    partman-auto-lvm/guided_size partman-auto-lvm/new_vg_name partman-partitioning/default_label
    partman/default_filesystem partman/early_command partman-auto/cap-ram base-installer/kernel/override-image
    base-installer/kernel/image base-installer/includes apt-setup/security_host apt-setup/security_path
    apt-setup/volatile_host apt-setup/local0/repository apt-setup/local0/comment apt-setup/local0/key
    apt-setup/local1/repository apt-setup/local1/comment apt-setup/local1/key pkgsel/include
    grub-installer/bootdev grub-installer/timeout finish-install/keep-consoles preseed/include
    preseed/include_command preseed/include/checksum preseed/early_command preseed/late_command preseed/run
    preseed/run/checksum ubiquity/success_command ubiquity/failure_command
"""
_BOOLEANS: Final = """
    pkgsel/run_tasksel pkgsel/updatedb base-installer/use_unclean_target partman-lvm/confirm_nochanges
    netcfg/enable netcfg/disable_autoconfig netcfg/disable_dhcp netcfg/confirm_static netcfg/use_autoconfig
    netcfg/wireless_show_essids hw-detect/load_firmware hw-detect/load_media network-console/start
    passwd/root-login passwd/make-user passwd/shadow passwd/allow-password-empty user-setup/allow-password-weak
    user-setup/encrypt-home user-setup/allow-password-empty clock-setup/utc clock-setup/utc-auto clock-setup/ntp
    console-setup/ask_detect partman-auto-lvm/no_boot partman-lvm/device_remove_lvm partman-lvm/confirm
    partman-lvm/confirm_nooverwrite partman-md/device_remove_md partman-md/confirm
    partman-md/confirm_nooverwrite partman-md/confirm_nochanges partman-partitioning/confirm_write_new_label
    partman-partitioning/no_bootable_gpt_biosgrub partman-partitioning/no_bootable_gpt_efi
    partman-partitioning/confirm_new_label partman-basicfilesystems/no_swap partman-basicmethods/method_only
    partman-efi/non_efi_system partman/confirm partman/confirm_nooverwrite partman/confirm_nochanges
    base-installer/install-recommends apt-setup/non-free apt-setup/non-free-firmware apt-setup/contrib
    apt-setup/cdrom/set-first apt-setup/cdrom/set-next apt-setup/cdrom/set-failed apt-setup/cdrom/set-double
    apt-setup/disable-cdrom-entries apt-setup/use_mirror apt-setup/no_mirror
    apt-setup/enable-source-repositories apt-setup/universe apt-setup/multiverse apt-setup/restricted
    apt-setup/backports apt-setup/local0/source apt-setup/local1/source apt-setup/multiarch
    debian-installer/allow_unauthenticated debian-installer/allow_unauthenticated_ssl
    debian-installer/framebuffer debian-installer/exit/halt debian-installer/exit/poweroff
    debian-installer/exit/reboot popularity-contest/participate grub-installer/skip grub-installer/only_debian
    grub-installer/with_other_os grub-installer/force-efi-extra-removable grub2/update_nvram
    grub2/force_efi_extra_removable grub-installer/make_active cdrom-detect/eject cdrom-detect/try-usb
    pkgsel/install-language-support anna/no_kernel_modules oem-config/enable ubiquity/reboot ubiquity/poweroff
    ubiquity/minimal_install
"""
_SELECTS: Final = """
    partman/alignment partman-auto/automatically_partition keyboard-configuration/xkb-keymap
    keyboard-configuration/layoutcode keyboard-configuration/variantcode keyboard-configuration/modelcode
    keyboard-configuration/toggle netcfg/choose_interface netcfg/wireless_essid_again mirror/country
    mirror/protocol mirror/suite mirror/udeb/suite mirror/codename mirror/http/mirror mirror/http/countries
    mirror/https/countries time/zone partman-auto/choose_recipe partman-auto/init_automatically_partition
    partman/choose_partition partman/mount_style partman-auto/select_disk pkgsel/upgrade pkgsel/update-policy
    pkgsel/language-packs base-installer/initramfs-tools/driver-policy grub-installer/choose_bootdev
    debconf/priority debconf/frontend
"""
_MULTISELECTS: Final = """
    localechooser/supported-locales apt-setup/services-select tasksel/first anna/choose_modules
    partman-auto-crypto/erase_disks
"""
_PASSWORDS: Final = """
    passwd/root-password passwd/root-password-again passwd/root-password-crypted passwd/user-password
    passwd/user-password-again passwd/user-password-crypted network-console/password
    network-console/password-again grub-installer/password grub-installer/password-again
    grub-installer/password-crypted partman-crypto/passphrase partman-crypto/passphrase-again
"""

QUESTIONS: Final = {
    **dict.fromkeys(_STRINGS.split(), "string"),
    **dict.fromkeys(_BOOLEANS.split(), "boolean"),
    **dict.fromkeys(_SELECTS.split(), "select"),
    **dict.fromkeys(_MULTISELECTS.split(), "multiselect"),
    **dict.fromkeys(_PASSWORDS.split(), "password"),
    "finish-install/reboot_in_progress": "note",
}
