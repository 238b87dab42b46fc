"""`explain`, `render`, `profiles`: what would become of a letter, and how it would look, with no service or printer.

The letter is read and laid out as always in a rendering child, which has given up what it can; nothing is sent, printed
or written down but the PDF that was asked for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from relay.cli.explanation import Explained, explain_letter, tell
from relay.cli.options import config_option, json_option, load_or_exit
from relay.cli.shapes import print_json
from relay.cli.tables import Column, show_table
from relay.config.kinds import is_file
from relay.config.printers import Rendering
from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.config.settings import Config
from relay.errors import AddressError, RenderError
from relay.mail.address import Address, parse_address
from relay.routing.rules import wanted
from relay.slips.facts import Facts
from relay.slips.pool import RenderPool

T = TypeVar("T")

MAX_FILE = 64 * 1024 * 1024

_DEFAULT_CONFIG = Path("/etc/slip-relay/relay.toml")
_PROFILES = (
    Column("profile"),
    Column("from"),
    Column("paper"),
    Column("margin", right=True),
    Column("dpi", right=True),
    Column("font"),
    Column("template"),
    Column("printers", folds=True),
)

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_optional_config = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help=f"The configuration file; without it {_DEFAULT_CONFIG} if it is there, else the built-in profiles.",
)


def _mailbox(context: click.Context, parameter: click.Parameter, value: str | None) -> Address | None:
    if value in (None, "", "<>"):
        return None
    try:
        return parse_address(str(value).strip("<>"))
    except AddressError as error:
        raise click.BadParameter(str(error), context, parameter) from None


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> float:
    if value is None:
        return time.time()
    try:
        return datetime.fromisoformat(value).timestamp()  # without an offset: the clock of this machine
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter("a time is written as in 2026-11-25T18:30", context, parameter) from None


@click.command()
@_file
@config_option
@click.option("--to", "recipient", callback=_mailbox, required=True, metavar="MAILBOX", help="The envelope recipient.")
@click.option("--from", "sender", callback=_mailbox, metavar="ADDR", help="The reverse-path; without it the null one.")
@click.option("--at", callback=_moment, metavar="TIME", help="When it arrives, as in 2026-11-25T18:30; without it now.")
@click.option("--institution", help="Whose mail it is, where neither the mailbox nor the From domain tells.")
@click.option("--source", help="Who hands it in; without it the first source that sends for the institution.")
@json_option
def explain(
    file: Path,
    config_path: Path,
    recipient: Address | None,
    sender: Address | None,
    at: float,
    institution: str | None,
    source: str | None,
    as_json: bool,
) -> None:
    """Say what a letter is, which rules are for it and why, and what would become of it."""
    config = load_or_exit(config_path)
    if recipient is None:
        raise click.BadParameter("a recipient is an address", param_hint="--to")
    content = _read(file)

    async def facts_for(owner: str) -> Facts:
        try:
            return await _with_child(config.rendering, lambda pool: pool.describe(content, wanted(config, owner)))
        except RenderError as error:
            return Facts(unreadable=str(error))

    explained: Explained = asyncio.run(
        explain_letter(
            config,
            content,
            recipient=recipient,
            sender=str(sender) if sender is not None else None,
            at=at,
            institution=institution,
            source=source,
            read=facts_for,
        )
    )
    if as_json:
        print_json(explained.shape())
    else:
        tell(explained)


@click.command()
@_file
@click.option("--profile", "name", required=True, help="The profile; `slip-relay profiles` shows them.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The PDF to write.")
@_optional_config
def render(file: Path, name: str, out: Path, config_path: Path | None) -> None:
    """Lay a letter out as a printer of that profile would get it, and write the PDF; print nothing."""
    config = _config(config_path)
    known = _profiles(config)
    if name not in known:
        raise click.BadParameter(f"there is no profile {name!r}; there are: {', '.join(known)}", param_hint="--profile")
    content = _read(file)
    rendering = config.rendering if config is not None else Rendering()
    slip = asyncio.run(_with_child(rendering, lambda pool: pool.render(content, known[name])))
    try:
        out.write_bytes(slip.pdf)
    except OSError as error:
        raise click.ClickException(f"{out} can't be written: {error.strerror}") from None
    pages = "1 page" if slip.pages == 1 else f"{slip.pages} pages"
    click.echo(f"{out}: {pages} of {slip.width_mm:g} x {slip.height_mm:g} mm")
    for note in slip.notes:
        click.echo(f"note: {note}")


@click.command()
@_optional_config
@json_option
def profiles(config_path: Path | None, as_json: bool) -> None:
    """Show the profiles, built-in ones and those of the configuration, and which printers have them."""
    config = _config(config_path)
    known = _profiles(config)
    own = {profile.name for profile in config.profiles} if config is not None else set()
    printers = {
        name: [printer.name for printer in config.printers if printer.profile == name] if config is not None else []
        for name in known
    }
    if as_json:
        shape: list[dict[str, Any]] = [
            {**profile.model_dump(mode="json"), "built_in": name not in own, "printers": printers[name]}
            for name, profile in known.items()
        ]
        print_json(shape)
        return
    rows = [
        (
            name,
            "configuration" if name in own else "built in",
            profile.paper,
            f"{profile.margin_mm:g} mm",
            str(profile.dpi),
            f"{profile.font_size_pt:g} pt {profile.font_family.partition(',')[0]}",
            profile.template,
            ", ".join(printers[name]),
        )
        for name, profile in known.items()
    ]
    show_table(_PROFILES, rows)


def _config(path: Path | None) -> Config | None:
    if path is None and not is_file(_DEFAULT_CONFIG):
        return None
    return load_or_exit(path or _DEFAULT_CONFIG)


def _profiles(config: Config | None) -> dict[str, Profile]:
    """By name; one of the configuration takes the place of the built-in one of its name."""
    own = config.profiles if config is not None else ()
    return {profile.name: profile for profile in (*BUILT_IN_PROFILES, *own)}


def _read(path: Path) -> bytes:
    """A message from a file, with the line ends that it has on the wire."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except OSError as error:
        raise click.ClickException(f"{path} can't be read: {error.strerror}") from None
    if len(content) > MAX_FILE:
        raise click.ClickException(f"{path} is larger than {MAX_FILE // 2**20} MB")
    return content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


async def _with_child(rendering: Rendering, work: Callable[[RenderPool], Awaitable[T]]) -> T:
    """Work with a pool of one child, started for it."""
    pool = RenderPool(rendering.model_copy(update={"children": 1}))
    await pool.start()
    try:
        return await work(pool)
    finally:
        await pool.stop()
