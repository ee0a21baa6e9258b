# shellcheck shell=bash
# What every script that builds begins with:
#
#     source "$(dirname "${BASH_SOURCE[0]}")/lib/prepare.sh"
#     prepare_build
#
# It gives `root` (the repository) and `cache` (what outlives a clone), checks that the build's
# needs are there, and points cargo at the one RocksDB that is compiled for everything.
# shellcheck source-path=SCRIPTDIR

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# shellcheck source=terminal.sh
source "$root/scripts/lib/terminal.sh"
# shellcheck source=needs.sh
source "$root/scripts/lib/needs.sh"
# shellcheck source=rocksdb.sh
source "$root/scripts/lib/rocksdb.sh"

# RINGDOVE_CACHE decides; otherwise the user's cache directory; and where neither can be written
# (a build user without a home), the clone itself, so that everything still works, once per clone.
cache="${RINGDOVE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/ringdove}"
if ! mkdir -p "$cache" 2>/dev/null || [[ ! -w $cache ]]; then
    say "$cache cannot be written; keeping RocksDB in $root/target/cache instead"
    cache="$root/target/cache"
    mkdir -p "$cache"
fi
cache="$(cd "$cache" && pwd)" # cargo is called from elsewhere: a relative path would move

prepare_build() {
    needs_build
    rocksdb_prebuilt
}
