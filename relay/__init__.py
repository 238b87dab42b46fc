"""slip-relay: takes an institution's mail from Alma, sends letters on signed, and puts slips on paper.

The journey of a message, in the order of the folders:

1. **intake**: a client speaks SMTP. `listener` has the ports, `session` the dialogue, `policy` says who may. At the
   end of DATA `accept` names the institution, chooses a route for each recipient (`routing`) and puts message and
   deliveries into the spool. When that is committed and on disk, the client hears
   `250 2.0.0 queued as <queue id>`.
2. **spool**: the message is ours. One message for one recipient is a delivery: the unit of state, retry and proof.
   All writing goes through one group commit.
3. **routing**: a route is a name, looked up again at each attempt: a next hop, `print:PRINTER`, `hold:RULE`,
   `discard`; or `sort:INSTITUTION`, where a rule has to look into the letter before there is a way.
4. **delivery**: the runner gives each route a lane of its own, which for a printer keeps its hours; an attempt is
   recorded before anything leaves, and settled with what came of it.
5. **outgoing**: a letter gets the institution's Envelope-From, a form that the host takes, our Received field and,
   last, a DKIM signature.
6. **transports**: `smtp` brings the letter to a smarthost or an MX. `sorter` has the letter read and gives it its way.
   `printer` has the slip rendered (**slips**: in a child without network), creates a job in CUPS (**printing**),
   commits its id, hands the document over, and follows the job until CUPS says how it ended. A slip that is on paper
   already under another name makes none, and one that a person wants once more is a further delivery of its message.

Beside the journey: **notices** tells the desk what is wrong for long, **mail** is the vocabulary, **config** every
setting, **dns** what domains publish, **pictures** the copies of pictures on other servers, `maillog` the one log,
`metrics` what is counted with it, `errors` the tree of what can go wrong, `app` the one place that puts the parts
together, **cli** the command.
"""

__version__ = "0.1.0"
