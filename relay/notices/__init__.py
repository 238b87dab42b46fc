"""When something is wrong for long: one e-mail to the desk or the administrator, and one when it is over.

`conditions` makes of what the spool shows how it stands with each printer and institution, in the `hours` that count;
`watch` decides what is to be told, `letter` writes it, and `post` looks now and then and puts letters into the spool.
"""
