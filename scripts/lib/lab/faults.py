"""What breaks, and how it is mended: the actions of a timeline.

    Injected       nodes that were started with --fault-injection drop what they would send or hear
    Filtered       packets are dropped on the way between the nodes' network namespaces

Only cut links differ between the two. Delays, slow disks and clocks are injected in both: `netem`,
which delays real packets, is not in every kernel. The rest is done to processes and members."""

import concurrent.futures
import itertools

from .terminal import Trouble

# Faults of a node itself, and of all it sends and hears: words of `ringdove fault add`.
INJECTED = {
    "delay": lambda fields: ["delay", "--everyone", "--by", fields["by"], "--jitter", fields["jitter"]],
    "throttle": lambda fields: ["throttle", "--everyone", "--to", fields["to"]],
    "slow-disk": lambda fields: ["slow-disk", f"--by={fields['by']}"],
    "full-disk": lambda fields: ["full-disk"],
    "clock": lambda fields: ["clock", f"--by={fields['by']}"],
}


def ways(step, nodes):
    """The ways, (from, to), that a step cuts."""
    fields = step.fields
    if step.do == "split":
        apart = itertools.permutations(fields["sides"], 2)
        return {(a, b) for one, other in apart for a in one for b in other}
    if step.do == "cut":
        pairs = itertools.product(fields["from"], fields["to"])
        return {(a, b) for a, b in pairs if a != b}
    kept = {*fields["links"], *((b, a) for a, b in fields["links"])}
    return {pair for pair in itertools.permutations(nodes, 2) if pair not in kept}


class Injected:
    """Does the steps of a plan to a cluster on one machine."""

    network = "one machine"

    def __init__(self, cluster):
        self.cluster, self.program = cluster, cluster.program
        # Of each step in force: the faults it has put into which nodes.
        self.added = {}

    def begin(self, step):
        """Puts a step in force; returns when it is."""
        if step.do in ("split", "cut", "only"):
            self.cut(step, ways(step, self.cluster.founders), step.fields.get("share", 1.0))
        elif step.do in INJECTED:
            words = INJECTED[step.do](step.fields)
            self._add(step, [(node, words) for node in step.fields["nodes"]])
        else:
            getattr(self, step.do.replace("-", "_"))(step.fields)

    def end(self, step):
        """Lifts it."""
        if step.do in ("split", "cut", "only"):
            self.mend(step)
        elif step.do in INJECTED:
            self._clear(step)
        elif step.do == "crash":
            for node in step.fields["nodes"]:
                self.cluster.start(node)
        elif step.do == "freeze":
            for node in step.fields["nodes"]:
                self.cluster.thaw(node)

    # --- Links ------------------------------------------------------------------------------------

    def cut(self, step, cut, share):
        """Both ends drop, so that a node which is started anew meanwhile changes nothing. A part of
        the loss is drawn at the sender alone."""
        orders = []
        for sender, receiver in sorted(cut):
            words = ["--share", f"{share:g}"] if share < 1 else []
            orders.append((sender, ["drop", "--peer", receiver, "--direction", "out", *words]))
            if share == 1:
                orders.append((receiver, ["drop", "--peer", sender, "--direction", "in"]))
        self._add(step, orders)

    def mend(self, step):
        self._clear(step)

    def _add(self, step, orders):
        """Tells the nodes at once: a split should not come about one link after the other."""

        def add(order):
            node, words = order
            answer = self._order(node, "add", *words)
            return node, answer["id"]

        self.added[id(step)] = self._all(add, orders)

    def _clear(self, step):
        def clear(added):
            node, fault = added
            self._order(node, "clear", str(fault))

        self._all(clear, self.added.pop(id(step), []))

    def _order(self, node, *words):
        found = self.cluster.nodes[node]
        if not found.runs:
            return {"id": 0}
        return self.program.answer("fault", *words, "--addr", found.frames)

    @staticmethod
    def _all(work, orders):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            return list(pool.map(work, orders))

    # --- Processes --------------------------------------------------------------------------------

    def freeze(self, fields):
        for node in fields["nodes"]:
            self.cluster.freeze(node)

    def crash(self, fields):
        for node in fields["nodes"]:
            self.cluster.kill(node)

    def lose_disk(self, fields):
        for node in fields["nodes"]:
            self.cluster.kill(node)
            self.cluster.wipe(node)

    def restart(self, fields):
        """One node after the other, the next when everybody sees the last one again."""
        for node in fields["nodes"]:
            self.cluster.stop(node)
            self.cluster.start(node)
            self.cluster.wait_ready(node)
            self.cluster.ask("wait", "--healthy", "--timeout", "60s", patience_s=70)

    # --- Members ----------------------------------------------------------------------------------

    def join(self, fields):
        for node in fields["nodes"]:
            self.cluster.join(node)
        self._moved()

    def leave(self, fields):
        for node in fields["nodes"]:
            self.cluster.leave(node)

    def replace(self, fields):
        dead = self.cluster.nodes[fields["node"]]
        if dead.runs:
            raise Trouble(f"{dead.name} runs, and is to be replaced", "let it lose its disk or crash first")
        self.cluster.replace(fields["node"], fields["by"])
        self._moved()

    def _moved(self):
        self.cluster.ask("wait", "--transfers-done", "--timeout", "60s", patience_s=70)

    def remove(self):
        """Nothing is left behind: the faults end with their nodes."""


class Filtered(Injected):
    """The same with real packets: links are cut by the filters of the nodes' namespaces."""

    network = "namespaces"

    def cut(self, step, cut, share):
        self.cluster.network.drop(id(step), cut, share)

    def mend(self, step):
        self.cluster.network.lift(id(step))
