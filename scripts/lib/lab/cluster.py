"""Nodes as processes: started, stopped, killed, frozen, wiped; joined, let go and replaced.

Every process is a child of the lab, kept by its own handle, and stopped by that: nothing is ever
looked up by name."""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from .terminal import Trouble

START_S, STOP_S = 60, 20
# Where ports are looked for; three for each node.
FIRST_PORT, LAST_PORT = 24000, 32000


class Node:
    """One node: its addresses, its directory and, while it runs, its process."""

    def __init__(self, name, zone, host, ports, home, prefix):
        self.name, self.zone, self.home, self.prefix = name, zone, home, prefix
        self.frames, self.text, self.admin = (f"{host}:{port}" for port in ports)
        self.process = None
        self.is_frozen = False
        # Told to leave: it still answers, but is not asked about the cluster any more.
        self.leaves = False
        self.config = home / "ringdove.toml"

    @property
    def runs(self):
        return self.process is not None and self.process.poll() is None

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.admin}/ready", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def log_end(self, lines=12):
        try:
            return (self.home / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        except OSError:
            return []


class Cluster:
    """The nodes of one scenario. `network` is None for one machine, or `Namespaces`."""

    def __init__(self, program, scenario, settings, directory, network=None, base_port=None):
        self.program, self.settings, self.network = program, settings, network
        self.directory = directory
        self.founders = list(scenario.nodes)
        names = scenario.nodes + scenario.spares
        ports = self._ports(len(names), base_port)
        self.nodes = {}
        for at, name in enumerate(names):
            host = network.hosts[name] if network else "127.0.0.1"
            prefix = network.prefix(name) if network else []
            home = directory / name
            self.nodes[name] = Node(name, scenario.zones[at], host, ports[at], home, prefix)

    def _ports(self, count, base_port):
        if self.network:
            return [(7400, 7401, 7402)] * count
        if base_port:
            return [tuple(base_port + 10 * at + offset for offset in range(3)) for at in range(count)]
        # From a place of its own for each lab, so that two at a time seldom try the same ports.
        start = FIRST_PORT + os.getpid() % 250 * 30
        found = []
        port = start
        while len(found) < count:
            if port + 3 > LAST_PORT:
                port = FIRST_PORT
            ports = (port, port + 1, port + 2)
            if all(_is_free(port) for port in ports):
                found.append(ports)
            port += 3
            if port - start in range(-3, 0):
                raise Trouble(f"no free ports from {FIRST_PORT} to {LAST_PORT}", "--base-port PORT")
        return found

    # --- One node ---------------------------------------------------------------------------------

    def start(self, name):
        """Starts a node, which need not be ready then. One that was there has its data."""
        node = self.nodes[name]
        node.home.mkdir(parents=True, exist_ok=True)
        node.config.write_text(self._config(node), encoding="utf-8")
        command = [*node.prefix, self.program.path, "serve", "--config", str(node.config),
                   "--fault-injection"]
        for key, value in self.settings.items():
            command += ["--set", f"{key}={_toml(value)}"]
        with open(node.home / "log", "ab") as log:
            node.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        node.is_frozen = False

    def _config(self, node):
        # A founder waits for the other founders, once; everybody else waits for the cluster.
        founders = len(self.founders) if node.name in self.founders else 1
        seeds = ", ".join(f'"{self.nodes[name].frames}"' for name in self.founders)
        return (
            f'[node]\nname = "{node.name}"\ndata_dir = "data"\nzone = "{node.zone}"\n\n'
            f"[cluster]\nseeds = [{seeds}]\ninitial_members = {founders}\n"
            f"replicas = {min(3, len(self.founders))}\n\n"
            f'[listen]\naddress = "{node.frames}"\ntext = "{node.text}"\nadmin = "{node.admin}"\n'
            f"insecure = {'true' if self.network else 'false'}\n"
        )

    def kill(self, name):
        """SIGKILL: no goodbye."""
        self._signal(name, signal.SIGKILL)
        self.nodes[name].process.wait()

    def stop(self, name):
        """SIGTERM, and time to finish; then SIGKILL."""
        node = self.nodes[name]
        self._signal(name, signal.SIGTERM)
        try:
            node.process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self.kill(name)

    def freeze(self, name):
        self._signal(name, signal.SIGSTOP)
        self.nodes[name].is_frozen = True

    def thaw(self, name):
        self._signal(name, signal.SIGCONT)
        self.nodes[name].is_frozen = False

    def wipe(self, name):
        """Deletes what a node that is dead had on its disk; the log stays."""
        shutil.rmtree(self.nodes[name].home / "data", ignore_errors=True)

    def _signal(self, name, which):
        node = self.nodes[name]
        if node.runs:
            node.process.send_signal(which)

    def wait_ready(self, *names):
        for name in names:
            node = self.nodes[name]
            until(START_S, f"{name} to be ready", node.is_ready, lambda node=node: self._died(node))

    def _died(self, node):
        if node.process.poll() is not None:
            raise Trouble(f"{node.name} ended with {node.process.returncode}", *node.log_end())

    # --- All of them ------------------------------------------------------------------------------

    def form(self, buckets):
        """Starts the founders, waits until all are one cluster, and creates the buckets."""
        for name in self.founders:
            self.start(name)
        self.wait_ready(*self.founders)
        self.ask("wait", "--healthy", "--timeout", "30s", patience_s=40)
        for bucket in buckets:
            self.ask(
                "bucket", "create", bucket.what, "--n", str(bucket["n"]), "--r", bucket["r"],
                "--w", bucket["w"], "--conflicts", bucket["conflicts"], "--timeout", "10s",
            )
        self.ask("wait", "--healthy", "--timeout", "30s", patience_s=40)

    def stop_all(self):
        """Ends every node, at once: what they have is not needed any more."""
        for node in self.nodes.values():
            if node.runs:
                node.process.kill()
        for node in self.nodes.values():
            if node.process:
                node.process.wait()

    def serving(self):
        """The nodes that run, are not frozen, and stay."""
        nodes = self.nodes.values()
        return [node for node in nodes if node.runs and not node.is_frozen and not node.leaves]

    def ask(self, *words, patience_s=30):
        """A command of `ringdove` for the cluster, through any node that serves."""
        asked = ",".join(node.frames for node in self.serving())
        return self.program.run(*words, "--addr", asked, patience_s=patience_s)

    def answer(self, *words, patience_s=30):
        """As `ask`, for a command that answers in JSON."""
        asked = ",".join(node.frames for node in self.serving())
        return self.program.answer(*words, "--addr", asked, patience_s=patience_s)

    # --- Members ----------------------------------------------------------------------------------

    def members(self):
        """Names and standings of all that are no former members, as the cluster has them."""
        rows = self.answer("member", "list")["members"]
        return {row["name"]: row["standing"] for row in rows if row["standing"] != "removed"}

    def newcomer(self, name):
        """Starts a node that the cluster does not know, and waits until it is a candidate."""
        self.start(name)
        until(START_S, f"{name} to be a candidate",
              lambda: self.members().get(name) == "candidate",
              lambda: self._died(self.nodes[name]))

    def commit(self):
        self.ask("commit", "--timeout", "10s")

    def join(self, name):
        self.newcomer(name)
        self.ask("member", "join", name, "--timeout", "10s")
        self.commit()

    def leave(self, name):
        """Lets a member go; it is stopped when it owns nothing more."""
        self.ask("member", "leave", name, "--timeout", "10s")
        self.commit()
        self.nodes[name].leaves = True
        until(START_S, f"{name} to have handed over", lambda: name not in self.members())
        self.stop(name)

    def replace(self, dead, name):
        self.newcomer(name)
        self.ask("member", "replace", dead, "--with", name, "--timeout", "10s")
        self.commit()


def until(seconds, what, is_so, look=lambda: None):
    """Asks again until it is so: between processes there is no event to wait for."""
    deadline = time.monotonic() + seconds
    while not is_so():
        look()
        if time.monotonic() > deadline:
            raise Trouble(f"gave up waiting for {what} after {seconds} s")
        time.sleep(0.1)


def _is_free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _toml(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
