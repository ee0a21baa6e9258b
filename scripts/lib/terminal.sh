# shellcheck shell=bash
# How the scripts speak: plain lines, colour only on a terminal, errors on stderr.

if [[ -t 1 && -z "${NO_COLOR:-}" ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' plain=$'\e[0m'
else
    bold='' dim='' red='' plain=''
fi

say() { printf '%s\n' "$*"; }
heading() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# What went wrong in the first line, what to do in the next ones; then the end.
fail() {
    printf '%serror:%s %s\n' "$red" "$plain" "$1" >&2
    shift
    (($# == 0)) || printf '       %s\n' "$@" >&2
    exit 1
}
# Shows a command as a person would type it, then runs it.
show_and_run() {
    printf '%s$ %s%s\n' "$dim" "$(shown "$@")" "$plain"
    "$@"
}
# A command line that can be pasted: quotes only where a shell would need them.
shown() {
    local word line=''
    for word in "$@"; do
        [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
        line+="${line:+ }$word"
    done
    printf '%s' "$line"
}
# Seconds as a person says them: 7 s, 3 min 20 s.
duration() {
    if (($1 < 60)); then printf '%d s' "$1"; else printf '%d min %d s' $(($1 / 60)) $(($1 % 60)); fi
}
