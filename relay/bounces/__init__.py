"""When mail fails, is late, or arrived as asked: `notify` decides whether somebody is told, `dsn` makes the bytes.
`mime` and `own_mail` are for whatever mail we write ourselves.

Pure: a DSN is a new message, which whoever settles the delivery puts into the spool in the same transaction.
"""
