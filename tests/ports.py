"""A port of this machine that nobody listens on."""

import socket


def free_port() -> int:
    """As the system hands it out; taken again only by chance before its use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
