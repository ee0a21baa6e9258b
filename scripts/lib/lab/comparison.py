"""Compares copies from outside: what every owner of a key says it holds. Some keys in each look,
and all of them at the end."""

from .resp import Connection, Refused, address_of

PATIENCE_S = 2.5
# Keys compared in each look, and known at most.
COMPARED, KNOWN = 60, 4000


class Comparison:
    """Asks any node for what all owners hold, and those that could not be reached from there
    themselves. What differs may be a write on its way: only what goes on differing is news."""

    def __init__(self, cluster, buckets):
        self.cluster, self.buckets = cluster, buckets
        self.connections, self.patience_s = {}, PATIENCE_S
        self.keys, self.known = [], {}
        self.differ = {}
        self.at = 0
        self.cursors = {bucket: b"0" for bucket in buckets}
        self.looked = False
        # Whether what differs is expected to differ no more.
        self.heals = False

    def differing(self):
        """How many keys differed when they were looked at last, or None before the first look."""
        return sum(list(self.differ.values())) if self.looked else None

    def look(self):
        """Compares the next few keys."""
        try:
            self._learn()
            # Some in turn; and when it heals, all that differed, so that this is seen at once.
            differed = [key for key, differs in self.differ.items() if differs and self.heals]
            others = (self.keys[self.at:] + self.keys[: self.at])[:COMPARED]
            self.at = (self.at + len(others)) % max(len(self.keys), 1)
            self.compare([*differed, *(key for key in others if not self.differ.get(key))])
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
        self.patience_s = 20
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
            self.connections[name] = Connection(address, self.patience_s)
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
        order = [node.name for node in self.cluster.serving()]
        while order and left:
            node = order.pop(0)
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
