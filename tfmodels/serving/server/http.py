"""The HTTP protocol with a limit of time for a request's head, which uvicorn has not."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
_TIMED_OUT = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 31\r\nconnection: close\r\n\r\nThe request's head came too slow"[:-1]
)


class PatientProtocol(H11Protocol):
    """H11Protocol that answers 408 to a client whose head does not arrive in time."""

    def connection_made(self, transport):
        super().connection_made(transport)
        self._head_timer = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._give_up)

    def data_received(self, data):
        super().data_received(data)
        if self.cycle is not None:  # the head is whole
            self._head_timer.cancel()

    def connection_lost(self, exc):
        self._head_timer.cancel()
        super().connection_lost(exc)

    def _give_up(self):
        if self.cycle is None and not self.transport.is_closing():
            self.transport.write(_TIMED_OUT)
            self.transport.close()
