"""Who may send, as the running service knows it: each source, and its addresses in force.

A source: `{name, institutions, networks, spf, certificates, username, sandbox, divert_to}`; each of its SPF names is
`{name, networks, unusable, looked_up_at, due_at, fault}`, times in seconds since the epoch, `looked_up_at` null while
there was no good answer.
"""

from __future__ import annotations

from typing import Any

from relay.config.settings import Config
from relay.intake.spf_sources import Known, SpfSources

Json = dict[str, Any]


def report(config: Config, spf: SpfSources) -> list[Json]:
    """All sources, in the order of the configuration."""
    known = {each.name: each for each in spf.all_known()}
    return [
        {
            "name": source.name,
            "institutions": list(source.institutions),
            "networks": [str(network) for network in source.networks],
            "spf": [_spf(known[name]) for name in source.spf],
            "certificates": list(source.certificates),
            "username": source.username,
            "sandbox": source.sandbox,
            "divert_to": source.divert_to,
        }
        for source in config.sources
    ]


def _spf(known: Known) -> Json:
    answer = known.answer
    return {
        "name": known.name,
        "networks": [str(network) for network in answer.networks] if answer is not None else [],
        "unusable": list(answer.unusable) if answer is not None else [],
        "looked_up_at": known.looked_up_at if answer is not None else None,
        "due_at": known.due_at,
        "fault": known.fault,
    }
