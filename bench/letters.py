"""Letters as Alma sends them, of about ten kilobytes, and the addresses that they are sent from.

HTML in some 300 lines, 7bit with accents as entities; each letter has a Message-ID of its own, by which the sink
counts it.
"""

from __future__ import annotations

SIZE = 10_240
SIGNED, UNSIGNED = "signed.example", "plain.example"
"""From domains: mail from the first is to be signed, mail from the second is not."""

_ROW = """        <tr>
          <td class="label"><b>Title:</b></td>
          <td>&Uuml;ber die W&auml;rme alter &Ouml;fen, volume {0}</td>
        </tr>
        <tr>
          <td class="label"><b>Due back:</b></td>
          <td>14/02/2027 18:00,&nbsp;  SB-{1}</td>
        </tr>

"""
_TOP = """<html>
  <head>
    <meta http-equiv="Content-Type" content="text/html; charset=UTF-8">
    <style type="text/css">.listing td {border-bottom: 1px solid #eee} .label {white-space: nowrap}</style>
  </head>
  <body>
    <h1>Courtesy Letter - Loan Due Dates</h1>
    <p>Dear &Aring;sa &Ouml;rtel,</p>
    <p>These items are due soon.  Please bring them back, or renew them in your account.</p>
      <table cellpadding="5" class="listing">
"""
_BOTTOM = """      </table>
    <p>Yours sincerely,<br>The circulation desk</p>
  </body>
</html>
"""


def sender(domain: str) -> str:
    """The address that letters of a domain come from."""
    return f"circulation@{domain}"


def recipient(number: int) -> str:
    """The patron whom a letter goes to."""
    return f"reader{number}@patron.example"


def message_id(run: str, number: int) -> str:
    """The Message-ID of a letter, without its brackets."""
    return f"{run}.{number}.JavaMail.urm@app02.eu07"


def letter(domain: str, run: str, number: int) -> bytes:
    """One letter, its line ends CRLF; no line begins with a dot."""
    header = (
        f"Date: Sat, 21 Nov 2026 08:00:00 +0000 (UTC)\r\nFrom: Seebruecken Library <{sender(domain)}>\r\n"
        f"To: {recipient(number)}\r\nMessage-ID: <{message_id(run, number)}>\r\n"
        "Subject: Courtesy Letter - Loan Due Dates\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/html; charset=UTF-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
    )
    return header.encode("ascii") + BODY


def _body() -> bytes:
    text, volume = _TOP, 0
    while len(text) + text.count("\n") < SIZE - 600:  # the header, the rest of the table, and the CR of each line
        volume += 1
        text += _ROW.format(volume, 20_417_000 + volume)
    return (text + _BOTTOM).replace("\n", "\r\n").encode("ascii")


BODY = _body()
