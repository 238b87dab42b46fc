"""A client speaks SMTP: `listener` opens the ports, `connections` gives out places, `connection` holds the dialogue, on
the lines of `wire`, within `limits` and `rates`; `session` has the commands, `commands` reads what they say, `auth`
asks who it is, `policy` says who may, `transaction` keeps what was said. `reception` takes the message: `content` finds
its end, `staging` holds it, `examination` and `line_ends` look at it, and `accept` makes it ours.
"""
