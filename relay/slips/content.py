"""What a slip says, as a digest: two letters with the same one put the same on paper, by whatever path they came.

Does: takes the letter as it is chosen and decoded for printing, its pictures and its attachments. Header fields, MIME
structure, transfer encoding, line ends and runs of white space do not count, nor do the names that a mail program
invents for pictures (Content-IDs).
Known limits: the same letter with a picture that was compressed anew is another one. What is cleaned away before
printing (a comment, a script) counts.
"""

from __future__ import annotations

import hashlib

from relay.slips.parts import Letter


def digest(letter: Letter) -> str:
    """64 hexadecimal digits."""
    html = letter.html
    named = sorted(
        (picture for picture in letter.pictures if picture.content_id), key=lambda each: -len(each.content_id)
    )
    for picture in named:  # the longest first: one name may begin with another
        html = html.replace(f"cid:{picture.content_id}", f"cid:{_of(picture.content)}")
    found = hashlib.sha256(_of(" ".join(html.split()).encode("utf-8", "surrogatepass")).encode())
    for content in sorted(_of(picture.content) for picture in letter.pictures):
        found.update(f"picture {content}\n".encode())
    for attachment in letter.attachments:
        name = attachment.name.encode("utf-8", "surrogatepass")
        found.update(f"attachment {_of(name)} {attachment.kind} {_of(attachment.content)}\n".encode())
    return found.hexdigest()


def _of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
