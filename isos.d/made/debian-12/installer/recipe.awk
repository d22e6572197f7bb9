# partman-auto's recipe -> lines "number start_mib length_mib method filesystem mountpoint". Sizes in a recipe are MB: least, weight, most
# (-1: all that is left). What is left is shared by weight, as partman does.
function fail(why) { print why; exit_code = 1; exit 1 }
function mib(mb) { return int((mb * 1000000 + 1048575) / 1048576) }
{ text = text " " $0 }
END {
    if (exit_code) exit 1
    sub(/^[^:]*::/, "", text)
    count = split(text, word, /[ \t]+/)
    n = 0
    for (i = 1; i <= count; i++) {
        if (word[i] == "") continue
        n++
        least[n] = word[i]; weight[n] = word[i + 1]; most[n] = word[i + 2]; system_[n] = word[i + 3]; i += 4
        if (least[n] !~ /^[0-9]+%?$/ || weight[n] !~ /^[0-9]+%?$/ || most[n] !~ /^-?[0-9]+%?$/) fail("The recipe cannot be read near '" least[n] " " weight[n] " " most[n] "'.")
        method[n] = "-"; mount[n] = "-"; keep[n] = 1
        for (; i <= count && word[i] != "."; i++) {
            key = word[i]
            if (key !~ /\{$/) continue
            value = ""
            for (i++; i <= count && word[i] !~ /^\}$/; i++) value = value (value == "" ? "" : " ") word[i]
            if (i > count) fail("The recipe lacks a '}' after " key ".")
            if (key == "method{") method[n] = value
            if (key == "filesystem{") system_[n] = value
            if (key == "mountpoint{") mount[n] = value
            if (key == "$iflabel{" && value != label) keep[n] = 0
        }
        if (i > count) fail("The recipe's last partition does not end in ' .'.")
        if (method[n] == "biosgrub" && label != "gpt") keep[n] = 0
        if (method[n] == "biosgrub" || method[n] == "efi" || method[n] == "swap" || system_[n] == "linux-swap") { if (system_[n] == "linux-swap") method[n] = "swap" }
        else if (keep[n] && system_[n] != "ext4") fail("The recipe wants a file system " system_[n] ": this medium makes ext4 only.")
        if (!keep[n]) n--
        else {
            if (least[n] ~ /%/) fail("The recipe's sizes in % of the memory are not known to this medium.")
            length_[n] = mib(least[n]); if (length_[n] < 1) length_[n] = 1
            if (mount[n] == "/") have_root = n
        }
    }
    if (!have_root) fail("No root file system is defined.")
    free = size_mib - 2
    for (i = 1; i <= n; i++) free -= length_[i]
    if (free < 0) fail("The disk has " size_mib " MiB, too small for the recipe.")
    for (again = 1; again && free > 0; ) {
        again = 0; total = 0
        for (i = 1; i <= n; i++) { share[i] = weight[i] - least[i]; if (share[i] < 0 || done[i]) share[i] = 0; total += share[i] }
        if (total == 0) break
        for (i = 1; i <= n; i++) if (share[i] && most[i] >= 0 && length_[i] + free * share[i] / total > mib(most[i])) {
            free -= mib(most[i]) - length_[i]; length_[i] = mib(most[i]); done[i] = 1; again = 1; break
        }
        if (!again) { for (i = 1; i <= n; i++) length_[i] += int(free * share[i] / total) }
    }
    at = 1
    for (i = 1; i <= n; i++) { print i, at, length_[i], method[i], system_[i], mount[i]; at += length_[i] }
}
