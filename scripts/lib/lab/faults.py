"""What breaks, and how it is mended: the actions of a timeline.

    Injected       nodes that were started with --fault-injection drop what they would send or hear
    Filtered       packets are dropped on the way between the nodes' network namespaces

Only cut links differ between the two. Delays, slow disks and clocks are injected in both: `netem`,
which delays real packets, is not in every kernel. The rest is done to processes and members."""

import concurrent.futures
import itertools
import re

from .resp import Connection, Refused, address_of
from .terminal import Trouble

# Faults of a node itself, and of all it sends and hears: the words behind RD.FAULT ADD.
INJECTED = {
    "delay": lambda fields: [
        "DELAY", "EVERYONE", "BY", _ms(fields["by"]), "JITTER", _ms(fields["jitter"])
    ],
    "throttle": lambda fields: ["THROTTLE", "EVERYONE", "TO", _bytes(fields["to"])],
    "slow-disk": lambda fields: ["SLOW-DISK", "BY", _ms(fields["by"])],
    "full-disk": lambda fields: ["FULL-DISK"],
    "clock": lambda fields: ["CLOCK", "BY", _ms(fields["by"])],
}


def _ms(span):
    """`-30s` in milliseconds."""
    number, unit = re.fullmatch(r"([+-]?\d+)(ms|s|m|h)", span).groups()
    return int(number) * {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}[unit]


def _bytes(size):
    number, unit = re.fullmatch(r"(\d+)(B|KiB|MiB)?", size).groups()
    return int(number) * {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20}[unit]


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
        self.cluster = cluster
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
        part = ["SHARE", f"{share:g}"] if share < 1 else []
        for sender, receiver in sorted(cut):
            orders.append((sender, ["DROP", "PEER", receiver, "DIRECTION", "OUT", *part]))
            if share == 1:
                orders.append((receiver, ["DROP", "PEER", sender, "DIRECTION", "IN"]))
        self._add(step, orders)

    def mend(self, step):
        self._clear(step)

    def _add(self, step, orders):
        orders = [(node, ["ADD", *words, "SEED", step.seed]) for node, words in orders]
        answers = self._tell_all(orders)
        self.added[id(step)] = [
            (node, ["CLEAR", fault]) for node, faults in answers.items() for fault in faults
        ]

    def _clear(self, step):
        self._tell_all(self.added.pop(id(step), []))

    def _tell_all(self, orders):
        """Tells all nodes at once: a split should not come about one link after the other. Returns
        what each has answered; a node that does not run has no faults."""
        by_node = {}
        for node, words in orders:
            if self.cluster.nodes[node].runs:
                by_node.setdefault(node, []).append(["RD.FAULT", *words])
        with concurrent.futures.ThreadPoolExecutor(len(by_node) or 1) as pool:
            return dict(zip(by_node, pool.map(self._tell, by_node, by_node.values())))

    def _tell(self, node, commands):
        try:
            connection = Connection(address_of(self.cluster.nodes[node].text))
            answers = connection.ask_all(commands)
            connection.close()
        except OSError as error:
            raise Trouble(f"{node} cannot be told what is to break: {error}") from None
        for answer in answers:
            if isinstance(answer, Refused):
                raise Trouble(f"{node} does not take the fault: {answer}")
        return answers

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


class Filtered(Injected):
    """The same with real packets: links are cut by the filters of the nodes' namespaces."""

    network = "namespaces"

    def cut(self, step, cut, share):
        self.cluster.network.drop(id(step), cut, share)

    def mend(self, step):
        self.cluster.network.lift(id(step))
