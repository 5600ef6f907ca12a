# Shared by the scripts of this project; sourced, never run.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${LIFEBELT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lifebelt}

# A clone's build goes to the cache unless the caller says otherwise, so that a second clone is
# warm and the tree stays clean.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target}

say() { printf '%s\n' "$*" >&2; }
die() { say "${0##*/}: $*"; exit 1; }

# The comment at the head of the calling script is its help.
usage() { sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$0"; }

# need PROGRAM HOW: fails unless PROGRAM is on PATH.
need() { type -P "$1" >/dev/null || die "\`$1\` is missing: $2"; }

# How this tree is called in a line of results.
commit() {
    local id
    id=$(git -C "$root" rev-parse --short=10 HEAD 2>/dev/null) || { echo unknown; return; }
    git -C "$root" diff --quiet HEAD -- 2>/dev/null || id+=-dirty
    echo "$id"
}

# bytes 1G: a size in bytes.
bytes() { numfmt --from=iec "$1" 2>/dev/null || die "not a size: $1 (as in 512M, 20G)"; }

# The program under test: LIFEBELT_BIN, or a release build of this tree.
lifebelt_binary() {
    if [ -n "${LIFEBELT_BIN:-}" ]; then
        [ -x "$LIFEBELT_BIN" ] || die "LIFEBELT_BIN=$LIFEBELT_BIN is not a program"
        printf '%s\n' "$LIFEBELT_BIN"
        return
    fi
    need cargo 'install Rust with rustup'
    (cd "$root" && cargo build --quiet --release --locked -p backup-cli --bin lifebelt) >&2
    printf '%s\n' "$CARGO_TARGET_DIR/release/lifebelt"
}

# write_config LIFEBELT DIR: fresh keys and DIR/lifebelt.toml with one sink, DIR/store; jobs are
# appended by the caller.
write_config() {
    local dir=$2
    mkdir -p "$dir"
    "$1" keygen "$dir/keys" >/dev/null
    cat >"$dir/lifebelt.toml" <<TOML
role = "operator"
state_dir = "$dir/state"
[keys]
recipients = ["$(grep -o 'age1[0-9a-z]*' "$dir/keys/recipient.txt")"]
identity_file = "$dir/keys/identity.txt"
signing_key_file = "$dir/keys/minisign.key"
trusted_keys = ["$(tail -n 1 "$dir/keys/minisign.pub")"]
[sinks.local]
type = "fs"
path = "$dir/store"
TOML
}
