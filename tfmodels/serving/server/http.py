"""The HTTP protocol with a limit of time for a request's head, which uvicorn has not."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
_MESSAGE = b"The request's head must arrive in time."
_TIMED_OUT = b"\r\n".join(
    [
        b"HTTP/1.1 408 Request Timeout",
        b"content-type: text/plain; charset=utf-8",
        b"content-length: %d" % len(_MESSAGE),
        b"connection: close",
        b"",
        _MESSAGE,
    ]
)


class PatientProtocol(H11Protocol):
    """H11Protocol that answers 408 to a client whose head does not arrive in time."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self._start_timer()

    def data_received(self, data):
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:  # a head is whole
            self._head_timer.cancel()
        elif self._waits_for_head() and self._head_timer.cancelled():
            self._start_timer()  # of a further request on the same connection

    def connection_lost(self, exc):
        self._head_timer.cancel()
        super().connection_lost(exc)

    def _start_timer(self):
        self._head_timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._give_up)

    def _waits_for_head(self):
        return self.cycle is None or self.cycle.response_complete

    def _give_up(self):
        if self._waits_for_head() and not self.transport.is_closing():
            self.transport.write(_TIMED_OUT)
            self.transport.close()
