# One disk, GPT, the root file system last so that it can grow; no swap.
PARTITIONS="vtbd0 gpt { E>'200M efi, ' if firmware == 'uefi' else '512K freebsd-boot, '<Eauto freebsd-ufs / }"
