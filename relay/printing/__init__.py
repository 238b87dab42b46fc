"""CUPS: `cups` talks to the server, `jobs` says what a job's state means for a slip. pycups lives here and nowhere
else.
"""
