"""Rows of the tables as records: which columns a record is read from, and how."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sqlalchemy import Row, Select, select

from relay.spool.records import Delivery, Message, PrintJob, State
from relay.spool.schema import deliveries, messages, print_jobs

MESSAGE_COLUMNS = tuple(column.name for column in messages.c)

_DELIVERY_COLUMNS = (
    *("number", "recipient", "route", "destination", "attempts", "next_attempt_at", "notify", "orcpt", "begun_at"),
    *("warn_at", "expires_at", "reason", "profile", "copies", "copy_of", "moved_from", "reprint_of", "marked"),
    *("merge", "is_bundle", "bundle"),
)

_JOB_FIELDS = tuple(field.name for field in fields(PrintJob))
JOB_COLUMNS = tuple(print_jobs.c[name].label(f"job_{name}") for name in _JOB_FIELDS)
"""The columns of a print job, as `job_of` reads them."""


def joined() -> Select[Any]:
    """Deliveries with their messages and print jobs, as `delivery_of` reads them."""
    return (
        select(
            deliveries,
            *(column for column in messages.c if column.name != "queue_id"),
            *JOB_COLUMNS,
        )
        .join_from(deliveries, messages, deliveries.c.queue_id == messages.c.queue_id)
        .outerjoin(
            print_jobs,
            (print_jobs.c.queue_id == deliveries.c.queue_id) & (print_jobs.c.number == deliveries.c.number),
        )
    )


def delivery_of(row: Row[Any]) -> Delivery:
    """A row of `joined` as a record."""
    return Delivery(
        message=Message(**{name: getattr(row, name) for name in MESSAGE_COLUMNS}),
        state=State(row.state),
        job=job_of(row),
        **{name: getattr(row, name) for name in _DELIVERY_COLUMNS},
    )


def job_of(row: Any) -> PrintJob | None:
    """The print job in a row that has `JOB_COLUMNS`; None when there is none."""
    if row.job_name is None:
        return None
    return PrintJob(**{name: getattr(row, f"job_{name}") for name in _JOB_FIELDS})
