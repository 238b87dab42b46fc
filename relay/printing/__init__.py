"""CUPS: `cups` talks to the server, `jobs` says what a job's state means for a slip. pycups lives here and nowhere
else.

For the command `printers`: `queues` asks what a queue is like, `device_uris` reads the URI of its device, `diagnosis`
says what is wrong, `setup` puts it right, `trial_job` prints a test page.
"""
