# debconf's answer file -> shell assignments. A line: owner question type value; "\" at its end joins the next line.
function assign(question, value) {
    sub(/^.*\?/, "", question)
    gsub(/[^a-zA-Z0-9]/, "_", question)
    gsub(/'/, "'\\''", value)
    print "A_" question "='" value "'"
}
function bad(why) { print "error: Cannot parse line " start ": " why > "/dev/stderr"; failed = 1; exit 1 }
function read_line(text,    owner, question, type) {
    if (text ~ /^[ \t]*(#|$)/) return
    sub(/^[ \t]+/, "", text)
    owner = text; sub(/[ \t].*/, "", owner)
    if (!sub(/^[^ \t]+[ \t]+/, "", text)) bad("there is an owner and no question: " owner)
    question = text; sub(/[ \t].*/, "", question)
    if (!sub(/^[^ \t]+[ \t]+/, "", text)) bad("there is no type: " owner " " question)
    type = text; sub(/[ \t].*/, "", type)
    if (type !~ /^(string|boolean|select|multiselect|note|text|password|title|error|seen)$/) bad("unknown type '" type "' of " question)
    sub(/^[^ \t]+[ \t]?/, "", text)
    if (type == "seen") return
    if (type == "boolean" && text !~ /^(true|false)[ \t]*$/) bad(question " is neither true nor false")
    if (type == "boolean" || type == "select") sub(/[ \t]+$/, "", text)
    if (owner == "d-i" || question ~ /^(tasksel|pkgsel)\//) assign(question, text)
    else print owner "\t" question "\t" type "\t" text > "/run/installer/selections"
}
{
    sub(/\r$/, "")
    if (joined == "") start = NR
    if ($0 ~ /^[ \t]*#/ && joined == "") next
    if (sub(/\\$/, "")) { joined = joined $0; if (joined == "") joined = " "; next }
    text = joined $0; joined = ""
    read_line(text)
}
END { if (!failed && joined != "") read_line(joined) }
