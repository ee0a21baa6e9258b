"""One scenario, from the start of its nodes to its verdicts.

    nodes form a cluster ─ clients start ─ the timeline ─ clients end ─ owners converge ─ read back
                           └──────── looks, a second apart ───────────────┘
"""

import contextlib
import threading
import time

from . import faults, report, terminal, verdicts
from .clients import Group, verify
from .cluster import Cluster
from .namespaces import Namespaces
from .plan import SHORT, make
from .resp import Connection, Refused, address_of
from .watch import Watch, now_ms

# How long owners may take to converge before the lab gives up waiting, and clients to end.
CONVERGE_S, CLIENTS_END_S = 60, 30
# While one of these is in force, keys go on differing.
KEEP_APART = ("split", "cut", "only", "crash", "freeze")


class Run:
    """One scenario that is tried. `directory` takes its records, `nodes` the nodes' data."""

    def __init__(self, program, scenario, directory, nodes, options):
        self.program, self.scenario, self.directory = program, scenario, directory
        self.plan = make(scenario, options.seed, options.short)
        self.scale = SHORT if options.short else 1.0
        self.network = None
        self.cluster = None
        self.groups = []
        self.watch = None
        self.done, self.now = [], "starting the nodes"
        self.healed_ms = self.converged_ms = None
        self.nodes_directory, self.options = nodes, options

    def go(self):
        """Runs it; whatever happens, nothing that it started is left running. Returns the record."""
        began_ms = now_ms()
        try:
            self._start()
            self._timeline()
            for group in self.groups:
                self.now = "clients end"
                group.wait(CLIENTS_END_S)
            self._converge()
            compared, different = self._read_back()
            members = self.cluster.members()
        finally:
            self.remove()
        seen = self._seen(compared, different, members)
        record = self._record(began_ms, verdicts.judge(self.scenario, seen, self.scale))
        report.write_scenario(self.directory, record)
        return record

    def remove(self):
        """Ends everything that it has started, by its own handles."""
        if self.watch:
            self.watch.stop()
        for group in self.groups:
            group.stop()
        if self.cluster:
            self.cluster.stop_all()
        if self.network:
            self.network.remove()

    # --- Its parts --------------------------------------------------------------------------------

    def _start(self):
        self._show()
        every = self.scenario.nodes + self.scenario.spares
        if self.options.network == "namespaces":
            self.network = Namespaces(every)
        self.cluster = Cluster(
            self.program, self.scenario, self.plan.settings, self.nodes_directory, self.network,
            self.options.base_port,
        )
        driver = faults.Filtered if self.network else faults.Injected
        self.faults = driver(self.cluster)
        self.cluster.form(self.scenario.buckets)
        self.watch = Watch(self.cluster, [bucket.what for bucket in self.scenario.buckets])
        self.watch.start()
        self.now = "all is well"
        self.groups = [Group(planned, self.directory / planned.side) for planned in self.plan.clients]
        for group in self.groups:
            group.start(self.program, self.cluster)
        self.began = time.monotonic()

    def _timeline(self):
        """Does what the plan says when it says so, and shows it, until the clients are to end."""
        events = [(step.at, 0, at, step) for at, step in enumerate(self.plan.steps)]
        events += [(step.until, 1, at, step) for at, step in enumerate(self.plan.steps) if step.until]
        in_force = []
        for at, ends, _, step in sorted(events, key=lambda event: event[:3]):
            self._until(at)
            started_ms = now_ms()
            if ends:
                self.faults.end(step)
                record = next(record for record in self.done if record["step"] is step)
                record["to_ms"] = now_ms()
                in_force.remove(step)
            else:
                self.now = step.label
                self._show()
                self.done.append({"step": step, "label": step.label, "from_ms": started_ms})
                self.faults.begin(step)
                if step.until is None:
                    self.done[-1]["to_ms"] = now_ms()
                else:
                    in_force.append(step)
            self.now = ", ".join(step.label for step in in_force) or "healed"
            self.watch.comparison.heals = not any(step.do in KEEP_APART for step in in_force)
        if self.done:
            self.healed_ms = max(record["to_ms"] for record in self.done)
            waiter = threading.Thread(target=self._wait_converged, daemon=True)
            waiter.start()
        self._until(self.plan.seconds)

    def _until(self, at):
        """Waits for a time of the plan; a look every half second at what goes on."""
        while (left := self.began + at - time.monotonic()) > 0:
            self._show()
            for group in self.groups:
                if group.has_ended() and time.monotonic() - self.began < self.plan.seconds - 1:
                    group.wait(0)
                    raise terminal.Trouble(f"the clients of {group.side} ended before their time")
            time.sleep(min(left, 0.5))

    def _wait_converged(self):
        """Asks from the end of the last fault on until all owners have what was acknowledged."""
        deadline = time.monotonic() + CONVERGE_S + self.plan.seconds
        while time.monotonic() < deadline and self.converged_ms is None:
            try:
                node = self.cluster.serving()[0]
                connection = Connection(address_of(node.text), 12)
                if connection.ask("RD.WAIT", "HEALTHY", "SYNCED", "TIMEOUT", "10000") == []:
                    self.converged_ms = now_ms()
                connection.close()
            except (OSError, IndexError, Refused):
                time.sleep(0.2)

    def _converge(self):
        """The clients have ended. Waits until the owners are equal, for what is read back."""
        self.now = "owners converge"
        if self.healed_ms is None:
            self.healed_ms = now_ms()
            threading.Thread(target=self._wait_converged, daemon=True).start()
        deadline = time.monotonic() + CONVERGE_S
        while self.converged_ms is None and time.monotonic() < deadline:
            self._show()
            time.sleep(0.2)

    def _read_back(self):
        """Everything that was written, by whoever wrote it; and all copies, by comparing them."""
        # What was written after the barrier has to be on all owners, too. If it is not, the verdicts
        # say which keys differ.
        with contextlib.suppress(terminal.Trouble):
            self.cluster.ask("wait", "--hints-drained", "--synced", "--timeout", "60s", patience_s=70)
        # One more look at what is left once nothing moves.
        time.sleep(1.1)
        self.watch.stop()
        self.now = "reading everything back"
        self._show()
        try:
            found = self.watch.comparison.all_of_them()
        except (OSError, Refused) as error:
            raise terminal.Trouble(f"the copies could not be compared: {error}") from None
        verify(self.program, self.cluster, self.groups)
        return found

    # --- What is left -----------------------------------------------------------------------------

    def _seen(self, compared, different, members):
        sides = [
            verdicts.Side(group.side, group.nodes, group.bucket, group.summary(), group.seconds())
            for group in self.groups
        ]
        return verdicts.Seen(
            sides=sides,
            faults=[(record["from_ms"], record["to_ms"]) for record in self.done],
            healed_ms=self.healed_ms,
            converged_ms=self.converged_ms,
            looks=self.watch.looks,
            views=self.watch.views,
            members=members,
            compared=compared,
            different=different,
        )

    def _record(self, began_ms, judged):
        """As `Scenario` in src/load/record.rs."""
        bands = [{key: record[key] for key in ("label", "from_ms", "to_ms")} for record in self.done]
        return {
            "number": self.scenario.number,
            "name": self.scenario.name,
            "title": self.scenario.title,
            "teaches": self.scenario.teaches,
            "setting": self.scenario.setting(),
            "begun_ms": began_ms,
            "ended_ms": now_ms(),
            "nodes": self.scenario.nodes + self.scenario.spares,
            "faults": bands,
            "sides": [
                {"name": group.side, "nodes": group.nodes, "run": group.directory.name}
                for group in self.groups
            ],
            "looks": self.watch.looks,
            "views": self.watch.views,
            "healed_ms": self.healed_ms if bands else None,
            "converged_ms": self.converged_ms if bands else None,
            "verdicts": judged,
        }

    def _show(self):
        """The live line: how far, what is broken, what each side gets, what waits."""
        words = [self.scenario.name]
        if self.groups:
            at = min(time.monotonic() - self.began, self.plan.seconds)
            words.append(f"{at:.0f}/{self.plan.seconds:.0f} s")
        words.append(self.now)
        words += [
            f"{group.side} {rate}/s" for group in self.groups if (rate := group.rate()) is not None
        ]
        look = self.watch.last() if self.watch else None
        if look:
            words += [
                f"{what} {look[what]}" for what in ("hints", "differing", "siblings") if look[what]
            ]
        terminal.live("  " + "  ".join(words))
