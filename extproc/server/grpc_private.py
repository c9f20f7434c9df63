"""The part of grpc's private API that we use; grpc's own servers use it too (grpc/_server.py).

No other module imports it. Tests run against the oldest and the newest version that is allowed.
"""

import logging
import os
from typing import Final

# Sockets are read and written by the thread that polls instead of four others. grpc reads the variable when it is
# loaded; versions without this experiment ignore it.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
# grpc itself writes lines to stderr, on whichever thread has something to say: for each TLS handshake that fails,
# and once a second while file descriptors have run out. If stderr is a pipe that is not read, that thread waits
# forever, and it may be the one that decides. log_writer.py does not see these lines.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from grpc import ServerCredentials
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # not in the stubs

__all__ = [
    "MORE_FOLLOW",
    "NO_FLAGS",
    "TIMEOUT",
    "CompletionQueue",
    "CoreServer",
    "Receive",
    "ReceiveClose",
    "Send",
    "SendInitialMetadata",
    "SendStatus",
    "ServerCredentials",
]


def _without_values(record: logging.LogRecord) -> bool:
    """Pass a record of cygrpc without its arguments: metadata that is not UTF-8, which may be a client's where the
    gateway passes it on, as with `tracestate`.
    """
    record.args = None
    return True


logging.getLogger(cygrpc.__name__).addFilter(_without_values)

NO_FLAGS: Final = 0
MORE_FOLLOW: Final = cygrpc.WriteFlag.buffer_hint  # the message is held back until the next one is written
TIMEOUT: Final = cygrpc.CompletionType.queue_timeout
CompletionQueue = cygrpc.CompletionQueue
CoreServer = cygrpc.Server
Receive = cygrpc.ReceiveMessageOperation
Send = cygrpc.SendMessageOperation
SendInitialMetadata = cygrpc.SendInitialMetadataOperation
SendStatus = cygrpc.SendStatusFromServerOperation
ReceiveClose = cygrpc.ReceiveCloseOnServerOperation
