# modules.dep, then modules.alias -> the same two files for some modules (-v wanted="a b ...") and all that they need, into -v out=FOLDER,
# and on standard output the files of these modules.
function add(file,    part, n, i) {
    if (file in chosen || !(file in needs)) return
    chosen[file] = 1
    n = split(needs[file], part, " ")
    for (i = 1; i <= n; i++) add(part[i])
}
function name_of(file) { sub(/.*\//, "", file); sub(/\.ko.*/, "", file); gsub(/-/, "_", file); return file }
FILENAME ~ /modules\.dep$/ { file = $1; sub(/:$/, "", file); sub(/^[^:]*: ?/, ""); needs[file] = $0; path[name_of(file)] = file; next }
!chosen_all { n = split(wanted, name, " "); for (i = 1; i <= n; i++) { gsub(/-/, "_", name[i]); if (name[i] in path) add(path[name[i]]) } chosen_all = 1; for (file in chosen) have[name_of(file)] = 1 }
$1 == "alias" && ($3 in have) { print > (out "/modules.alias") }
END { for (file in chosen) { print file; print file ": " needs[file] > (out "/modules.dep") } }
