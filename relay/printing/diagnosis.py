"""What is wrong with a printer's queue or with its CUPS server, and how it is mended. Pure: it asks nobody.

Promises: each fault says what is wrong, what to do, and whether it keeps slips from paper now or only will one day.
Known limits: a length that a roll printer does not take is not looked for: slips are as long as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from relay.config.kinds import paper_size
from relay.config.printers import Printer
from relay.config.profiles import Profile
from relay.printing.device_uris import lacks_contimeout, may_be_driverless
from relay.printing.queues import Queue

ERROR_POLICY = "retry-job"

_SIZE = re.compile(r"_(\d+(?:\.\d+)?)x(\d+(?:\.\d+)?)(mm|in)$")
_RANGE = ("custom_min_", "custom_max_")
_TOLERANCE_MM = 1.0
_SHORT_SLIP_MM = 60.0
_SEVERITY = re.compile(r"-(report|warning|error)$")
_STOPPERS = {
    "cover-open": "close the cover",
    "door-open": "close the door",
    "input-tray-missing": "put the tray in",
    "interlock-open": "close what is open",
    "marker-supply-empty": "fill in ink or toner",
    "media-empty": "fill in paper",
    "media-jam": "take out the paper that is stuck",
    "media-needed": "fill in paper",
    "offline": "switch it on, and look at its cable and network",
    "output-area-full": "empty the output tray",
    "shutdown": "switch it on",
    "timed-out": "switch it on, and look at its cable and network",
    "toner-empty": "change the toner",
}
"""printer-state-reasons (RFC 8011 5.4.12, PWG 5100.9) with which a printer waits for a person."""

_SETTINGS = (
    ("maxjobtime", "MaxJobTime", "3h", "CUPS cancels a slip whose printer is out of paper or away for so long"),
    ("maxjobs", "MaxJobs", "500", "CUPS refuses new jobs when it has so many"),
    ("jobretrylimit", "JobRetryLimit", "5", "CUPS gives a slip up after so many tries"),
)
"""Directives of cupsd.conf that have to be 0: their key, name, default, and what they do otherwise."""
_OFF = re.compile(r"0+[a-z]?|no|off|false", re.IGNORECASE)
_RARELY_WRITTEN = 3600
"""Seconds between two times at which CUPS writes down what it prints, from which on it hardly prints a slip twice."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong: `what`, how to `mend` it, and whether it `stops` slips now."""

    what: str
    mend: str
    stops: bool = True

    def __str__(self) -> str:
        return f"{self.what}; {self.mend}"


def queue_faults(printer: Printer, profile: Profile, queue: Queue | None, unreachable: str = "") -> list[Fault]:
    """What is wrong with the queue of a printer, the worst first. `unreachable` says why its device does not answer."""
    if queue is None:
        return [Fault(f"CUPS has no queue {printer.queue!r}", _setup(printer) if printer.device else _name_it(printer))]
    found = [
        *_blocked(printer, queue),
        *_device(printer, queue, unreachable),
        *_paper(profile, queue),
        *_spoilt(printer, queue),
    ]
    return sorted(found, key=lambda fault: not fault.stops)


def server_faults(settings: Mapping[str, str]) -> list[Fault]:
    """What is wrong with the directives of cupsd.conf, as `queues.directives` gives them."""
    found = [
        Fault(f"{name} is {settings.get(key, default)}: {what}", f"set {name} 0 in cupsd.conf", stops=False)
        for key, name, default, what in _SETTINGS
        if not _OFF.fullmatch(settings.get(key, default))
    ]
    kept = settings.get("preservejobfiles", "1d")
    if not _OFF.fullmatch(kept):
        what = f"PreserveJobFiles is {kept}: CUPS keeps slips, with names of patrons, after they are printed"
        found.append(Fault(what, "set PreserveJobFiles No in cupsd.conf", stops=False))
    if _OFF.fullmatch(settings.get("preservejobhistory", "Yes")):
        what = "PreserveJobHistory is off: CUPS forgets what became of a job, so that after a crash nobody can tell"
        found.append(Fault(what, "set PreserveJobHistory 2592000 in cupsd.conf", stops=False))
    written = settings.get("dirtycleaninterval", "30")
    if _seconds(written) < _RARELY_WRITTEN:
        what = (
            f"DirtyCleanInterval is {written}: killed while it prints, CUPS may print the slip a second time by itself"
        )
        found.append(Fault(what, f"set DirtyCleanInterval {_RARELY_WRITTEN} in cupsd.conf", stops=False))
    return found


def _seconds(duration: str) -> int:
    """A duration of cupsd.conf; 0 when it is none."""
    match = re.fullmatch(r"(\d+)([smhdw]?)", duration.lower())
    return int(match[1]) * _UNITS[match[2]] if match else 0


def has_paper(profile: Profile, media: tuple[str, ...]) -> bool:
    """Whether a queue that knows these papers takes that of the profile: by its measure, whatever its name is."""
    width, height = paper_size(profile.paper)
    least, most = _custom(media, "min"), _custom(media, "max")
    if least and most and least[0] - _TOLERANCE_MM <= width <= most[0] + _TOLERANCE_MM:
        # A roll is cut where the slip ends, so it needs a range of lengths, the short ones among them.
        if height is None and least[1] <= _SHORT_SLIP_MM < most[1]:
            return True
        if height is not None and least[1] - _TOLERANCE_MM <= height <= most[1] + _TOLERANCE_MM:
            return True
    sizes = [size for name in media if not name.startswith(_RANGE) and (size := _measure(name))]
    return height is not None and any(
        abs(size[0] - width) <= _TOLERANCE_MM and abs(size[1] - height) <= _TOLERANCE_MM for size in sizes
    )


def _blocked(printer: Printer, queue: Queue) -> Iterator[Fault]:
    if queue.is_paused:
        why = f" ({queue.message})" if queue.message and queue.message != "Paused" else ""
        yield Fault(f"the queue is paused{why}", f"`cupsenable {queue.name}`, or {_setup(printer)}")
    if not queue.accepts:
        yield Fault("the queue rejects jobs", f"`cupsaccept {queue.name}`, or {_setup(printer)}")
    if not queue.has_driver:
        if may_be_driverless(queue.device):
            yield Fault("the queue has no driver, so CUPS can't tell the device of paper or PDF", _setup(printer))
        else:
            mend = (
                f"give it the driver of its model: `lpinfo -m` lists them, `lpadmin -p {queue.name} -m MODEL` takes one"
            )
            yield Fault("the queue has no driver, so the device gets PDF that it may not understand", mend)
    if queue.hold_until != "no-hold":
        yield Fault(f"the queue holds every job ({queue.hold_until})", _setup(printer))


def _device(printer: Printer, queue: Queue, unreachable: str) -> Iterator[Fault]:
    if unreachable:
        yield Fault(f"the device is away: {unreachable}", "switch it on, and look at its cable, network and address")
    for reason in queue.reasons:
        plain = _SEVERITY.sub("", reason)
        if plain in _STOPPERS and not reason.endswith("-report"):
            yield Fault(f"the printer says {plain}", _STOPPERS[plain])
        elif reason.startswith("cups-missing-filter"):
            yield Fault("a filter of the driver is missing", "install the driver's package on the CUPS server anew")
        elif reason.startswith("cups-insecure-filter"):
            yield Fault("CUPS does not run a filter of the driver that others may write", "mend the rights of its file")
    if printer.device is not None and not _same_device(printer.device, queue.device):
        yield Fault(f"the queue prints on {queue.device}, not on {printer.device}", _setup(printer), stops=False)
    elif lacks_contimeout(queue.device):
        what = "the device URI has no contimeout: while the device is off a job waits without a word"
        yield Fault(what, _setup(printer), stops=False)


def _paper(profile: Profile, queue: Queue) -> Iterator[Fault]:
    if queue.has_driver and queue.media and not has_paper(profile, queue.media):
        yield Fault(
            f"the queue does not know the paper {profile.paper} of the profile {profile.name!r}",
            f"choose a profile for its paper, or a driver that has it (`lpoptions -p {queue.name} -l` shows PageSize)",
        )


def _spoilt(printer: Printer, queue: Queue) -> Iterator[Fault]:
    if queue.error_policy != ERROR_POLICY:
        ends = {"stop-printer": "pauses the queue", "abort-job": "throws the slip away"}
        what = ends.get(queue.error_policy, "lets no other slip pass")
        said = f"the error policy is {queue.error_policy or 'unknown'}: when the device fails CUPS {what}"
        yield Fault(said, _setup(printer), stops=False)
    if queue.banners:
        said = f"each slip comes with a banner page ({', '.join(queue.banners)})"
        yield Fault(said, _setup(printer), stops=False)
    if queue.has_quota:
        mend = f"`lpadmin -p {queue.name} -o job-k-limit=0 -o job-page-limit=0`"
        yield Fault("the queue has a quota, and refuses slips when it is used up", mend, stops=False)


def _same_device(wanted: str, actual: str) -> bool:
    return wanted.partition("?")[0] == actual.partition("?")[0]


def _setup(printer: Printer) -> str:
    return f"`slip-relay printers setup {printer.name} --apply`"


def _name_it(printer: Printer) -> str:
    return (
        f'name its device, as in device = "ipp://10.0.0.5/ipp/print", in [[printers]] {printer.name!r}, and '
        f"{_setup(printer)}; or name a queue that there is (`lpstat -e`)"
    )


def _custom(media: tuple[str, ...], end: str) -> tuple[float, float] | None:
    return next((size for name in media if name.startswith(f"custom_{end}_") and (size := _measure(name))), None)


def _measure(name: str) -> tuple[float, float] | None:
    """Width and height in millimetres of a self-describing media name (PWG 5101.1)."""
    match = _SIZE.search(name)
    if match is None:
        return None
    unit = 25.4 if match[3] == "in" else 1.0
    return float(match[1]) * unit, float(match[2]) * unit
