"""Looks at the cluster, a second apart: what each node thinks of the others, hints that wait, keys
with siblings, keys whose copies differ.

Each node is asked by a thread of its own over one connection that is kept, so that a node which
does not answer holds up no look at the others. Keys are compared from outside: some of them in
each look, by what every owner says it holds."""

import threading
import time

from .resp import Connection, Refused, address_of

EVERY_S = 1.0
PATIENCE_S = 2.5
# Keys compared in each look, and known at most.
COMPARED, KNOWN = 40, 4000


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


class Comparison:
    """Compares what the owners of keys hold, by asking any node for what all of them say, and the
    owners that could not be reached from there themselves."""

    def __init__(self, cluster, buckets):
        self.cluster, self.buckets = cluster, buckets
        self.connections = {}
        self.keys, self.known = [], {}
        self.differ = {}
        self.at = 0
        self.cursors = {bucket: b"0" for bucket in buckets}
        self.looked = False

    def differing(self):
        """How many keys differed when they were looked at last, or None before the first look."""
        return sum(self.differ.values()) if self.looked else None

    def look(self):
        """Compares the next few keys."""
        try:
            self._learn()
            part = (self.keys[self.at:] + self.keys[: self.at])[:COMPARED]
            self.at = (self.at + len(part)) % max(len(self.keys), 1)
            self.compare(part)
        except (OSError, ValueError, Refused):
            self.forget_connections()

    def compare(self, keys):
        """Compares these keys, (bucket, name)."""
        for bucket in self.buckets:
            names = [name for of, name in keys if of == bucket]
            if names:
                for name, differs in self._differs(bucket, names).items():
                    self.differ[bucket, name] = differs
                self.looked = True

    def all_of_them(self):
        """Compares every key there is: (keys, of these different)."""
        self.forget_connections()
        for bucket in self.buckets:
            self.cursors[bucket] = b"0"
            while True:
                self._learn_page(bucket)
                if self.cursors[bucket] == b"0":
                    break
        for start in range(0, len(self.keys), 200):
            self.compare(self.keys[start : start + 200])
        self.forget_connections()
        return len(self.keys), [key for key in self.keys if self.differ.get(key)]

    def forget_connections(self):
        for connection in self.connections.values():
            connection.close()
        self.connections = {}

    def _connection(self, name):
        if name not in self.connections:
            address = address_of(self.cluster.nodes[name].text)
            self.connections[name] = Connection(address, PATIENCE_S)
        return self.connections[name]

    def _learn(self):
        for bucket in self.buckets:
            self._learn_page(bucket)

    def _learn_page(self, bucket):
        """One more page of the bucket's keys; a key that is known stays known when it is deleted."""
        for node in self.cluster.serving():
            cursor = self.cursors[bucket]
            answer = self._connection(node.name).ask_all(
                [("RD.SCAN", bucket, cursor, "COUNT", "200", "R", "one")]
            )[0]
            if isinstance(answer, Refused):
                continue
            self.cursors[bucket], names = answer
            for name in names:
                if (bucket, name) not in self.known and len(self.keys) < KNOWN:
                    self.known[bucket, name] = True
                    self.keys.append((bucket, name))
            return

    def _differs(self, bucket, names):
        """Of each key whether two owners that could be asked hold different things."""
        copies = {name: {} for name in names}
        left = dict.fromkeys(names, True)
        asked = set()
        order = [node.name for node in self.cluster.serving()]
        while order and left:
            node = order.pop(0)
            asked.add(node)
            unreached = set()
            for name, said in zip(list(left), self._explain(node, bucket, list(left))):
                if isinstance(said, Refused):
                    continue
                missing = self._copies(said, copies[name])
                unreached |= missing
                if not missing:
                    left.pop(name)
            # Ask next whom the last one could not reach; when there is nobody, nothing is left.
            nearer = [name for name in order if name in unreached]
            if not nearer:
                break
            order = nearer + [name for name in order if name not in nearer]
        return {name: _different(held.values()) for name, held in copies.items()}

    def _explain(self, node, bucket, names):
        commands = [("RD.BUCKET", bucket)] + [("RD.EXPLAIN", name) for name in names]
        return self._connection(node).ask_all(commands)[1:]

    @staticmethod
    def _copies(said, held):
        """Adds what replicas hold; returns the names of those that did not answer."""
        unreached = set()
        for replica in said["replicas"]:
            name, state = replica["name"].decode(), replica["state"]
            if state == b"unreachable":
                if name not in held:
                    unreached.add(name)
            else:
                has = replica["siblings"] > 0
                held[name] = (has, replica["digest"] if has else b"")
        return unreached


def _different(copies):
    return len(set(copies)) > 1
