"""The message is ours now: what is kept, how it is written, and the contract of both.

`records` is what others see, `schema` the tables, `commit` the group commit, `store` the contract, `queries` what the
command line reads, `migrations` how one schema becomes the next. SQLAlchemy lives here and nowhere else.
"""
