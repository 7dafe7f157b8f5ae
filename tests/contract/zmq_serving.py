"""A ZeroMQ driver in a thread, for tests."""

import threading
from contextlib import contextmanager

import pytest
import zmq


@contextmanager
def serving(server):
    """The server in a thread of its own, to the end of the block."""

    def serve():
        with pytest.raises(zmq.ContextTerminated):
            server.serve()
        server._socket.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    server._context.term()
    thread.join()
