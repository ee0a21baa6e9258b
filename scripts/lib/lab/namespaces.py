"""A real network on one machine, for root: one network namespace for each node, a bridge between
them, and packet filters in each namespace.

    ┌ n1 ──────────┐  ┌ n2 ──────────┐
    │ 198.18.P.11  │  │ 198.18.P.12  │   namespaces rdlabPID-n1, rdlabPID-n2
    └──── veth ────┘  └──── veth ────┘
          └───── bridge rdlPID ───┘        198.18.P.1: clients, and whoever looks

Everything is named with the lab's process id and removed by it, and nothing else is touched: the
machine's own filter rules stay as they are, since the drops are inside the namespaces.
198.18.0.0/15 is set aside for tests of networks (RFC 2544), so it is nobody's."""

import json
import os
import shutil
import subprocess

from .terminal import Trouble

TABLE = "lab"


def find(tool):
    """A tool of the system's, which users' paths may leave out."""
    return shutil.which(tool, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def _run(*words, input=None):
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, input=input, check=False
    )
    if done.returncode != 0:
        raise Trouble(f"`{' '.join(map(str, words))}` failed: {done.stderr.strip()}")
    return done.stdout


class Namespaces:
    """The network of the nodes with these names."""

    def __init__(self, nodes):
        if os.geteuid() != 0:
            raise Trouble("network namespaces need root", "run it with sudo, or use --network machine")
        for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
            if not find(tool):
                raise Trouble(f"{tool} is not installed", f"apt-get install {package}")
        self.ip, self.nft, self.pid = find("ip"), find("nft"), os.getpid()
        self.bridge = f"rdl{self.pid}"
        self.third = self._free_network()
        self.hosts = {node: f"198.18.{self.third}.{11 + at}" for at, node in enumerate(nodes)}
        self.rules = {node: {} for node in nodes}
        try:
            self._make()
        except Exception:
            self.remove()
            raise

    def name(self, node):
        return f"rdlab{self.pid}-{node}"

    def outer(self, at):
        """The bridge's end of a node's cable."""
        return f"{self.bridge}v{at}"

    def prefix(self, node):
        """Before a command that is to run where the node is; becomes that command."""
        return [self.ip, "netns", "exec", self.name(node)]

    def _free_network(self):
        taken = {
            entry["local"]
            for link in json.loads(_run(self.ip, "-json", "-4", "address"))
            for entry in link.get("addr_info", [])
        }
        first = self.pid % 256
        for third in [*range(first, 256), *range(first)]:
            if f"198.18.{third}.1" not in taken:
                return third
        raise Trouble("all networks of 198.18.0.0/16 are in use")

    def _make(self):
        _run(self.ip, "link", "add", self.bridge, "type", "bridge")
        _run(self.ip, "address", "add", f"198.18.{self.third}.1/24", "dev", self.bridge)
        _run(self.ip, "link", "set", self.bridge, "up")
        for at, (node, host) in enumerate(self.hosts.items()):
            space, outer = self.name(node), self.outer(at)
            _run(self.ip, "netns", "add", space)
            _run(self.ip, "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", space)
            _run(self.ip, "link", "set", outer, "master", self.bridge, "up")
            _run(self.ip, "-netns", space, "address", "add", f"{host}/24", "dev", "eth0")
            _run(self.ip, "-netns", space, "link", "set", "lo", "up")
            _run(self.ip, "-netns", space, "link", "set", "eth0", "up")

    def remove(self):
        """Takes away all of it; says nothing of what is gone already."""
        links = [self.outer(at) for at in range(len(self.hosts))] + [self.bridge]
        gone = [["link", "del", link] for link in links]
        gone += [["netns", "del", self.name(node)] for node in self.hosts]
        for words in gone:
            subprocess.run([self.ip, *words], capture_output=True, check=False)

    def drop(self, handle, ways, share):
        """From now on this share of the packets on these ways, (from, to), is dropped on arrival.
        (Dropped at departure the sender would be told that it may not send.)"""
        part = "" if share == 1 else f"numgen random mod 1000 < {round(share * 1000)} "
        for sender, receiver in ways:
            rule = f"ip saddr {self.hosts[sender]} {part}drop"
            self.rules[receiver].setdefault(handle, []).append(rule)
        self._apply({receiver for _, receiver in ways})

    def lift(self, handle):
        self._apply([node for node, rules in self.rules.items() if rules.pop(handle, None)])

    def _apply(self, nodes):
        """Each namespace's rules anew, in one step: there is no moment with half of them."""
        for node in nodes:
            rules = [rule for rules in self.rules[node].values() for rule in rules]
            script = [
                f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{",
                "chain in { type filter hook input priority 0;", *rules, "}", "}",
            ]
            _run(*self.prefix(node), self.nft, "-f", "-", input="\n".join(script) + "\n")
