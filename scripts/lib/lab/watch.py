"""Looks at the cluster, a second apart: what each node thinks of the others, hints that wait, keys
with siblings, keys whose copies differ.

Each node is asked by a thread of its own over one connection that is kept, so that a node which
does not answer holds up no look at the others."""

import threading
import time

from .comparison import Comparison
from .resp import Connection, Refused, address_of

EVERY_S = 1.0
PATIENCE_S = 2.5


def now_ms():
    return time.time_ns() // 1_000_000


class Watch:
    """The looks at one cluster, from `start` until `stop`."""

    def __init__(self, cluster, buckets):
        self.cluster, self.buckets = cluster, buckets
        self.looks, self.views = [], []
        self.hints, self.siblings, self.opinions = {}, {}, {}
        self.comparison = Comparison(cluster, buckets)
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._each_second, args=(self._node_look(node),), daemon=True)
            for node in cluster.nodes.values()
        ]
        self._threads.append(
            threading.Thread(target=self._each_second, args=(self.comparison.look,), daemon=True)
        )
        self._threads.append(
            threading.Thread(target=self._each_second, args=(self._look,), daemon=True)
        )

    def start(self):
        for thread in self._threads:
            thread.start()

    def stop(self):
        self._ends.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=2 * PATIENCE_S)

    def _each_second(self, look):
        due = time.monotonic()
        while not self._ends.is_set():
            look()
            due = max(due + EVERY_S, time.monotonic())
            self._ends.wait(due - time.monotonic())

    def _look(self):
        """All of it, as far as nodes have answered lately."""
        with self._lock:
            hints, siblings = list(self.hints.values()), list(self.siblings.values())
        self.looks.append({
            "at_ms": now_ms(),
            "hints": sum(hints) if hints else None,
            "differing": self.comparison.differing(),
            "siblings": max(siblings) if siblings else None,
        })

    def last(self):
        return self.looks[-1] if self.looks else None

    # --- One node ---------------------------------------------------------------------------------

    def _node_look(self, node):
        """A function that asks this node each time it is called."""
        connection = None

        def look():
            nonlocal connection
            if node.process is None:
                return
            try:
                if not node.runs:
                    raise ConnectionError("it does not run")
                connection = connection or Connection(address_of(node.text), PATIENCE_S)
                said = connection.ask_all([("INFO", "members", "hints"), ("RD.CONFLICTS",)])
                self._heard(node.name, *said)
            except (OSError, ValueError):
                if connection:
                    connection.close()
                connection = None
                self._silent(node)

        return look

    def _heard(self, name, information, conflicts):
        if isinstance(information, Refused):
            return
        fields = dict(
            line.split(":", 1) for line in information.decode().splitlines() if ":" in line
        )
        with self._lock:
            self.hints[name] = int(fields.get("hints_keys", 0))
            if isinstance(conflicts, dict):
                self.siblings[name] = sum(
                    row["conflicts"] for row in conflicts["buckets"]
                    if row["bucket"].decode() in self.buckets
                )
        for field, value in fields.items():
            if field.startswith("member_"):
                peer = field.removeprefix("member_")
                states = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
                if peer != name and states.get("state") in ("alive", "suspect", "down"):
                    self._thinks(name, peer, states["state"])

    def _silent(self, node):
        with self._lock:
            # A node that is dead keeps nothing; of one that only stands still the last word counts.
            if not node.runs:
                self.hints.pop(node.name, None)
            self.siblings.pop(node.name, None)
        for peer in self.cluster.nodes:
            if peer != node.name:
                self._thinks(node.name, peer, "silent")

    def _thinks(self, node, peer, state):
        """Writes down what is new. Until the first word everybody is alive."""
        before = self.opinions.get((node, peer), "alive")
        if state != before:
            self.opinions[node, peer] = state
            self.views.append({"at_ms": now_ms(), "node": node, "peer": peer, "state": state})
