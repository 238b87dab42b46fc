"""What goes through the pipe between the service and a rendering child."""

from __future__ import annotations

from io import BytesIO

import pytest

from relay.slips import frames
from relay.slips.slip import Barcodes, Slip


def test_a_slip_comes_through_the_pipe_as_it_was() -> None:
    slip = Slip(b"%PDF-1.7", 2, 80.0, 120.5, ("A note.",), barcodes=Barcodes(3, ("Code39 does not read on the page",)))
    read = frames.read(BytesIO(frames.pack(frames.slip_header(slip), slip.pdf)))
    assert read is not None
    assert frames.slip_from(*read) == slip


@pytest.mark.parametrize("barcodes", [None, [], {"good": "many", "failed": []}, {"good": 1}, {"good": 1, "failed": 7}])
def test_nonsense_about_barcodes_is_refused(barcodes: object) -> None:
    header = {"pages": 1, "width_mm": 80, "height_mm": 100, "notes": [], "barcodes": barcodes}
    with pytest.raises((ValueError, KeyError, TypeError)):
        frames.slip_from(header, b"%PDF-1.7")
