"""The test bench: real parts on 127.0.0.1, shared by the tests, the demo and the playground.

Reads from the bottom up:

    waiting        wait for a condition, with a deadline; free ports
    process        a child process that can't outlive the bench
    preload        small C libraries that a process is started with
    clock          a wall clock that the test moves, for real processes
    cupsd          a private CUPS scheduler and its queues
    media          what the virtual printers say about their paper
    printers       virtual IPP printers that can be broken and mended
    next_hop       the smarthost: stores what it takes, refuses on request (next_hop_session: its dialogue)
    dns_server     an authoritative DNS server, and the DKIM verifier that asks it
    code39         barcodes as Alma draws them
    samples        the project's own mail in Alma's true MIME shape
    institution    the demo library: keys, certificate, secrets, zone, relay.toml
    toml           writes and merges configuration tables
    appliance      the real slip-relay process, and its supervisor
    playground     all of it together, and the command `make playground`
    weekend        desks with opening hours, one node or several, and a clock (weekend_account: what became of it)
    demo           the command `make demo`

Nothing here touches the machine's own services, and nothing is a mock.
"""
