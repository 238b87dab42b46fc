"""The way of a slip: from the bytes of a message to a PDF for one kind of paper.

    pool       the service's side: warm children, one slip at a time each, killed when they take too long
      frames     how a request and its answer travel between the two
    child      the other process; it gives up what it does not need (`sandbox`) before it sees any mail
      parts      the message: which part is the letter, which parts are its pictures
      sanitize   untrusted HTML becomes safe HTML (`stylesheet` does the same for CSS)
      images     what an `<img>` means: a picture of this message, or a placeholder and a note
      page       the letter inside the page template of the printer's profile
      layout     the seam to the engine: HTML and pictures in, pages and PDF out (`extent` measures the ink)
      render     all of it in its order: a `slip.Slip`

Nothing in here opens a socket or knows the database. Only `pool`, `frames` and `slip` are for the service;
everything else loads WeasyPrint or reads hostile input, and belongs in the child.
"""
