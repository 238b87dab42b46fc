"""What is wrong with a queue, and what setup would change: in words, without a CUPS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relay.config.printers import Printer
from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.printing import device_uris
from relay.printing.diagnosis import has_paper, queue_faults, server_faults
from relay.printing.evidence import expected
from relay.printing.queues import NO_DRIVER, Queue, directives, queue_from
from relay.printing.setup import Setting, plan

A4 = BUILT_IN_PROFILES[0]
ROLL = Profile(name="roll", paper="80mm")
DEVICE = "ipp://10.0.0.5/ipp/print"
GOOD = Queue(
    "desk",
    f"{DEVICE}?contimeout=4",
    "Printer - IPP Everywhere",
    media=("iso_a4_210x297mm", "na_letter_8.5x11in", "custom_min_76x127mm", "custom_max_216x356mm"),
)
SNIPPET = Path(__file__).parents[2] / "config" / "cupsd-snippet.conf"


def printer(device: str | None = DEVICE) -> Printer:
    return Printer(
        name="main-desk", institution="demo", mailboxes=("a@b.example",), queue="desk", profile="a4", device=device
    )


@pytest.mark.parametrize(
    ("uri", "evidence"),
    [
        ("ipp://10.0.0.5/ipp/print", "device-confirmed"),
        ("ipps://printer.example:631/ipp/print?contimeout=4", "device-confirmed"),
        ("dnssd://Laser._ipp._tcp.local/?uuid=1", "spooler-confirmed"),
        ("implicitclass://desk/", "spooler-confirmed"),
        ("usb://EPSON/TM-T20?serial=1", "handed-over"),
        ("lpd://10.0.0.6/queue", "handed-over"),
        ("socket://10.0.0.6:9100", "handed-over"),
        ("file:///dev/usb/lp0", "handed-over"),
        ("serial:/dev/ttyS0?baud=9600", "handed-over"),
        ("", "handed-over"),
    ],
)
def test_the_evidence_to_expect_of_a_device(uri: str, evidence: str) -> None:
    assert expected(uri) == evidence


@pytest.mark.parametrize(
    ("uri", "known"),
    [
        ("ipp://10.0.0.5/ipp/print", True),
        ("IPPS://10.0.0.5/ipp/print", True),
        ("dnssd://Laser._ipps._tcp.local/?uuid=1", True),
        ("dnssd://Old._pdl-datastream._tcp.local/", False),
        ("socket://10.0.0.6", False),
        ("usb://EPSON/TM-T20", False),
    ],
)
def test_who_can_be_asked_for_its_abilities(uri: str, known: bool) -> None:
    assert device_uris.may_be_driverless(uri) is known


def test_a_time_limit_is_added_once_and_only_where_it_is_known() -> None:
    limited = device_uris.with_contimeout(DEVICE)
    assert limited == f"{DEVICE}?contimeout=4"
    assert device_uris.with_contimeout(limited) == limited
    assert device_uris.with_contimeout(f"{DEVICE}?waitjob=false") == f"{DEVICE}?waitjob=false&contimeout=4"
    assert device_uris.with_contimeout(f"{DEVICE}?contimeout=60") == f"{DEVICE}?contimeout=60"
    assert device_uris.with_contimeout("socket://10.0.0.6") == "socket://10.0.0.6"


@pytest.mark.parametrize(
    ("uri", "place"),
    [
        ("ipp://10.0.0.5/ipp/print", ("10.0.0.5", 631)),
        ("ipps://[2001:db8::5]:1631/ipp/print", ("2001:db8::5", 1631)),
        ("socket://10.0.0.6", ("10.0.0.6", 9100)),
        ("lpd://host/queue", ("host", 515)),
        ("usb://EPSON/TM-T20", None),
        ("ipp://10.0.0.5:port/ipp", None),
        ("", None),
    ],
)
def test_the_address_of_a_device(uri: str, place: tuple[str, int] | None) -> None:
    assert device_uris.address(uri) == place


def test_a_good_queue_has_no_fault_and_nothing_to_change() -> None:
    for device in (DEVICE, None):
        assert queue_faults(printer(device), A4, GOOD) == []
        assert plan(printer(device), GOOD).changes == ()
        assert plan(printer(device), GOOD).obstacle == ""


SETUP = "`slip-relay printers setup main-desk --apply`"


@pytest.mark.parametrize(
    ("wrong", "what", "mend", "stops"),
    [
        ({"state": 5}, "the queue is paused", "`cupsenable desk`", True),
        ({"state": 5, "message": "Printer stopped"}, "the queue is paused (Printer stopped)", "cupsenable", True),
        ({"accepts": False}, "the queue rejects jobs", "`cupsaccept desk`", True),
        ({"driver": NO_DRIVER}, "no driver, so CUPS can't tell", SETUP, True),
        ({"driver": NO_DRIVER, "device": "socket://h"}, "may not understand", "-m MODEL", True),
        ({"hold_until": "night"}, "holds every job (night)", SETUP, True),
        ({"reasons": ("media-empty-warning",)}, "the printer says media-empty", "fill in paper", True),
        ({"reasons": ("offline-report", "media-jam-error")}, "the printer says media-jam", "stuck", True),
        ({"reasons": ("cups-missing-filter-warning",)}, "a filter of the driver is missing", "package", True),
        ({"media": ("iso_a5_148x210mm",)}, "does not know the paper A4 of the profile 'a4'", "lpoptions -p desk", True),
        ({"device": DEVICE}, "has no contimeout", SETUP, False),
        ({"error_policy": "stop-printer"}, "when the device fails CUPS pauses the queue", SETUP, False),
        ({"error_policy": "abort-job"}, "when the device fails CUPS throws the slip away", SETUP, False),
        ({"error_policy": "retry-current-job"}, "CUPS lets no other slip pass", SETUP, False),
        ({"banners": ("standard",)}, "each slip comes with a banner page (standard)", SETUP, False),
        ({"has_quota": True}, "the queue has a quota", "-o job-k-limit=0 -o job-page-limit=0", False),
    ],
)
def test_each_fault_is_named_with_its_mend(wrong: dict[str, Any], what: str, mend: str, stops: bool) -> None:
    (fault,) = queue_faults(printer(None), A4, replace(GOOD, **wrong))
    assert what in fault.what
    assert mend in fault.mend
    assert fault.stops is stops


def test_a_missing_queue_and_how_to_get_one() -> None:
    (fault,) = queue_faults(printer(), A4, None)
    assert str(fault) == f"CUPS has no queue 'desk'; {SETUP}"
    (fault,) = queue_faults(printer(None), A4, None)
    assert "name its device" in fault.mend
    assert fault.stops


def test_a_device_that_is_away_or_another_one() -> None:
    (fault,) = queue_faults(printer(), A4, GOOD, "10.0.0.5 port 631 does not answer within 3 s")
    assert fault.what == "the device is away: 10.0.0.5 port 631 does not answer within 3 s"
    (fault,) = queue_faults(printer("ipp://10.0.0.9/ipp/print"), A4, GOOD)
    assert "prints on ipp://10.0.0.5/ipp/print?contimeout=4, not on ipp://10.0.0.9/ipp/print" in fault.what


def test_what_stops_slips_comes_first() -> None:
    found = queue_faults(printer(), A4, replace(GOOD, error_policy="abort-job", banners=("standard",), state=5))
    assert [fault.stops for fault in found] == [True, False, False]


@pytest.mark.parametrize(
    ("paper", "media", "known"),
    [
        ("A4", ("iso_a4_210x297mm",), True),
        ("A4", ("na_letter_8.5x11in",), False),
        ("Letter", ("na_letter_8.5x11in",), True),
        ("100x150mm", ("custom_min_20x20mm", "custom_max_110x200mm"), True),
        ("100x150mm", ("custom_min_20x20mm", "custom_max_90x200mm"), False),
        ("4x6in", ("na_index-4x6_4x6in",), True),
        ("80mm", ("om_roll_80x200mm", "custom_min_20x20mm", "custom_max_80x3000mm"), True),
        ("58mm", ("custom_min_70x20mm", "custom_max_80x3000mm"), False),
        ("80mm", ("custom_80x200mm_80x200mm",), False),
        ("80mm", ("custom_min_76x127mm", "custom_max_216x356mm"), False),
        ("80mm", ("iso_a4_210x297mm", "custom_min_80x200mm", "custom_max_80x200mm"), False),
        ("A4", (), False),
    ],
)
def test_a_paper_is_known_by_its_measure(paper: str, media: tuple[str, ...], known: bool) -> None:
    assert has_paper(Profile(name="p", paper=paper, margin_mm=2), media) is known


def test_a_queue_that_is_missing_is_made_of_its_device() -> None:
    steps = plan(printer(), None)
    assert [change.setting for change in steps.changes] == [
        Setting.QUEUE,
        Setting.DRIVER,
        Setting.DEVICE,
        Setting.POLICY,
        Setting.ACCEPTS,
        Setting.ENABLED,
    ]
    assert steps.device == f"{DEVICE}?contimeout=4"
    assert steps.obstacle == ""


@pytest.mark.parametrize(
    ("device", "said"), [(None, "name its device, as in"), ("socket://10.0.0.6", "-E -v socket://10.0.0.6 -m MODEL")]
)
def test_a_queue_that_setup_can_t_make(device: str | None, said: str) -> None:
    steps = plan(printer(device), None)
    assert steps.changes == ()
    assert said in steps.obstacle


@pytest.mark.parametrize(
    ("wrong", "changes"),
    [
        ({"device": DEVICE}, [(Setting.DEVICE, DEVICE, f"{DEVICE}?contimeout=4")]),
        ({"error_policy": "stop-printer"}, [(Setting.POLICY, "stop-printer", "retry-job")]),
        ({"banners": ("standard",)}, [(Setting.BANNERS, "standard", "none")]),
        ({"hold_until": "night"}, [(Setting.HOLD, "night", "no-hold")]),
        ({"accepts": False}, [(Setting.ACCEPTS, "no", "yes")]),
        ({"state": 5}, [(Setting.ENABLED, "no", "yes")]),
        ({"driver": NO_DRIVER}, [(Setting.DRIVER, "none", "IPP Everywhere")]),
        (
            {"device": "ipp://10.0.0.4/ipp/print?contimeout=4"},
            [
                (Setting.DRIVER, "Printer - IPP Everywhere", "IPP Everywhere"),
                (Setting.DEVICE, "ipp://10.0.0.4/ipp/print?contimeout=4", f"{DEVICE}?contimeout=4"),
            ],
        ),
    ],
)
def test_what_is_wrong_is_put_right_and_nothing_else(wrong: dict[str, Any], changes: list[tuple[Any, ...]]) -> None:
    steps = plan(printer(), replace(GOOD, **wrong))
    assert [(change.setting, change.old, change.new) for change in steps.changes] == changes


def test_a_device_without_ipp_keeps_its_driver_to_a_person() -> None:
    queue = replace(GOOD, device="socket://10.0.0.6", driver=NO_DRIVER, error_policy="abort-job")
    steps = plan(printer(None), queue)
    assert [change.setting for change in steps.changes] == [Setting.POLICY]
    assert "`lpadmin -p desk -m MODEL`" in steps.obstacle
    moved = plan(printer("socket://10.0.0.7"), replace(queue, driver="EPSON TM-T20"))
    assert [change.setting for change in moved.changes] == [Setting.DEVICE, Setting.POLICY]
    assert "see that the driver fits" in moved.obstacle


def test_a_queue_as_pycups_tells_of_it() -> None:
    told: Mapping[str, object] = {
        "device-uri": "socket://h",
        "job-hold-until-default": "no-hold",
        "job-k-limit": 0,
        "job-page-limit": 10,
        "job-sheets-default": ("none", "standard"),
        "media-supported": "iso_a4_210x297mm",
        "printer-error-policy": "stop-printer",
        "printer-is-accepting-jobs": False,
        "printer-make-and-model": NO_DRIVER,
        "printer-state": 5,
        "printer-state-message": None,
        "printer-state-reasons": ["none"],
        "queued-job-count": 3,
    }
    queue = queue_from("desk", told)
    assert queue.banners == ("standard",)
    assert queue.has_quota
    assert queue.media == ("iso_a4_210x297mm",)
    assert (queue.reasons, queue.waiting, queue.shown_state, queue.has_driver) == ((), 3, "paused", False)


def test_the_defaults_of_cups_are_told_of_and_the_snippet_mends_them() -> None:
    said = " ".join(str(fault) for fault in server_faults({}))
    for name in ("MaxJobTime", "MaxJobs", "JobRetryLimit", "PreserveJobFiles", "DirtyCleanInterval"):
        assert name in said
    assert not any(fault.stops for fault in server_faults({}))
    settings = directives(SNIPPET.read_text(encoding="utf-8")) | {"preservejobhistory": "No"}
    assert [fault.what[:18] for fault in server_faults(settings)] == ["PreserveJobHistory"]
    settings = directives(SNIPPET.read_text(encoding="utf-8"))
    assert server_faults(settings) == []
    assert settings["errorpolicy"] == "retry-job"
    assert int(settings["jobretryinterval"]) <= 30


@pytest.mark.parametrize(
    ("interval", "is_fault"), [("30", True), ("59m", True), ("soon", True), ("1h", False), ("2d", False)]
)
def test_a_cups_that_often_writes_down_what_it_prints_is_told_of(interval: str, is_fault: bool) -> None:
    settings = directives(SNIPPET.read_text(encoding="utf-8")) | {"dirtycleaninterval": interval}
    assert [fault.what.split()[0] for fault in server_faults(settings)] == ["DirtyCleanInterval"] * is_fault


def test_directives_of_sections_do_not_count() -> None:
    section = "<Policy default>\n  <Limit All>\n  MaxJobTime 0\n  </Limit>\n</Policy>\n"
    conf = f"# MaxJobs 1\nMaxJobTime 3h\n{section}MaxJobs 0 \n"
    assert directives(conf) == {"maxjobtime": "3h", "maxjobs": "0"}


def test_the_snippet_says_why_for_each_setting() -> None:
    for block in re.split(r"\n\n", SNIPPET.read_text(encoding="utf-8").strip())[1:]:
        *why, setting = block.splitlines()
        assert why, setting
        assert all(line.startswith("# ") for line in why)
        assert not setting.startswith("#")
