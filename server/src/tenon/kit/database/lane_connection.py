"""One libpq connection of the fast lane: pipeline mode, one request in flight, results drained by the event loop.

A request is one implicit transaction: become the tenant, run the query, one Sync. PostgreSQL ends role and settings with the Sync, also
after an error in any statement (measured, reference/performance.md).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

from psycopg import OperationalError
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, PGconn, PollingStatus, TransactionStatus
from psycopg.pq.abc import PGcancelConn, PGresult
from psycopg.pq.abc import PGconn as Connection

STATEMENTS_MAX = 256  # prepared statements a connection keeps; the least recently used is closed
_CONTEXT = b"tenon_context"
_BECOME = (
    b"select set_config('role', $1, true), set_config('tenon.principal', $2, true), set_config('transaction_read_only', 'on', true),"
    b" set_config('statement_timeout', $3, true)"
)
# Nothing about an answer may depend on the session: names are qualified, times are UTC, floats are exact.
_OPTIONS = (
    b" connect_timeout='5' application_name='tenon-lane'"
    b" options='-c search_path=pg_catalog -c timezone=UTC -c extra_float_digits=1 -c default_transaction_read_only=on'"
)


class QueryFailed(Exception):
    """PostgreSQL refused the statement. Internal: the text may hold values and never reaches a caller."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{sqlstate}: {message}")
        self.sqlstate = sqlstate


class ConnectionBroken(Exception):
    """The connection is gone, and with it the answer."""


class Request(NamedTuple):
    """What one pipeline carries. Parameters are in PostgreSQL's text format."""

    role: bytes
    principal: bytes
    timeout_ms: bytes
    sql: str
    params: Sequence[bytes | None]


def open_connection(conninfo: str) -> Connection:
    """Connect and prepare the context statement; blocks, so it runs in a thread. Raises ConnectionBroken."""
    pgconn = PGconn.connect(conninfo.encode() + _OPTIONS)
    try:
        if pgconn.status != ConnStatus.OK:
            raise ConnectionBroken(pgconn.get_error_message())
        prepared = pgconn.prepare(_CONTEXT, _BECOME)
        if prepared.status != ExecStatus.COMMAND_OK:
            raise ConnectionBroken(prepared.get_error_message())
        pgconn.nonblocking = 1
        pgconn.enter_pipeline_mode()
    except BaseException:
        pgconn.finish()
        raise
    return pgconn


class _Sent(NamedTuple):
    """What is in flight, to read its results by: closes, then context, then a parse if the statement is new, then the query."""

    closes: int
    name: bytes
    is_new: bool
    sql: str


class LaneConnection:
    """A connection and its prepared statements. `run` may be called only while nothing is in flight."""

    def __init__(self, pgconn: Connection, loop: asyncio.AbstractEventLoop, on_lost: Callable[[LaneConnection], None]) -> None:
        self.opened_at = self.idle_since = loop.time()
        self.uses = 0
        self.tenants: set[UUID] = set()
        self.closed = False
        self._pgconn = pgconn
        self._socket = pgconn.socket
        self._loop = loop
        self._on_lost = on_lost
        self._statements: OrderedDict[str, bytes] = OrderedDict()
        self._to_close: list[bytes] = []
        self._names = 0
        self._sent: _Sent | None = None  # not None while a request is in flight
        self._results: list[PGresult] = []
        self._answer: asyncio.Future[bytes] = loop.create_future()
        self._settled: asyncio.Future[None] | None = None
        self._writing = False
        loop.add_reader(self._socket, self._readable)

    @property
    def backend_pid(self) -> int:
        """The server process, for tests and logs."""
        return self._pgconn.backend_pid

    @property
    def statement_count(self) -> int:
        """How many prepared queries it holds."""
        return len(self._statements)

    def holds(self, sql: str) -> bool:
        """Whether this query is prepared here."""
        return sql in self._statements

    def run(self, request: Request) -> asyncio.Future[bytes]:
        """Send; the future gives the only row's first column (`null` when there is none), QueryFailed or ConnectionBroken.

        A cancelled future leaves the request in flight: `settle` must end before the connection is used again.
        """
        if self._sent is not None:
            raise RuntimeError("a request is in flight on this connection: its answer would go to the wrong tenant")
        self.uses += 1
        self._results = []
        answer = self._answer = self._loop.create_future()
        try:
            self._send(request)
        except OperationalError as error:
            self.lose(str(error))
        return answer

    def _send(self, request: Request) -> None:
        pgconn, name = self._pgconn, self._statements.get(request.sql)
        is_new = name is None
        if name is None:
            self._make_room()
            self._names += 1
            name = b"q%d" % self._names
        else:
            self._statements.move_to_end(request.sql)
        closes, self._to_close = self._to_close, []
        self._sent = _Sent(len(closes), name, is_new, request.sql)
        # Closes go first: after an error the server skips everything up to the Sync.
        for old in closes:
            pgconn.send_close_prepared(old)
        pgconn.send_query_prepared(_CONTEXT, (request.role, request.principal, request.timeout_ms))
        if is_new:  # parsed under the tenant's role: names resolve with its rights
            pgconn.send_prepare(name, request.sql.encode())
        pgconn.send_query_prepared(name, request.params)
        pgconn.pipeline_sync()
        self._flush()

    def _make_room(self) -> None:
        while len(self._statements) >= STATEMENTS_MAX:
            self._to_close.append(self._statements.popitem(last=False)[1])

    def _flush(self) -> None:
        unsent = self._pgconn.flush() == 1
        if unsent and not self._writing:
            self._loop.add_writer(self._socket, self._writable)
        elif self._writing and not unsent:
            self._loop.remove_writer(self._socket)
        self._writing = unsent

    def _writable(self) -> None:
        try:
            self._flush()
        except OperationalError as error:
            self.lose(str(error))

    def _readable(self) -> None:
        pgconn = self._pgconn
        try:
            pgconn.consume_input()
            if self._writing:
                self._flush()
            while not pgconn.is_busy():
                if self._sent is None:
                    break  # idle: a notice, or a parameter's status
                result = pgconn.get_result()
                if result is None:
                    if pgconn.status != ConnStatus.OK:
                        raise OperationalError(pgconn.get_error_message())
                elif result.status == ExecStatus.PIPELINE_SYNC:
                    self._finish()
                else:
                    self._results.append(result)
        except OperationalError as error:
            self.lose(str(error))

    def _finish(self) -> None:
        sent, results = self._sent, self._results
        assert sent is not None
        self._sent, self._results = None, []
        if self._pgconn.transaction_status != TransactionStatus.IDLE:
            self.lose("the transaction did not end with the Sync")
            return
        at_parse = sent.closes + 1
        if sent.is_new and len(results) > at_parse and results[at_parse].status == ExecStatus.COMMAND_OK:
            self._statements[sent.sql] = sent.name
        if self._settled is not None:
            self._settled.set_result(None)
            self._settled = None
        if not self._answer.done():
            _read(results, self._answer)

    def forget(self, sql: str) -> bool:
        """Drop a prepared statement whose plan DDL made invalid; whether there was one."""
        name = self._statements.pop(sql, None)
        if name is not None:
            self._to_close.append(name)
        return name is not None

    async def settle(self) -> None:
        """After a cancelled `run`: cancel it on the server and wait until both the cancel and the pipeline are over.

        Only then may the next request use the connection: a late cancel would hit it. Raises OperationalError or ConnectionBroken.
        """
        if self._sent is None:
            return
        self._settled = self._loop.create_future()
        await asyncio.gather(_cancel(self._pgconn.cancel_conn(), self._loop), self._settled)

    def lose(self, reason: str) -> None:
        """Give up the connection: fail what is in flight, close the socket, notify the lane. Closing twice is harmless."""
        if self.closed:
            return
        self.close()
        error = ConnectionBroken(reason)
        for waiting in (self._answer, self._settled):
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # retrieved: whoever waits still gets it
        self._on_lost(self)

    def close(self) -> None:
        """Leave the event loop and close the socket."""
        if self.closed:
            return
        self.closed = True
        self._loop.remove_reader(self._socket)
        if self._writing:
            self._loop.remove_writer(self._socket)
        self._pgconn.finish()


def _sqlstate(result: PGresult) -> str:
    return (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()


def _read(results: list[PGresult], answer: asyncio.Future[bytes]) -> None:
    """Resolve `answer` from a finished pipeline: the first error, else the last result's value."""
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            answer.set_exception(QueryFailed(_sqlstate(result), result.get_error_message()))
            return
    last = results[-1]
    answer.set_result((last.get_value(0, 0) if last.ntuples else None) or b"null")


async def _cancel(request: PGcancelConn, loop: asyncio.AbstractEventLoop) -> None:
    """Ask the server to cancel; returns when it has closed the cancel connection, which it does after signalling the backend."""
    try:
        request.start()
        while (status := request.poll()) != PollingStatus.OK:
            if status == PollingStatus.FAILED:
                raise OperationalError(request.get_error_message())
            await _wait_for_socket(request.socket, status == PollingStatus.READING, loop)
    finally:
        request.finish()


async def _wait_for_socket(socket: int, reading: bool, loop: asyncio.AbstractEventLoop) -> None:
    ready = loop.create_future()
    add, remove = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)

    def is_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    add(socket, is_ready)
    try:
        await ready
    finally:
        remove(socket)
