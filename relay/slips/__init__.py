"""The way of a slip: from the bytes of a message to a PDF for one kind of paper.

    pool       the service's side: warm children, one slip at a time each, killed when they take too long
      frames     how a request and its answer travel between the two
    child      the other process; it gives up what it does not need (`sandbox`) before it sees any mail
      structure  the message as a tree of parts (`transfer` undoes encodings, `tnef`, `rtf` and `smime` unpack)
      parts      which part is the letter, which are its pictures, which were attached (`text`, `sniff`)
      attachments   attached PDF and pictures as pages of the slip
      sanitize   untrusted HTML becomes safe HTML (`stylesheet` does the same for CSS)
      images     what an `<img>` means: a picture of this message, or a placeholder and a note
      symbols    barcodes read from pictures, and made from values
      bars       a barcode drawn in whole dots of the printer
      barcode_fonts  text in a font of bars becomes a picture (`cascade` says which font an element has)
      barcodes   the barcodes of one letter: which, how large, and whether they scan (`scan` reads them from the page)
      direction  which way each block is read, set on the `tree` of the safe letter
      page       the letter inside the page template of the printer's profile (`lines`: its header and footer)
      layout     the seam to the engine: HTML and pictures in, pages and PDF out (`styles` are adjusted before, `extent`
                 measures the ink, `fonts` knows which characters there are)
      fit        what is wider than the paper is made to fit
      render     all of it in its order: a `slip.Slip`
      content    a digest of what it says, by which the same slip is known again
      mark       a line on a PDF that was rendered before: this is a reprint

Nothing in here opens a socket or knows the database. Only `pool`, `frames`, `slip` and `trial` (a profile on a sample
letter of ours) are for the service; everything else loads WeasyPrint or reads hostile input, and belongs in the child.
"""
