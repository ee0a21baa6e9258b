"""A scenario: a file of `scripts/partition`, read and checked.

What can stand in a file is in the tables below, a row for each field: its kind, and its value where
it may be left out. An error names the file, the line, the field, and what to write instead."""

import dataclasses
import difflib
import pathlib
import re
import tomllib

from .program import ROOT
from .terminal import Trouble

DIRECTORY = ROOT / "scripts" / "partition"
NEEDED = object()

# --- Kinds of values: from what TOML gives to what the lab uses, or a sentence of what is wrong ----


class Wrong(Exception):
    """What a value should be."""


def text(value):
    if not isinstance(value, str) or not value.strip():
        raise Wrong("a text")
    return value.strip()


def number(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise Wrong("a number, 0 or more")
    return value


def whole(value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise Wrong("a whole number, 0 or more")
    return value


def level(value):
    if value in ("one", "quorum", "all") or isinstance(value, int) and 1 <= value <= 13:
        return str(value)
    raise Wrong('a number of replicas, or "one", "quorum", "all"')


def share(value):
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise Wrong("a share, above 0 and up to 1")


def span(value):
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(ms|s|m|h)", value):
        return value
    raise Wrong('a time, as "50ms", "10s" or "-1h"')


def size(value):
    if isinstance(value, str) and re.fullmatch(r"\d+(B|KiB|MiB)?", value):
        return value
    raise Wrong('a size, as "64KiB"')


def names(value):
    """`n1 n2 n3`"""
    found = text(value).split()
    if len(set(found)) != len(found):
        raise Wrong("names of nodes with a space between, each once")
    return found


def groups(value):
    """`n1 n2 n3 | n4 n5`"""
    found = [part.split() for part in text(value).split("|")]
    every = [node for group in found for node in group]
    if len(found) < 2 or not all(found) or len(set(every)) != len(every):
        raise Wrong('groups of nodes with a bar between, as "n1 n2 n3 | n4 n5", each node once')
    return found


def links(value):
    """`n1-n2 n2-n3`"""
    found = [tuple(pair.split("-")) for pair in text(value).split()]
    if not all(len(pair) == 2 and pair[0] != pair[1] and all(pair) for pair in found):
        raise Wrong('pairs of nodes, as "n1-n2 n2-n3"')
    return found


def limits(value):
    """`[1, 4]`: from, to"""
    if isinstance(value, list) and len(value) == 2 and 0 < number(value[0]) <= number(value[1]):
        return tuple(value)
    raise Wrong("two numbers of seconds in order, as [1, 4]")


def one_of(*words):
    def kind(value):
        if value in words:
            return value
        raise Wrong(" or ".join(f'"{word}"' for word in words))

    return kind


def table(value):
    if isinstance(value, dict):
        return value
    raise Wrong("a table")


# --- What can stand where -------------------------------------------------------------------------

TOP = {
    "title": (text, NEEDED),
    "teaches": (text, NEEDED),
    "seconds": (number, 60),
    "cluster": (table, NEEDED),
    "buckets": (table, NEEDED),
    "clients": (list, NEEDED),
    "timeline": (list, []),
    "holds": (list, NEEDED),
}

CLUSTER = {
    "nodes": (whole, NEEDED),
    "zones": (names, None),
    # Nodes that are not there at the start: they join, or take the place of one.
    "spares": (whole, 0),
    "settings": (table, {}),
}

BUCKET = {
    "n": (whole, 3),
    "r": (level, "quorum"),
    "w": (level, "quorum"),
    "mode": (one_of("sloppy", "strict"), "sloppy"),
    "conflicts": (one_of("siblings", "lww"), "siblings"),
}

CLIENTS = {
    "side": (text, NEEDED),
    "nodes": (names, NEEDED),
    "bucket": (text, None),
    "mix": (text, NEEDED),
    "rate": (whole, NEEDED),
    "keys": (whole, NEEDED),
    "contexts": (one_of("fresh", "blind", "kept", "observed"), "fresh"),
    "distribution": (one_of("zipfian", "uniform", "latest", "hotspot"), "uniform"),
    "value": (text, "100"),
    "connections": (whole, 1),
    "r": (level, None),
    "w": (level, None),
    "mode": (one_of("sloppy", "strict"), None),
}

# What can be done, with its fields; `for` stands with those that end by themselves.
LASTING, DONE = {"for": (number, NEEDED)}, {}
ACTIONS = {
    # The network.
    "split": {"sides": (groups, NEEDED)} | LASTING,
    "cut": {"from": (names, NEEDED), "to": (names, NEEDED), "share": (share, 1.0)} | LASTING,
    "only": {"links": (links, NEEDED)} | LASTING,
    "flap": {"sides": (groups, NEEDED), "down": (limits, NEEDED), "up": (limits, NEEDED)} | LASTING,
    "delay": {"nodes": (names, NEEDED), "by": (span, NEEDED), "jitter": (span, "0ms")} | LASTING,
    "throttle": {"nodes": (names, NEEDED), "to": (size, NEEDED)} | LASTING,
    # A node.
    "slow-disk": {"nodes": (names, NEEDED), "by": (span, NEEDED)} | LASTING,
    "full-disk": {"nodes": (names, NEEDED)} | LASTING,
    "clock": {"nodes": (names, NEEDED), "by": (span, NEEDED)} | LASTING,
    "freeze": {"nodes": (names, NEEDED)} | LASTING,
    "crash": {"nodes": (names, NEEDED)} | LASTING,
    "lose-disk": {"nodes": (names, NEEDED)} | DONE,
    "restart": {"nodes": (names, NEEDED)} | DONE,
    # The members.
    "join": {"nodes": (names, NEEDED)} | DONE,
    "leave": {"nodes": (names, NEEDED)} | DONE,
    "replace": {"node": (text, NEEDED), "by": (text, NEEDED)} | DONE,
}

# What must hold, with its fields; `verdicts` has a function of each name.
SIDE = {"side": (text, NEEDED)}
DURING = {"during": (one_of("fault", "after", "all"), "fault"), "settle": (number, 0)}
# The 99th percentile of a second, and in which share of all seconds.
WITHIN = {"ms": (whole, NEEDED), "seconds": (share, 0.9)}
CHECKS = {
    "nothing_lost": {"bucket": (text, None)},
    "nothing_resurrected": {"bucket": (text, None)},
    "nothing_refused_happens": {"bucket": (text, None)},
    "no_stale_reads": {"bucket": (text, None)},
    "writes_never_stop": {**SIDE, "share": (share, NEEDED), **DURING},
    "refuses": {**SIDE, "share": (share, NEEDED), **DURING},
    "answers_within": {**SIDE, **WITHIN, **DURING},
    "refuses_within": {**SIDE, **WITHIN, **DURING},
    "converged_within": {"seconds": (number, NEEDED)},
    "copies_equal": {},
    "siblings_at_most": {"versions": (whole, NEEDED), "bucket": (text, None)},
    "siblings_at_least": {"versions": (whole, NEEDED), "bucket": (text, None)},
    "siblings_seen": {"keys": (whole, NEEDED)},
    "overwritten_at_least": {"writes": (whole, NEEDED), "bucket": (text, NEEDED)},
    "noticed_within": {"node": (text, NEEDED), "seconds": (number, NEEDED)},
    "members_at_the_end": {"nodes": (names, NEEDED)},
}


# --- The scenario ---------------------------------------------------------------------------------


@dataclasses.dataclass
class Row:
    """A table of the file: `what` it is (a bucket's name, an action, a check), and its fields."""

    what: str
    fields: dict

    def __getitem__(self, name):
        return self.fields[name]


@dataclasses.dataclass
class Scenario:
    number: int
    name: str
    path: pathlib.Path
    title: str
    teaches: str
    seconds: float
    nodes: list
    zones: list
    spares: list
    settings: dict
    buckets: list
    clients: list
    timeline: list
    holds: list

    @property
    def directory(self):
        return f"{self.number:02}-{self.name}"

    def setting(self):
        """The cluster and its buckets in words."""
        words = [f"{len(self.nodes)} nodes"]
        zones = list(dict.fromkeys(self.zones))
        if len(zones) > 1:
            words.append(f"{len(zones)} zones")
        for bucket in self.buckets:
            conflicts = {"siblings": "siblings", "lww": "last write wins"}[bucket["conflicts"]]
            name = f"{bucket.what}: " if len(self.buckets) > 1 else ""
            levels = f"N={bucket['n']} R={bucket['r']} W={bucket['w']}"
            words.append(f"{name}{levels} {bucket['mode']}, {conflicts}")
        return "; ".join(words)


def load_all(directory=DIRECTORY):
    """All scenarios in the order of their numbers."""
    return [load(path) for path in sorted(directory.glob("[0-9][0-9]-*.toml"))]


def chosen(scenarios, words):
    """Those that numbers, names and files mean; `all` means all."""
    if words == ["all"]:
        return scenarios
    found = []
    for word in words:
        if word.endswith(".toml"):
            found.append(load(pathlib.Path(word)))
            continue
        match = [
            scenario for scenario in scenarios
            if word in (scenario.name, scenario.directory, str(scenario.number))
            or word == f"{scenario.number:02}"
        ]
        if not match:
            near = difflib.get_close_matches(word, [scenario.name for scenario in scenarios], 1)
            raise Trouble(
                f"there is no scenario {word}" + (f"; did you mean {near[0]}?" if near else ""),
                "./scripts/partition-lab lists them",
            )
        found += match
    return found


def load(path):
    """Reads one file."""
    return _Reader(path).scenario()


class _Reader:
    def __init__(self, path):
        self.path = path
        try:
            self.source = path.read_text(encoding="utf-8")
        except OSError as error:
            raise Trouble(f"{path} cannot be read: {error.strerror}") from None
        try:
            shown = path.resolve().relative_to(ROOT)
        except ValueError:
            shown = path
        self.shown = shown
        try:
            self.document = tomllib.loads(self.source)
        except tomllib.TOMLDecodeError as error:
            raise Trouble(f"{shown} is no TOML: {error}") from None

    def scenario(self):
        match = re.fullmatch(r"(\d\d)-([a-z0-9-]+)\.toml", self.path.name)
        if not match:
            raise Trouble(f"{self.shown}: the name of a scenario's file is as 01-split-sloppy.toml")
        top = self.fields("", self.document, TOP)
        cluster = self.fields("[cluster]", top["cluster"], CLUSTER)
        nodes = [f"n{index}" for index in range(1, cluster["nodes"] + cluster["spares"] + 1)]
        zones = cluster["zones"] or ["default"]
        made = Scenario(
            number=int(match[1]),
            name=match[2],
            path=self.path,
            title=top["title"],
            teaches=" ".join(top["teaches"].split()),
            seconds=top["seconds"],
            nodes=nodes[: cluster["nodes"]],
            zones=[zones[index % len(zones)] for index in range(len(nodes))],
            spares=nodes[cluster["nodes"]:],
            settings=cluster["settings"],
            buckets=self.buckets(top["buckets"]),
            clients=self.rows("clients", top["clients"], lambda row: (row.get("side"), CLIENTS)),
            timeline=self.rows("timeline", top["timeline"], self.action),
            holds=self.rows("holds", top["holds"], self.check),
        )
        self.agree(made)
        return made

    def buckets(self, tables):
        if not tables:
            self.wrong("[buckets]", "", "there is no bucket", "write [buckets.carts]")
        return [
            Row(name, self.fields(f"[buckets.{name}]", fields, BUCKET))
            for name, fields in tables.items()
        ]

    def action(self, row):
        common = {"at": (number, NEEDED), "do": (one_of(*ACTIONS), NEEDED)}
        return row.get("do"), common | ACTIONS.get(row.get("do"), {})

    def check(self, row):
        return row.get("check"), {"check": (one_of(*CHECKS), NEEDED)} | CHECKS.get(row.get("check"), {})

    def rows(self, section, rows, known):
        made = []
        for index, row in enumerate(rows):
            what, fields = known(row)
            made.append(Row(what, self.fields(f"[[{section}]]", row, fields, index)))
        return made

    def fields(self, section, found, known, index=0):
        """The fields of a table by its rows above: checked, and filled up."""
        if not isinstance(found, dict):
            self.wrong(section, "", "a table is meant here", f"write {section} on a line of its own")
        # What says which fields there are comes first, or else all others would be called wrong.
        for name in sorted(found, key=lambda name: name not in ("do", "check")):
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean `{near[0]}`?" if near else f"it knows {', '.join(known)}"
                self.wrong(section, name, f"there is no field `{name}`", hint, index)
            kind = known[name][0]
            try:
                if kind is list and not isinstance(found[name], list):
                    raise Wrong(f"[[{name}]], as often as there are some")
                found[name] if kind is list else kind(found[name])
            except Wrong as wanted:
                said = f"`{name} = {found[name]!r}` is not understood"
                self.wrong(section, name, said, f"write {wanted}", index)
        filled = {}
        for name, (kind, default) in known.items():
            if name in found:
                filled[name] = found[name] if kind is list else kind(found[name])
            elif default is NEEDED:
                self.wrong(section, "", f"`{name}` is missing", f"add a line `{name} = …`", index)
            else:
                filled[name] = default
        return filled

    def agree(self, made):
        """What rows say of each other: nodes, sides and buckets that are there, times that fit."""
        buckets = [bucket.what for bucket in made.buckets]
        sides = [clients.what for clients in made.clients]
        every = made.nodes + made.spares
        for bucket in made.buckets:
            section = f"[buckets.{bucket.what}]"
            if not 1 <= bucket["n"] <= len(made.nodes):
                self.wrong(section, "n", f"{len(made.nodes)} nodes keep no {bucket['n']} copies",
                           f"write a number from 1 to {len(made.nodes)}")
        for index, clients in enumerate(made.clients):
            if clients["bucket"] is None and len(buckets) == 1:
                clients.fields["bucket"] = buckets[0]
            self.among("[[clients]]", "bucket", [clients["bucket"]], buckets, index)
            self.among("[[clients]]", "nodes", clients["nodes"], every, index)
            if not re.fullmatch(r"[a-z0-9-]+", clients.what) or sides.count(clients.what) > 1:
                self.wrong("[[clients]]", "side", "a side is a directory, and there is one of each",
                           "write small letters, digits and -", index)
        for index, step in enumerate(made.timeline):
            section = "[[timeline]]"
            for name, value in step.fields.items():
                for node in _nodes_in(name, value):
                    self.among(section, name, [node], [*every, "any"], index)
            if step["at"] + step.fields.get("for", 0) > made.seconds:
                self.wrong(section, "at", f"it ends after the {made.seconds} seconds are over",
                           "write an earlier time, or more `seconds` at the top", index)
        for index, check in enumerate(made.holds):
            if "side" in check.fields:
                self.among("[[holds]]", "side", [check["side"]], sides, index)
            if check.fields.get("bucket"):
                self.among("[[holds]]", "bucket", [check["bucket"]], buckets, index)

    def among(self, section, name, values, known, index):
        for value in values:
            if value not in known:
                self.wrong(section, name, f"there is no {value} here",
                           f"write one of: {', '.join(known)}", index)

    def wrong(self, section, name, what, fix, index=0):
        line = self.line_of(section, name, index)
        where = f", {section}" if section else ""
        raise Trouble(f"{self.shown}, line {line}{where}: {what}", fix)

    def line_of(self, section, name, index):
        """The line of a field, or of the head of its table."""
        lines = self.source.splitlines()
        start = 0
        if section:
            heads = [at for at, line in enumerate(lines) if line.strip().startswith(section)]
            if not heads:
                return 1
            start = heads[min(index, len(heads) - 1)]
        if name:
            for at in range(start, len(lines)):
                if at > start and lines[at].startswith("["):
                    break
                if re.match(rf"\s*{re.escape(name)}\s*=", lines[at]):
                    return at + 1
        return start + 1


def _nodes_in(name, value):
    if name in ("nodes", "from", "to") and isinstance(value, list):
        return value
    if name in ("node",) or name == "by" and isinstance(value, str) and value[:1] == "n":
        return [value]
    if name == "sides":
        return [node for group in value for node in group]
    if name == "links":
        return [node for pair in value for node in pair]
    return []
