"""A client speaks SMTP: `listener` opens the ports, `session` holds the dialogue, `commands` reads what MAIL and RCPT
say, `auth` asks who it is, `transaction` keeps what was said, `policy` says who may, `content` reads DATA, and `accept`
makes the message ours.
"""
