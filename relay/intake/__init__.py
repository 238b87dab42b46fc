"""A client speaks SMTP: `listener` opens the ports, `session` holds the dialogue, `policy` says who may, `content`
reads DATA, and `accept` makes the message ours.
"""
