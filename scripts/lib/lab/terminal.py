"""How the lab speaks: plain lines, colour only on a terminal, one live line that is rewritten."""

import os
import shutil
import sys
import threading

IS_TERMINAL = sys.stdout.isatty()
_COLOURS = IS_TERMINAL and not os.environ.get("NO_COLOR")
_lock = threading.Lock()
_live = False


class Trouble(Exception):
    """Ends the lab with what went wrong and what to do about it, without a traceback."""

    def __init__(self, what, *fixes):
        super().__init__(what)
        self.what, self.fixes = what, fixes


def bold(text):
    return f"\x1b[1m{text}\x1b[0m" if _COLOURS else text


def dim(text):
    return f"\x1b[2m{text}\x1b[0m" if _COLOURS else text


def good(text):
    return f"\x1b[32m{text}\x1b[0m" if _COLOURS else text


def bad(text):
    return f"\x1b[31m{text}\x1b[0m" if _COLOURS else text


def width():
    """Columns to use: 80, or fewer where the terminal has fewer."""
    return min(80, shutil.get_terminal_size((80, 24)).columns)


def say(text=""):
    """A line that stays."""
    global _live
    with _lock:
        if _live:
            sys.stdout.write("\r\x1b[K")
            _live = False
        print(text, flush=True)


def live(text):
    """The line that is rewritten: on a terminal only, elsewhere it would be a page a minute."""
    global _live
    if not IS_TERMINAL:
        return
    with _lock:
        sys.stdout.write("\r" + text[: width() - 1] + "\x1b[K")
        sys.stdout.flush()
        _live = True


def complain(trouble):
    """What went wrong in the first line, what to do in the next ones, on standard error."""
    global _live
    with _lock:
        if _live:
            sys.stdout.write("\r\x1b[K")
            _live = False
    print(f"{bad('error:')} {trouble.what}", file=sys.stderr)
    for fix in trouble.fixes:
        print(f"       {fix}", file=sys.stderr)


def wrapped(text, indent="", first=None):
    """Text in lines that fit, each behind `indent` (the first one behind `first`)."""
    lines, line = [], indent if first is None else first
    empty = True
    for word in text.split(" "):
        if not empty and len(line) + 1 + len(word) > width():
            lines.append(line)
            line, empty = indent, True
        line += word if empty else f" {word}"
        empty = False
    return "\n".join([*lines, line])


def count(number):
    """12345 as 12,345."""
    return f"{number:,}"


def share(part, whole):
    """A share in per cent, never rounded up to all of it or down to none of it."""
    if whole == 0:
        return "nothing"
    percent = 100 * part / whole
    if part != whole and percent > 99.9:
        return "over 99.9\u00a0%"
    if part and percent < 0.1:
        return "under 0.1\u00a0%"
    return f"{percent:.1f}".removesuffix(".0") + "\u00a0%"
