"""What a signature costs: a 10 KB letter signed as slip-relay does it, beside dkimpy's own way, in the same run;
and what it costs to verify it before it leaves.

    python -m bench.sign

Prints the median time of each in milliseconds, and the ratio of the two ways to sign.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import dkim
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.outgoing.keys import SigningKey
from relay.outgoing.sign import signatures
from relay.outgoing.verify import Verifier

ROUNDS = 300
HEADER = (
    b"From: Library <circ@lib.example>\r\nTo: reader@patron.example\r\nSubject: On hold shelf\r\n"
    b"Date: Sat, 21 Nov 2026 08:00:00 +0000\r\nMessage-ID: <1.JavaMail.urm@app01.eu00>\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: text/html; charset=UTF-8\r\n"
)
LINE = b'    <tr><td class="label">Title:</td>  <td>A history of reading, volume two</td></tr>\r\n'
BODY = LINE * (10_000 // len(LINE))


def median_ms(sign: Callable[[], object], rounds: int) -> float:
    """Median time of one call in milliseconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        sign()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def main() -> None:
    """Measures both ways and prints a table."""
    private = rsa.generate_private_key(65537, 2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    key = SigningKey("lib.example", "s1", private)
    message = HEADER + b"\r\n" + BODY
    relaxed = (b"relaxed", b"relaxed")
    ours = median_ms(lambda: signatures([key], HEADER, BODY), ROUNDS)
    plain = median_ms(lambda: dkim.sign(message, b"s1", b"lib.example", pem, canonicalize=relaxed), ROUNDS // 10)
    field, verifier = signatures([key], HEADER, BODY)[0], Verifier([key])
    checked = median_ms(lambda: verifier.verify(field, message, 1), ROUNDS)
    print(f"signature of a letter of {len(message)} bytes, RSA-2048, relaxed/relaxed, median")
    print(f"  slip-relay   {ours:6.2f} ms")
    print(f"  dkimpy alone {plain:6.2f} ms   {plain / ours:.1f} times as much")
    print(f"  its check    {checked:6.2f} ms")


if __name__ == "__main__":
    main()
