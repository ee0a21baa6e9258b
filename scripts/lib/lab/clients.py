"""The clients: `ringdove load`, one process for each group, which writes what it did and when into
a directory; and `ringdove load verify`, which reads everything back afterwards."""

import json
import os
import signal
import subprocess

from .terminal import Trouble


class Group:
    """One group of clients, while it runs and after."""

    def __init__(self, planned, directory):
        self.side, self.nodes, self.bucket = planned.side, planned.nodes, planned.bucket
        self.arguments, self.directory = planned.arguments, directory
        self.process = None

    def start(self, program, cluster):
        """Starts it: from now on it asks its nodes, and no others."""
        self.directory.mkdir(parents=True, exist_ok=True)
        target = ",".join(cluster.nodes[node].frames for node in self.nodes)
        command = [
            program.path, "load", "--target", f"ringdove://{target}", "--only-given",
            *self.arguments, "--verify-later",
            "--label", self.side, "--output", str(self.directory),
        ]
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def has_ended(self):
        return self.process is None or self.process.poll() is not None

    def wait(self, patience_s):
        """Waits for its end; one that failed, or stays, is a `Trouble`."""
        try:
            code = self.process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.stop()
            raise Trouble(f"the clients of {self.side} did not end") from None
        if code != 0:
            raise Trouble(f"the clients of {self.side} ended with {code}", *self._log_end())

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def rate(self):
        """Requests answered in the last second that is written, or None."""
        try:
            with open(self.directory / "seconds.jsonl", "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - 4096))
                last = file.read().splitlines()[-1]
            return json.loads(last)["ok"]
        except (OSError, ValueError, KeyError, IndexError):
            return None

    def summary(self):
        with open(self.directory / "summary.json", encoding="utf-8") as file:
            return json.load(file)

    def seconds(self):
        with open(self.directory / "seconds.jsonl", encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]

    def _log_end(self):
        try:
            return (self.directory / "log").read_text(errors="replace").splitlines()[-8:]
        except OSError:
            return []


def verify(program, cluster, groups):
    """Reads back what all groups wrote, those of one bucket together: they wrote the same keys."""
    target = "ringdove://" + ",".join(node.frames for node in cluster.serving())
    for bucket in dict.fromkeys(group.bucket for group in groups):
        runs = [str(group.directory) for group in groups if group.bucket == bucket]
        # Its exit code says what the verdicts say: here only that everything was read counts.
        program.run("load", "verify", *runs, "--target", target, patience_s=120, good=(0, 1, 3))
