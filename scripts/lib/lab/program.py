"""The ringdove that is tried: found, or built, and asked whether it has all that the lab needs."""

import json
import os
import pathlib
import subprocess

from .terminal import Trouble, say

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Program:
    """A ringdove binary."""

    def __init__(self, path):
        self.path = str(path)

    def run(self, *words, patience_s=30, good=(0,)):
        """Runs a command to its end and returns what it said; a failure is a `Trouble` that says
        which command, and what it said."""
        try:
            done = subprocess.run(
                [self.path, *words], capture_output=True, text=True, timeout=patience_s, check=False
            )
        except subprocess.TimeoutExpired:
            raise Trouble(f"`ringdove {' '.join(words)}` did not end within {patience_s} s") from None
        if done.returncode not in good:
            said = (done.stderr or done.stdout).strip().splitlines() or ["(it said nothing)"]
            raise Trouble(f"`ringdove {' '.join(words)}` ended with {done.returncode}", *said[:6])
        return done.stdout

    def answer(self, *words, patience_s=30):
        """What a command answers with `--json`."""
        return json.loads(self.run(*words, "--json", patience_s=patience_s))

    def version(self):
        return self.run("--version").strip().removeprefix("ringdove ").strip()

    def must_have(self, *parts):
        """Refuses a program without one of these commands, before anything is started."""
        for part in parts:
            known = subprocess.run(
                [self.path, *part, "--help"], capture_output=True, check=False
            ).returncode == 0
            if not known:
                raise Trouble(
                    f"{self.path} has no `{' '.join(part)}`, which the lab needs",
                    "It was built from an older tree or without its default features.",
                    "Build it anew: cargo build --release --locked",
                    "or name another one with --binary PATH",
                )


def find(named):
    """The binary that was named, or the one of this tree, built if it is behind."""
    if named:
        path = pathlib.Path(named)
        if not os.access(path, os.X_OK):
            raise Trouble(f"{named} is no program that can be run", "--binary names a built ringdove")
        return Program(path.resolve())
    build = (
        "{ source scripts/lib/prepare.sh && prepare_build &&"
        " cargo build --release --locked --quiet; } >&2 &&"
        " cargo metadata --format-version 1 --no-deps --locked"
    )
    say("Building ringdove (nothing to do if it is built).")
    done = subprocess.run(["bash", "-c", build], cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise Trouble("ringdove could not be built; see above", "--binary PATH names one that is")
    target = json.loads(done.stdout)["target_directory"]
    return Program(pathlib.Path(target) / "release" / "ringdove")
