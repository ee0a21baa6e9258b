"""What must hold, by name: each is a function from what was seen to whether it holds, in words, and
what was measured.

A verdict is of what was measured. Where nothing was, it does not hold, and says so."""

import dataclasses
import math

from . import terminal
from .terminal import count

SECOND_MS = 1000


@dataclasses.dataclass
class Side:
    """A group of clients and what it left behind."""

    name: str
    nodes: list
    bucket: str
    summary: dict
    seconds: list


@dataclasses.dataclass
class Seen:
    """Everything that a scenario has left to judge by."""

    sides: list
    # From when to when each fault was in force, milliseconds since 1970.
    faults: list
    healed_ms: int | None
    converged_ms: int | None
    looks: list
    views: list
    members: dict
    # Keys compared at the end, and of these those whose owners held different things.
    compared: int
    different: list

    def side(self, name):
        return next(side for side in self.sides if side.name == name)

    def verifications(self, bucket):
        """By bucket, what reading everything back has found: the groups of one bucket were read
        back together, and each has the same."""
        found = {}
        for side in self.sides:
            if bucket in (None, side.bucket) and side.summary.get("verification"):
                found[side.bucket] = side.summary["verification"]
        return found.values()

    def during(self, side, when, settle_s):
        """The whole seconds of a side's run in a time: while anything is broken, after, or all."""
        begin, end = self.time(when, settle_s)
        return [row for row in side.seconds if begin <= row["at_ms"] and row["at_ms"] + SECOND_MS <= end]

    def time(self, when, settle_s):
        settle_ms = int(settle_s * SECOND_MS)
        if when == "all" or not self.faults:
            return 0, 1 << 62
        if when == "after":
            return self.healed_ms + settle_ms, 1 << 62
        return min(begin for begin, _ in self.faults) + settle_ms, max(end for _, end in self.faults)


def judge(scenario, seen, scale):
    """All verdicts of a scenario; times that a check names shrink with the scenario."""
    verdicts = []
    for row in scenario.holds:
        fields = dict(row.fields)
        fields.pop("check")
        if "settle" in fields:
            fields["settle"] *= scale
        text, holds, evidence = CHECKS[row.what](seen, **fields)
        verdicts.append({"text": text, "holds": holds, "evidence": evidence})
    return verdicts


# --- What was written -----------------------------------------------------------------------------

# Of these the verification gives examples.
WRONG = ("lost", "resurrected", "refused_took_effect", "stale_reads")


def _found(seen, bucket, field):
    """A figure of the verification over these buckets, and the examples; None if nobody verified."""
    found = list(seen.verifications(bucket))
    if not found:
        return None, "nothing was read back"
    number = sum(each.get(field, 0) for each in found)
    keys = sum(each["keys"] for each in found)
    words = f"{count(number)} found in {count(keys)} keys read back"
    if number and field in WRONG:
        examples = [example for each in found for example in each.get("examples", [])]
        words += f"; {examples[0]}" if examples else ""
    return number, words


def _of(bucket):
    return f" in {bucket}" if bucket else ""


def nothing_lost(seen, bucket):
    """Of what could be read back and decided, which must be all of it."""
    number, words = _found(seen, bucket, "lost")
    holds = number == 0
    for field, what in (
        ("unread", "keys could not be read back"),
        ("undecided", "writes could not be decided"),
        ("damaged", "values are damaged"),
    ):
        other = sum(each.get(field, 0) for each in seen.verifications(bucket))
        if other:
            holds, words = False, f"{words}; {count(other)} {what}"
    return f"no acknowledged write is lost{_of(bucket)}", holds, words


def nothing_refused_happens(seen, bucket):
    number, words = _found(seen, bucket, "refused_took_effect")
    return f"no refused write has taken effect{_of(bucket)}", number == 0, words


def nothing_resurrected(seen, bucket):
    number, words = _found(seen, bucket, "resurrected")
    return f"nothing that was deleted comes back{_of(bucket)}", number == 0, words


def no_stale_reads(seen, bucket):
    number, words = _found(seen, bucket, "stale_reads")
    return f"no read misses what was acknowledged before it{_of(bucket)}", number == 0, words


def overwritten_at_least(seen, writes, bucket):
    number, words = _found(seen, bucket, "overwritten")
    text = f"at least {count(writes)} acknowledged writes are gone{_of(bucket)}, as its settings say"
    return text, number is not None and number >= writes, words


def siblings_at_most(seen, versions, bucket):
    most, words = _most_siblings(seen, bucket)
    text = f"no key has more than {versions} {_versions(versions)}{_of(bucket)}"
    return text, most is not None and most <= versions, words


def siblings_at_least(seen, versions, bucket):
    most, words = _most_siblings(seen, bucket)
    text = f"some key has {versions} versions or more{_of(bucket)}"
    return text, most is not None and most >= versions, words


def siblings_seen(seen, keys):
    """Later writers resolve them, so that few or none may be left at the end."""
    text = f"at some moment {keys} keys or more have several versions"
    counts = [look["siblings"] for look in seen.looks if look["siblings"] is not None]
    most, last = max(counts, default=0), counts[-1] if counts else 0
    return text, most >= keys, f"{count(most)} keys had at most, {count(last)} at the end"


def _versions(number):
    return "version" if number == 1 else "versions"


def _most_siblings(seen, bucket):
    found = list(seen.verifications(bucket))
    if not found:
        return None, "nothing was read back"
    most = max(each["most_siblings"] for each in found)
    keys = sum(each["keys_with_siblings"] for each in found)
    return most, f"the most are {most}; {count(keys)} keys have more than one"


# --- What clients met -----------------------------------------------------------------------------

WHEN = {"fault": "while it is broken", "after": "after it was healed", "all": "throughout"}


def _when(during, settle):
    return WHEN[during] + (f", from {settle:g} s on" if settle else "")


def _requests(rows):
    due = sum(row["due"] for row in rows)
    ok = sum(row["ok"] for row in rows)
    failed = sum(sum(row["failed"].values()) for row in rows)
    return due, ok, failed, sum(row["unknown"] for row in rows)


def writes_never_stop(seen, side, share, during, settle):
    rows = seen.during(seen.side(side), during, settle)
    due, ok, failed, unknown = _requests(rows)
    silent = _longest_silence(rows)
    text = f"{side}: at least {100 * share:g}\u00a0% of all requests are answered {_when(during, settle)}"
    gaps = f"{silent} s without any" if silent else "never a second without"
    evidence = (
        f"{terminal.share(ok, due)} of {count(due)} answered, {count(failed)} refused or failed, "
        f"{count(unknown)} unknown; {gaps}"
    )
    return text, due > 0 and ok >= share * due and silent <= 1, evidence


def refuses(seen, side, share, during, settle):
    rows = seen.during(seen.side(side), during, settle)
    due, ok, failed, unknown = _requests(rows)
    kinds = {}
    for row in rows:
        for kind, number in row["failed"].items():
            kinds[kind] = kinds.get(kind, 0) + number
    named = ", ".join(f"{count(number)} {kind}" for kind, number in sorted(kinds.items()))
    text = f"{side}: at least {100 * share:g}\u00a0% of all requests are refused {_when(during, settle)}"
    evidence = (
        f"{terminal.share(failed, due)} of {count(due)} refused ({named or 'none'}), "
        f"{count(ok)} answered, {count(unknown)} unknown"
    )
    return text, due > 0 and failed >= share * due, evidence


def answers_within(seen, side, ms, seconds, during, settle):
    text = f"{side}: 99 of 100 answers come within {ms} ms {_when(during, settle)}"
    return text, *_p99_within(seen.during(seen.side(side), during, settle), "p99_us", ms, seconds)


def refuses_within(seen, side, ms, seconds, during, settle):
    text = f"{side}: 99 of 100 refusals come within {ms} ms {_when(during, settle)}"
    rows = seen.during(seen.side(side), during, settle)
    return text, *_p99_within(rows, "refused_p99_us", ms, seconds)


def _p99_within(rows, field, ms, share):
    """In this share of the seconds, not in each: one in which this machine's disk is slow tells
    nothing."""
    slowest = sorted(row[field] for row in rows if row.get(field) is not None)
    if not slowest:
        return False, "there were none"
    typical, worst = slowest[math.ceil(len(slowest) * share) - 1], slowest[-1]
    part = f"{10 * share:g} of 10 seconds"
    return typical <= ms * 1000, f"p99 is {_ms(typical)} or less in {part}, {_ms(worst)} in the slowest"


def _ms(micros):
    return f"{micros / 1000:.1f} ms" if micros < 10_000 else f"{micros // 1000} ms"


def _longest_silence(rows):
    """The most seconds in a row in which requests were due and none was answered."""
    longest = now = 0
    for row in rows:
        now = now + 1 if row["due"] and not row["ok"] else 0
        longest = max(longest, now)
    return longest


# --- What became of the cluster -------------------------------------------------------------------


def converged_within(seen, seconds):
    text = f"all owners have everything within {seconds:g} s"
    if seen.converged_ms is None:
        return text, False, "they had not when the lab gave up waiting"
    took = (seen.converged_ms - seen.healed_ms) / SECOND_MS
    return text, took <= seconds, f"{took:.1f} s after the last fault was lifted"


def copies_equal(seen):
    text = "in the end all owners of each key hold the same"
    evidence = f"{count(len(seen.different))} of {count(seen.compared)} keys differ"
    if seen.different:
        bucket, name = seen.different[0]
        evidence += f", as {bucket}/{name.decode(errors='replace')}"
    return text, seen.compared > 0 and not seen.different, evidence


def noticed_within(seen, node, seconds):
    """Somebody takes a node to be down soon after the first fault."""
    text = f"the others take {node} to be down within {seconds:g} s"
    begin = min(begin for begin, _ in seen.faults)
    downs = [view for view in seen.views if view["peer"] == node and view["state"] == "down"]
    if not downs:
        return text, False, "nobody did"
    took = (downs[0]["at_ms"] - begin) / SECOND_MS
    return text, took <= seconds, f"the first did after {took:.1f} s"


def members_at_the_end(seen, nodes):
    text = f"in the end the members are {' '.join(nodes)}"
    found = sorted(name for name, standing in seen.members.items() if standing == "member")
    return text, found == sorted(nodes), f"they are {' '.join(found)}"


CHECKS = {
    check.__name__: check
    for check in (
        nothing_lost, nothing_resurrected, nothing_refused_happens, no_stale_reads,
        overwritten_at_least, siblings_at_most, siblings_at_least, siblings_seen,
        writes_never_stop, refuses, answers_within, refuses_within,
        converged_within, copies_equal, noticed_within, members_at_the_end,
    )
}
