# shellcheck shell=bash
# One RocksDB for everything.
#
# Left alone, cargo compiles RocksDB (350 C++ files, 20 minutes of processor time) again for every
# profile, every clone and every change of flags. Here it is compiled once for each version, kept in
# `$cache/rocksdb-VERSION` (the archive and the headers that belong to it), and every cargo that
# runs after `rocksdb_prebuilt` links that. `./scripts/dev clean-cache` forgets it: needed after a
# change of the compression features of `rocksdb` in Cargo.toml, which the version does not show.
# shellcheck disable=SC2154 # root and cache are prepare.sh's

rocksdb_prebuilt() {
    # Whoever points at an archive of their own knows why.
    [[ -z ${ROCKSDB_LIB_DIR:-} ]] || return 0
    local version directory
    version="$(rocksdb_version)"
    [[ -n $version ]] || fail "Cargo.lock names no rust-librocksdb-sys; is it the committed one?"
    directory="$cache/rocksdb-$version"
    rocksdb_is_in "$directory" || (rocksdb_compile "$directory")
    export ROCKSDB_LIB_DIR="$directory" ROCKSDB_INCLUDE_DIR="$directory/include" ROCKSDB_STATIC=1
}

rocksdb_version() {
    sed -n '/^name = "rust-librocksdb-sys"$/{n;s/^version = "\(.*\)"$/\1/p;}' "$root/Cargo.lock"
}

rocksdb_is_in() { [[ -f $1/librocksdb.a && -f $1/include/rocksdb/c.h ]]; }

# Runs in a subshell: the lock, the trap and the directory end with it.
rocksdb_compile() {
    local directory="$1" build="$cache/rocksdb-build" log="$cache/rocksdb-build.log"
    local crate lock started=$SECONDS watcher cxxflags="${CXXFLAGS:-}"
    exec {lock}>"$cache/rocksdb.lock"
    if ! flock --nonblock "$lock"; then
        say "Another script is compiling RocksDB; waiting for it to finish."
        flock "$lock"
    fi
    # The other one may have made it meanwhile.
    ! rocksdb_is_in "$directory" || return 0

    say "RocksDB is compiled once, about 10 minutes on two cores; progress below."
    cd "$root" || exit
    crate="$(rocksdb_crate)" || fail "could not fetch the dependencies; see above."
    # Without these RocksDB computes its checksums by table. Every x86 server since 2010 has them.
    [[ $(uname -m) != x86_64 ]] || cxxflags+=" -msse4.2 -mpclmul"

    rocksdb_watch "$build" $(($(wc -l <"$crate/rocksdb_lib_sources.txt") + 2)) &
    watcher=$!
    # shellcheck disable=SC2064 # the watcher of now
    trap "kill $watcher 2>/dev/null || true" EXIT
    env -u ROCKSDB_INCLUDE_DIR -u ROCKSDB_STATIC -u ROCKSDB_COMPILE -u ROCKSDB_USE_PKG_CONFIG \
        CXXFLAGS="${cxxflags# }" cargo build --release --locked --package rust-librocksdb-sys \
        --target-dir "$build" >"$log" 2>&1 || {
        kill "$watcher" 2>/dev/null || true
        tail -n 40 "$log" >&2
        fail "RocksDB did not compile; the lines above are the end of $log"
    }
    kill "$watcher" 2>/dev/null || true
    wait "$watcher" || true
    rocksdb_keep "$build" "$crate" "$directory"
    rm -rf "$build" "$log"
    say "RocksDB is ready after $(duration $((SECONDS - started))), kept in $directory"
}

# Where cargo unpacked (or a vendored tree holds) the sources.
rocksdb_crate() {
    local manifest
    manifest="$(cargo metadata --format-version 1 --locked |
        grep -o '"manifest_path":"[^"]*/rust-librocksdb-sys[^"/]*/Cargo.toml"')" || return 1
    manifest="${manifest#*:\"}"
    printf '%s' "${manifest%/Cargo.toml\"}"
}

# Puts the archive and headers in place in one step, so that nobody ever sees half of them.
rocksdb_keep() {
    local build="$1" crate="$2" directory="$3" out staged archive member
    # The newest, should a broken-off attempt with other flags have left another.
    # shellcheck disable=SC2012 # names made by cargo: no surprises in them
    out="$(dirname "$(ls -t "$build"/release/build/rust-librocksdb-sys-*/out/librocksdb.a | head -n 1)")"
    staged="$(mktemp -d "$cache/.rocksdb-XXXXXX")"
    # On ARM the checksum routines are an archive of their own; cargo would link only the first.
    (
        cd "$out" || exit
        {
            echo "CREATE librocksdb-all.a"
            for archive in librocksdb.a librocksdb_*.a; do
                [[ ! -f $archive ]] || echo "ADDLIB $archive"
            done
            printf 'SAVE\nEND\n'
        } | ar -M
        mv librocksdb-all.a "$staged/librocksdb.a"
    )
    # The binding builds this one member itself when it links a finished archive.
    member="$(ar t "$staged/librocksdb.a" | grep 'c_api_extensions\.o$')" ||
        fail "the archive of RocksDB has no c_api_extensions.o: rust-librocksdb-sys has changed," \
            "and scripts/lib/rocksdb.sh has to follow it."
    ar d "$staged/librocksdb.a" "$member"
    cp -R "$crate/rocksdb/include" "$staged/include"
    chmod -R u+w,go+rX "$staged"
    # Left over only when something had removed parts of it.
    rm -rf "$directory"
    mv -T "$staged" "$directory"
}

# One line that is rewritten on a terminal, a line every half minute elsewhere. Ends with its parent.
rocksdb_watch() {
    local build="$1" total="$2" started=$SECONDS last='' pause=30 parent=$$ objects line sleeping=''
    [[ ! -t 1 ]] || pause=2
    trap '[[ ! -t 1 ]] || echo; kill $sleeping 2>/dev/null || true; exit 0' TERM
    while kill -0 "$parent" 2>/dev/null; do
        objects="$(find "$build/release/build" -path '*/rust-librocksdb-sys-*/out/*.o' 2>/dev/null | wc -l)"
        line="  RocksDB: $objects of about $total files compiled, $(duration $((SECONDS - started)))"
        ((objects > 0)) || line="  RocksDB: building the tools that its build needs"
        if [[ -t 1 ]]; then printf '\r%s\e[K' "$line"; elif [[ $line != "$last" ]]; then say "$line"; fi
        last="$line"
        sleep "$pause" &
        sleeping=$!
        wait "$sleeping"
    done
}
