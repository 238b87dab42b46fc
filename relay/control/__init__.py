"""Orders of operators, and the way they take from the command line to the spool.

`desk` carries orders out, `ways` says where a delivery goes that is let go, `again` how a slip is printed once more,
`trials` writes test letters and remembers how they left,
`sources` tells who may send, `protocol` is what is said over the socket, `server` listens in the service, `client`
speaks for the command line, with the service or without it.
"""
