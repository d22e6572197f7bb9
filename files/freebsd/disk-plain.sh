# One disk, GPT, what boots it first (bsdinstall makes that itself), the root file system last so that it can grow; no swap.
PARTITIONS="vtbd0 gpt { auto freebsd-ufs / }"
