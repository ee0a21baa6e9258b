"""What an evening in the lab leaves behind: the JSON files of `src/load/record.rs`, and the report
that `ringdove load report` makes of them."""

import json
import os

from .terminal import Trouble


def write(path, document):
    """A file that is there as a whole or not at all."""
    staged = path.with_suffix(".part")
    with open(staged, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    os.replace(staged, path)


def write_scenario(directory, record):
    write(directory / "scenario.json", record)


def write_lab(directory, version, seed, network, scenarios):
    write(
        directory / "lab.json",
        {"program": version, "seed": seed, "network": network, "scenarios": scenarios},
    )


def make(program, directory, with_pictures):
    """The report, beside what it was made of; returns its path."""
    path = directory / "report.html"
    words = ["load", "report", str(directory), "--output", str(path)]
    if with_pictures:
        words.append("--png")
    program.run(*words, patience_s=300)
    if not path.exists():
        raise Trouble(f"`ringdove load report` has written no {path}")
    return path
