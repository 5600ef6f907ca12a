# Shared by the benchmarks that compare whole commands; sourced, never run.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/common.sh"

# timed FIGURES COMMAND: runs a command line; appends "wall cpu rss_kib" to the file of its figures.
# CPU is that of the processes that it starts, so not of servers. Needs $work, a folder.
timed() {
    local figures=$1 command=$2
    "$(type -P time)" -q -o "$work/time" -f '%e %U %S %M' bash -o pipefail -c "$command" >/dev/null 2>"$work/log" ||
        { cat "$work/log" >&2; die "failed: $command"; }
    awk '{ print $1, $2 + $3, $4 }' "$work/time" >>"$figures"
}

# median FILE COLUMN
median() { sort -n -k "$2,$2" "$1" | awk -v c="$2" '{ v[NR] = $c } END { m = int((NR + 1) / 2); print (NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2) }'; }

# text BYTES WIDTH: random base64 digits, the same ones every time, in lines of WIDTH digits (0: all in
# one). Nothing repeats, so compression leaves three quarters of them.
text() {
    local zeros
    zeros=$(printf %032d 0)
    head -c $(($1 / 4 * 3)) /dev/zero | openssl enc -aes-128-ctr -K "$zeros" -iv "$zeros" | base64 -w "$2"
}
