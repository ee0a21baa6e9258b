"""What a scenario and a seed make of time, decided before anything starts: when which fault begins
and ends, on which nodes, and with what each group of clients is started. The same scenario, seed
and length give the same plan, byte for byte."""

import dataclasses
import itertools
import random

# How much of each time of a scenario is left by `--short`, and how soon failures are then noticed.
SHORT = 0.25
SHORT_SETTINGS = {
    "gossip.probe_interval_ms": 250,
    "gossip.probe_timeout_ms": 100,
    "gossip.suspicion_ms": 1000,
}
# Settings of every node in the lab; a scenario may lay others over them. The partitions are few
# so that a comparison of all owners is quick; owners compare more often than every half minute
# because an evening in the lab is short.
SETTINGS = {
    "cluster.partitions": 128,
    "storage.cache_mb": 16,
    "storage.memtable_mb": 16,
    "sync.interval_s": 5,
    "node.threads": 2,
    "log.level": "info",
}
# Faults begin up to so many seconds late, so that no two seeds meet the same instant.
JITTER_S = 0.5


@dataclasses.dataclass
class Step:
    """Something that is done at a time, and undone at another unless it ends by itself."""

    at: float
    until: float | None
    do: str
    fields: dict
    label: str
    # Where the random choices of an injected fault come from.
    seed: int


@dataclasses.dataclass
class Clients:
    """A group of clients: whom they ask, and the arguments of `ringdove load`."""

    side: str
    nodes: list
    bucket: str
    arguments: list


@dataclasses.dataclass
class Plan:
    name: str
    seed: int
    seconds: float
    settings: dict
    steps: list
    clients: list

    def lines(self):
        """The plan in words."""
        yield f"{self.name}, seed {self.seed}, {self.seconds:g} s of load"
        events = [(step.at, 0, f"begin {step.label}") for step in self.steps]
        events += [(step.until, 1, f"end   {step.label}") for step in self.steps if step.until]
        for at, _, what in sorted(events):
            yield f"  {at:8.3f} s  {what}"
        for clients in self.clients:
            yield f"  {clients.side} at {' '.join(clients.nodes)}: load {' '.join(clients.arguments)}"


def make(scenario, seed, short=False):
    """The plan of a scenario."""
    lot = random.Random(f"{seed}/{scenario.name}")
    scale = SHORT if short else 1.0
    seconds = max(round(scenario.seconds * scale), 4)
    steps = []
    for row in scenario.timeline:
        steps += _steps(scenario, row, scale, seconds, lot)
    steps.sort(key=lambda step: step.at)
    settings = SETTINGS | (SHORT_SETTINGS if short else {}) | scenario.settings
    clients = [_clients(scenario, row, seconds, lot) for row in scenario.clients]
    return Plan(scenario.name, seed, seconds, settings, steps, clients)


def _steps(scenario, row, scale, seconds, lot):
    """A line of the timeline as steps; a link that flaps is several."""
    fields = {
        name: _picked(scenario, value, lot)
        for name, value in row.fields.items()
        if name not in ("at", "for", "do")
    }
    jitter = lot.uniform(0, JITTER_S * scale)
    at = row["at"] * scale + jitter
    until = None
    if "for" in row.fields:
        until = min((row["at"] + row["for"]) * scale + jitter, seconds)
    if row.what != "flap":
        return [_step(at, until, row.what, fields, lot)]
    made, down, up = [], fields.pop("down"), fields.pop("up")
    for is_down in itertools.cycle((True, False)):
        lasts = lot.uniform(*(down if is_down else up)) * scale
        ends = min(at + lasts, until)
        if is_down:
            made.append(_step(at, ends, "split", fields, lot))
        at = ends
        if at >= until:
            return made


def _step(at, until, do, fields, lot):
    at, until = round(at, 3), None if until is None else round(until, 3)
    return Step(at, until, do, fields, LABELS[do](fields), lot.getrandbits(32))


def _picked(scenario, value, lot):
    """`any` becomes a node that the seed chooses."""
    if value == "any":
        return lot.choice(scenario.nodes)
    if isinstance(value, list) and "any" in value:
        left = [node for node in scenario.nodes if node not in value]
        return [lot.choice(left) if node == "any" else node for node in value]
    return value


def _all(fields):
    return " ".join(fields["nodes"])


LABELS = {
    "split": lambda fields: " | ".join(" ".join(group) for group in fields["sides"]),
    "cut": lambda fields: f"{' '.join(fields['from'])} not heard by {' '.join(fields['to'])}"
    + ("" if fields["share"] == 1 else f" ({100 * fields['share']:g} % lost)"),
    "only": lambda fields: "only " + " ".join("-".join(pair) for pair in fields["links"]),
    "delay": lambda fields: f"{_all(fields)} {fields['by']} late",
    "throttle": lambda fields: f"{_all(fields)} at {fields['to']} a second",
    "slow-disk": lambda fields: f"disk of {_all(fields)} {fields['by']} slow",
    "full-disk": lambda fields: f"disk of {_all(fields)} full",
    "clock": lambda fields: f"clock of {_all(fields)} {fields['by']}",
    "freeze": lambda fields: f"{_all(fields)} stands still",
    "crash": lambda fields: f"{_all(fields)} killed",
    "lose-disk": lambda fields: f"{_all(fields)} loses its disk",
    "restart": lambda fields: f"restart {_all(fields)}",
    "join": lambda fields: f"{_all(fields)} joins",
    "leave": lambda fields: f"{_all(fields)} leaves",
    "replace": lambda fields: f"{fields['by']} replaces {fields['node']}",
}


def _clients(scenario, row, seconds, lot):
    bucket = next(bucket for bucket in scenario.buckets if bucket.what == row["bucket"])
    arguments = [
        "--bucket", bucket.what,
        "--mix", row["mix"],
        "--rate", row["rate"],
        "--duration", f"{seconds:g}s",
        "--connections", row["connections"],
        "--keys", row["keys"],
        "--distribution", row["distribution"],
        "--value-size", row["value"],
        "--context", row["contexts"],
        "--r", row["r"] or bucket["r"],
        "--w", row["w"] or bucket["w"],
        "--seed", lot.getrandbits(32),
    ]
    if (row["mode"] or bucket["mode"]) == "strict":
        arguments.append("--strict")
    return Clients(row.what, row["nodes"], bucket.what, [str(word) for word in arguments])
