"""The CUPS server, asked through pycups.

Each question runs in a thread of its own with a connection of its own (pycups aborts the interpreter when one is
shared), and is given up after a time: libcups has no time limit of its own. A thread that hangs is left behind; when
too many hang, CUPS is said to be silent without being asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar

import cups

from relay.config.printers import Cups
from relay.errors import JobRefused, JobUnknown, NotPermitted, PrintError
from relay.printing.jobs import JobStatus, QueueStatus

T = TypeVar("T")

MAX_THREADS = 16
_NOT_FOUND = 0x0406  # client-error-not-found (RFC 8011 B.1.4.7)
# client-error-bad-request, -request-entity-too-large, -request-value-too-long, -document-format-not-supported,
# -attributes-or-values-not-supported, -conflicting-attributes, -document-format-error: another slip may well be taken.
_ABOUT_THE_JOB = {0x0400, 0x0408, 0x0409, 0x040A, 0x040B, 0x040E, 0x0411}
# client-error-forbidden, -not-authenticated, -not-authorized, cups-authentication-canceled: no or a wrong password.
_NOT_PERMITTED = {0x0401, 0x0402, 0x0403, 0x1000}
_HTTP_NOT_PERMITTED = {-1, 401, 403}  # -1 is how libcups says that authentication was given up
_NO_QUEUE = (0x0500, os.strerror(errno.ENOENT))  # what libcups itself says when it finds no queue of that name
_JOB_ATTRIBUTES = [
    "job-id",
    "job-name",
    "job-state",
    "job-state-reasons",
    "job-printer-state-message",
    "job-printer-state-reasons",
    "job-k-octets",
    "time-at-processing",
]
_BLOCK = 64 * 1024
_ENCRYPTION = {
    "never": cups.HTTP_ENCRYPT_NEVER,
    "if-requested": cups.HTTP_ENCRYPT_IF_REQUESTED,
    "required": cups.HTTP_ENCRYPT_REQUIRED,
}


class CupsServer:
    """One CUPS server. All methods raise PrintError when it refuses or does not answer."""

    def __init__(self, settings: Cups) -> None:
        self._is_socket = settings.server.startswith("/")
        host, _, port = settings.server.rpartition(":")
        self._host = settings.server if self._is_socket else host.strip("[]")
        self._port = 631 if self._is_socket else int(port)
        self._name = settings.server
        self._timeout = settings.timeout
        self._encryption = _ENCRYPTION[settings.encryption]
        self.user = settings.username or "slip-relay"
        "The owner of our jobs."
        self._administrator = settings.username or (_own_name() if self._is_socket else "") or self.user
        self._password = settings.password
        self._threads = threading.BoundedSemaphore(MAX_THREADS)

    async def queues(self) -> list[str]:
        """Names of the queues the server has."""
        return list(await self._ask(lambda c: c.getPrinters()))

    async def device_uri(self, queue: str) -> str:
        """The URI of a queue's device, without credentials. Raises JobUnknown when there is no such queue."""
        found = await self._ask(lambda c: c.getPrinterAttributes(queue, requested_attributes=["device-uri"]))
        return str(found.get("device-uri", ""))

    async def queue_status(self, queue: str) -> QueueStatus:
        """Whether a queue prints. Raises JobUnknown when there is no such queue."""
        wanted = ["printer-state", "printer-state-message", "printer-is-accepting-jobs"]
        found = await self._ask(lambda c: c.getPrinterAttributes(queue, requested_attributes=wanted))
        return QueueStatus(
            is_stopped=found.get("printer-state") == cups.IPP_PRINTER_STOPPED,
            accepts_jobs=bool(found.get("printer-is-accepting-jobs", True)),
            message=str(found.get("printer-state-message", "")),
        )

    async def resume_queue(self, queue: str) -> None:
        """Lets a queue go on that CUPS stopped. It may ask who wants that."""
        await self.ask(lambda c: c.enablePrinter(queue))

    async def create_job(self, queue: str, name: str, options: Mapping[str, str]) -> int:
        """Creates a job without a document and returns its id. Nothing is printed before `send_document`."""
        return int(await self._ask(lambda c: c.createJob(queue, name, dict(options))))

    async def send_document(self, queue: str, job_id: int, name: str, pdf: bytes) -> None:
        """Hands over the whole document of the job of that id and name; CUPS prints it from here on.

        Raises JobUnknown when CUPS has no such job: then nothing was handed over.
        """

        def send(connection: cups.Connection) -> None:
            _job(connection, job_id, name)
            connection.startDocument(queue, job_id, name, "application/pdf", 1)
            for start in range(0, len(pdf), _BLOCK):
                block = pdf[start : start + _BLOCK]
                connection.writeRequestData(block, len(block))
            connection.finishDocument(queue)

        await self._ask(send)

    async def job(self, job_id: int, name: str) -> JobStatus:
        """The state of the job of that id and name. Raises JobUnknown when CUPS has none.

        A CUPS that was killed gives ids a second time, so that the id alone may be another slip's.
        """
        return _status(await self._ask(lambda c: _job(c, job_id, name)))

    async def cancel_job(self, job_id: int, name: str) -> JobStatus:
        """Cancels a job and gives its state after that. A document that comes later is thrown away by CUPS."""

        def cancel(connection: cups.Connection) -> None:
            _job(connection, job_id, name)
            connection.cancelJob(job_id)

        await self._ask(cancel)
        return await self.job(job_id, name)

    async def find_job(self, name: str) -> int | None:
        """Id of the job of that name, finished or not, or None."""

        def find(connection: cups.Connection) -> int | None:
            first = 1
            # Get-Jobs answers with 500 jobs at the most.
            while jobs := connection.getJobs(
                which_jobs="all", limit=500, first_job_id=first, requested_attributes=["job-id", "job-name"]
            ):
                for job_id, attributes in jobs.items():
                    if attributes.get("job-name") == name:
                        return int(job_id)
                first = max(jobs) + 1
            return None

        return await self._ask(find)

    async def ask(self, question: Callable[[cups.Connection], T]) -> T:
        """What `question` answers, asked as who may change queues; for the modules of this package."""
        return await self._ask(question, self._administrator)

    async def _ask(self, question: Callable[[cups.Connection], T], user: str = "") -> T:
        user = user or self.user
        if not self._threads.acquire(blocking=False):
            raise PrintError(f"CUPS at {self._name} does not answer")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def tell(result: T | None, error: Exception | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result)  # type: ignore[arg-type]

        def ask() -> None:
            result, failure = None, None
            try:
                result = question(self._connect(user))
            except Exception as error:
                failure = error
            finally:
                self._threads.release()
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(tell, result, failure)

        threading.Thread(target=ask, name="cups", daemon=True).start()
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise PrintError(f"CUPS at {self._name} did not answer within {self._timeout:g} s") from None
        except cups.IPPError as error:
            if error.args[0] in _NOT_PERMITTED:
                raise self._not_permitted(user) from None
            raise _refusal(self._name, error) from None
        except (cups.HTTPError, RuntimeError, OSError) as error:
            if isinstance(error, cups.HTTPError) and error.args[0] in _HTTP_NOT_PERMITTED:
                raise self._not_permitted(user) from None
            raise PrintError(f"CUPS at {self._name} can't be reached: {error}") from None

    def _connect(self, user: str) -> cups.Connection:
        # libcups keeps these per thread. Naming the server to Connection alone is not enough: createJob builds the
        # URI of its queue from the port set here, and CUPS does not know the queue under another one.
        cups.setServer(self._host)
        if not self._is_socket:
            cups.setPort(self._port)
        cups.setUser(user)
        cups.setEncryption(self._encryption)
        # Read anew each time, so that a changed password counts at once.
        password = self._password.reveal() if self._password is not None else None
        tried: set[str] = set()

        def answer(_prompt: str, _connection: cups.Connection, _method: str, resource: str) -> str | None:
            """The password once for each resource: libcups asks again and again while it is wrong. None gives up."""
            if resource in tried:
                return None
            tried.add(resource)
            return password

        cups.setPasswordCB2(answer)
        return cups.Connection()

    def _not_permitted(self, user: str) -> NotPermitted:
        if self._password is None:
            return NotPermitted(f"CUPS at {self._name} does not let the user {user!r} do this without a password")
        return NotPermitted(
            f"CUPS at {self._name} does not let the user {user!r} do this: the password is wrong, or the user "
            "has too few rights"
        )


def _job(connection: cups.Connection, job_id: int, name: str) -> Mapping[str, object]:
    """What CUPS says of a job. Raises JobUnknown when its job of that id has another name."""
    found: Mapping[str, object] = connection.getJobAttributes(job_id, requested_attributes=_JOB_ATTRIBUTES)
    if found.get("job-name") != name:
        raise JobUnknown(f"CUPS has forgotten the print job {job_id}, and has another one of that number")
    return found


def _own_name() -> str:
    """The user of this process: on its socket CUPS knows who is there, when the name fits. "" when it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return ""


def is_unknown(error: cups.IPPError) -> bool:
    """Whether CUPS says that it has no job or queue of that name."""
    code, meaning = (*error.args, "")[:2]
    return code == _NOT_FOUND or (code, meaning) == _NO_QUEUE


def _refusal(server: str, error: cups.IPPError) -> PrintError:
    code, meaning = (*error.args, "")[:2]
    if is_unknown(error):
        return JobUnknown(f"CUPS at {server} does not know it: {meaning}")
    if code in _ABOUT_THE_JOB:
        return JobRefused(f"CUPS at {server} does not take this slip: {meaning} ({code})")
    return PrintError(f"CUPS at {server} refused: {meaning} ({code})")


def _status(attributes: Mapping[str, object]) -> JobStatus:
    return JobStatus(
        state=int(str(attributes.get("job-state", 0))),
        reasons=keywords(attributes.get("job-state-reasons")),
        message=str(attributes.get("job-printer-state-message") or ""),
        began=bool(attributes.get("time-at-processing")),
        processing_at=int(str(attributes.get("time-at-processing") or 0)),
        is_empty=attributes.get("job-k-octets") == 0,
        printer_reasons=keywords(attributes.get("job-printer-state-reasons")),
    )


def keywords(value: object) -> tuple[str, ...]:
    """One keyword or many, as pycups gives them."""
    if value is None:
        return ()
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else (str(value),)
