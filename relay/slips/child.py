"""The rendering child: `python -m relay.slips.child PARENT MEMORY MAX_PAGES [FOLDER ...]`.

Does: loads WeasyPrint and the fonts, renders a first slip of its own to be warm, gives up what it does not need
(`relay.slips.sandbox`), and then answers requests on its standard streams, one at a time (`relay.slips.frames`).
Promises: every request that was read gets one answer, or the child is dead. Nothing but frames goes to the service:
its standard output and error are closed to everything else before the first letter, so no letter gets into a log.
Refuses: to go on after it ran out of memory: it answers, and ends.
Known limits: a child that hangs or crashes in a C library answers nothing; `relay.slips.pool` sees to that.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Any, BinaryIO

from relay.config.pictures import Pictures
from relay.config.profiles import BUILT_IN_PROFILES, Profile
from relay.errors import RenderError
from relay.slips import facts, frames, sandbox, stack
from relay.slips.describe import describe
from relay.slips.page import slip_templates
from relay.slips.render import Renderer

# Boxes and styles of a slip live until it is written: looking through them after every 700 finds nothing.
_GC_THRESHOLDS = (10_000, 10, 10)

_WARM_UP = """\
MIME-Version: 1.0
Content-Type: text/html; charset=utf-8

<html><head><style>td { font-family: arial, sans-serif; color: #333 }</style></head><body>
<h1>Slip</h1><p><b>Größe</b> <i>fjernlån</i> Łódź Прага Αθήνα \u05e9\u05dc\u05d5\u05dd
\u0643\u062a\u0627\u0628 \u672c</p>
<table width="100%" bgcolor="#eeeeee"><tr><td align="right">1</td><th>2</th></tr></table>
<pre>text</pre><img src="data:image/png;base64,AAAA"></body></html>
""".encode()


def main() -> None:
    """Serve until the service closes our standard input."""
    parent, memory, max_pages = (int(argument) for argument in sys.argv[1:4])
    own_files = sys.argv[4:]
    sandbox.die_with_parent(parent)
    sandbox.ignore_stop_signals()
    requests, answers = _own_streams()
    logging.getLogger().addHandler(logging.NullHandler())  # else warnings, which quote the letter, go to stderr
    renderer = Renderer(max_pages)
    for profile in BUILT_IN_PROFILES:
        renderer.render(_WARM_UP, profile)
    package = os.path.dirname(os.path.dirname(__file__))
    readable = [*sandbox.python_folders(), str(slip_templates().resolve()), package, *own_files]
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    _silence()
    steps = sandbox.enter(memory, readable)
    _write(answers, frames.pack({"ready": True, "sandbox": list(steps)}))
    while (request := frames.read(requests)) is not None:
        header, message = request
        _write(answers, frames.pack({"began": True}))
        answer, body = _answer(renderer, header, message)
        _write(answers, frames.pack(answer, body))
        if answer.get("died"):
            return


def _answer(renderer: Renderer, header: dict[str, Any], message: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        if "describe" in header:
            wanted = facts.wanted_from(header)
            return facts.answer(describe(message, wanted), wanted), b""
        profile = Profile.model_validate(header["profile"])
        if "stack" in header:
            stacked = stack.stack(message, header["stack"], profile, renderer.max_pages)
            return frames.slip_header(stacked), stacked.pdf
        if "mark" in header:
            marked = renderer.mark(message, header["mark"], profile)
            return frames.slip_header(marked), marked.pdf
        pictures = Pictures.model_validate(header["pictures"])
        slip = renderer.render(message, profile, frames.occasion_from(header["occasion"]), pictures)
    except MemoryError:
        return {"error": "the slip needs more memory than a renderer may have", "died": True}, b""
    except RenderError as error:
        return {"error": str(error)}, b""
    except BaseException as error:  # nh3 raises a BaseException of its own; a letter must not end the child silently
        # The text of the error may quote the letter, its name does not.
        return {"error": f"the renderer failed on this letter ({type(error).__name__})", "died": True}, b""
    return frames.slip_header(slip), slip.pdf


def _own_streams() -> tuple[BinaryIO, BinaryIO]:
    """The service's two pipes, moved away from 0 and 1, where a library might read or print."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    return os.fdopen(requests, "rb"), os.fdopen(answers, "wb")


def _silence() -> None:
    """From now on nothing is said on standard output and error: GLib's warnings may quote the letter."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)


def _write(answers: BinaryIO, frame: bytes) -> None:
    answers.write(frame)
    answers.flush()


if __name__ == "__main__":
    main()
