"""The settings of MTA-STS (RFC 8461), for mail that goes to the MX of each recipient's domain."""

from __future__ import annotations

from pathlib import Path

from pydantic import field_validator

from relay.config.kinds import Port, Settings, is_file


class MtaSts(Settings):
    """Whether policies are kept to, where they come from, and where they are kept."""

    enabled: bool = True
    "Whether they are asked for at all."
    policies: Path | None = None
    "File of the policies that were fetched, for the next start; without it `mta-sts.json` beside the spool's file."
    ca_file: Path | None = None
    "PEM file with the authorities by which policy hosts and mail hosts are verified, instead of the system's."
    private_hosts: bool = False
    "Whether a policy may come from a private address. A recipient's domain chooses the host, so the default is no."
    port: Port = 443
    "Port of policy hosts; another one is for tests."

    @field_validator("ca_file")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value is not None and not is_file(value):
            raise ValueError(f"the file {value} does not exist")
        return value
