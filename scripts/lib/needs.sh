# shellcheck shell=bash
# What the build and the tests need from the machine. What is missing is named, with its reason,
# before anything is installed; when nothing is missing, nothing is printed and nothing is run.
# shellcheck disable=SC2154 # root and cache are prepare.sh's

# --- What is required: without it the script ends ------------------------------------------------

needs_build() {
    needs_rust
    missing_packages=()
    missing_reasons=()
    has_compiler || missing g++ "compiles RocksDB, which is C++"
    command -v make >/dev/null || missing make "compiles jemalloc, the memory allocator"
    has_libclang ||
        missing libclang-dev "lets bindgen read RocksDB's headers and write its Rust bindings"
    install_missing
}

# Cargo is rustup's business, not apt's: distributions ship one that is too old.
needs_rust() {
    local wanted found
    if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo ]]; then
        # Just installed, in a shell that has not read its profile again.
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    wanted="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")"
    command -v cargo >/dev/null ||
        fail "cargo is not installed; Ringdove needs Rust $wanted or newer." \
            "Get it from https://rustup.rs, open a new shell, and run this again."
    found="$(cd "$root" && cargo --version | cut -d' ' -f2)"
    at_least "$found" "$wanted" ||
        fail "cargo is $found; Ringdove needs Rust $wanted or newer." \
            "With rustup: rustup update stable" \
            "Otherwise get rustup from https://rustup.rs."
}

# clippy and rustfmt are components of their own; rustup's minimal profile leaves them out.
needs_rust_components() {
    local component
    for component in clippy rustfmt; do
        cargo "${component/rustfmt/fmt}" --version >/dev/null 2>&1 && continue
        command -v rustup >/dev/null ||
            fail "cargo ${component/rustfmt/fmt} is missing, and there is no rustup to add it with." \
                "Install $component from where this Rust came from."
        say "Adding $component to the Rust toolchain: one of the gates of the tests."
        (cd "$root" && rustup component add "$component")
    done
}

has_compiler() { command -v c++ && command -v cc && command -v ar; } >/dev/null

# Both the library and the compiler's own headers (stddef.h): bindgen needs the two.
has_libclang() {
    [[ -z ${LIBCLANG_PATH:-} ]] || return 0
    any_exists /usr/lib/llvm-*/lib/libclang.so* /usr/lib/llvm-*/lib/libclang-[0-9]*.so* \
        /usr/lib/*/libclang.so* /usr/lib/*/libclang-[0-9]*.so* /usr/lib{,64}/libclang.so* &&
        any_exists /usr/lib/llvm-*/lib/clang/*/include/stddef.h /usr/lib{,64}/clang/*/include/stddef.h
}

# --- What is optional: without it some tests are skipped, and say so -------------------------------

# Real clients and real input for the tests. Sets RINGDOVE_PYTHON to an interpreter that has
# redis-py, where that could be had.
needs_tests() {
    needs_rust_components
    optional redis-cli redis-tools "the tests talk to the text protocol with it"
    optional /usr/share/dict/american-english wamerican "104,334 words as real input"
    optional chromium chromium "opens the report of a load test, and looks whether every plot is drawn"
    optional python3 python3 "runs redis-py, a client that defaults to RESP3"
    python_with_redis
}

python_with_redis() {
    local python="$cache/python/bin/python3"
    if ! "$python" -c 'import redis' 2>/dev/null; then
        say "Installing redis-py into $cache/python: the tests use it as a real RESP3 client."
        command -v python3 >/dev/null || { skipped redis-py "there is no python3" && return; }
        python3 -c 'import ensurepip' 2>/dev/null ||
            install_packages python3-venv || { skipped redis-py "no python3-venv" && return; }
        if ! { python3 -m venv "$cache/python" &&
            "$python" -m pip install --quiet 'redis>=6,<9'; }; then
            skipped redis-py "pip could not install it"
            return
        fi
    fi
    export RINGDOVE_PYTHON="$python"
}

# optional COMMAND-OR-FILE PACKAGE WHY
optional() {
    command -v "$1" >/dev/null || [[ -e $1 ]] && return
    say "Installing $2: $3."
    install_packages "$2" || skipped "$2" "it could not be installed"
}

skipped() { say "skipped: $1 ($2); the tests that use it are skipped too."; }

# --- Installing ------------------------------------------------------------------------------------

missing() {
    missing_packages+=("$1")
    missing_reasons+=("  $1: $2")
}

install_missing() {
    ((${#missing_packages[@]})) || return 0
    say "The build needs what this machine does not have yet:"
    printf '%s\n' "${missing_reasons[@]}"
    command -v apt-get >/dev/null ||
        fail "this is not Debian or Ubuntu, so install them yourself: ${missing_packages[*]}" \
            "(these are Debian's names; elsewhere they are called gcc-c++ and clang-devel, or alike)"
    install_packages "${missing_packages[@]}" ||
        fail "could not install ${missing_packages[*]}." \
            "As root: apt-get update && apt-get install ${missing_packages[*]}"
}

# Fails without a word of its own when it cannot: the caller knows whether that matters.
install_packages() {
    command -v apt-get >/dev/null || return 1
    if any_exists /var/lib/apt/lists/*_Packages* && apt install "$@"; then return 0; fi
    [[ -z ${package_lists_fetched:-} ]] || return 1
    package_lists_fetched=yes
    say "Fetching the current package lists first."
    apt update && apt install "$@"
}

apt() {
    local as_root=() options=()
    if ((EUID != 0)); then
        command -v sudo >/dev/null || return 1
        as_root=(sudo)
    fi
    [[ $1 == update ]] || options=(--yes --no-install-recommends)
    show_and_run "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get --quiet=2 "$1" "${options[@]}" "${@:2}"
}

any_exists() {
    local path
    for path in "$@"; do [[ ! -e $path ]] || return 0; done
    return 1
}

at_least() { [[ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" == "$2" ]]; }
