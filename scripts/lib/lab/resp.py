"""The text protocol, as much of it as looking at a node needs: one connection that is kept, and
commands in a pipeline. Replies are Python's own values: bytes, int, None, list, dict."""

import socket


class Refused(Exception):
    """The node answered with an error; nothing is wrong with the connection."""


class Connection:
    """A connection in RESP3, where maps are maps. Every failure but `Refused` is an OSError, and
    leaves the connection unusable."""

    def __init__(self, address, patience_s=3.0):
        self.socket = socket.create_connection(address, timeout=patience_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")
        self.ask("HELLO", "3")

    def ask(self, *words):
        """One command and its answer."""
        answer = self.ask_all([words])[0]
        if isinstance(answer, Refused):
            raise answer
        return answer

    def ask_all(self, commands):
        """All commands at once; their answers in order, errors as values."""
        self.socket.sendall(b"".join(_encoded(words) for words in commands))
        return [self._reply() for _ in commands]

    def close(self):
        self.input.close()
        self.socket.close()

    def _line(self):
        line = self.input.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the node closed the connection")
        return line[:-2]

    def _reply(self):
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Refused(rest.decode(errors="replace"))
        if kind == b":":
            return int(rest)
        if kind == b"_":
            return None
        if kind in b"$=":
            text = self._bytes(int(rest))
            return text[4:] if kind == b"=" else text
        if kind in b"*~>":
            return [self._reply() for _ in range(int(rest))]
        if kind == b"%":
            pairs = [(self._reply(), self._reply()) for _ in range(int(rest))]
            return {key.decode() if isinstance(key, bytes) else key: value for key, value in pairs}
        raise ConnectionError(f"this is no answer of a node: {line[:40]!r}")

    def _bytes(self, length):
        if length < 0:
            return None
        text = self.input.read(length + 2)
        if len(text) != length + 2:
            raise ConnectionError("the node closed the connection")
        return text[:-2]


def _encoded(words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    parts = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
    return b"*%d\r\n" % len(words) + parts


def address_of(text):
    """`127.0.0.1:24001` as what sockets take."""
    host, port = text.rsplit(":", 1)
    return host, int(port)
