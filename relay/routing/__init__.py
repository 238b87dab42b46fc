"""Where to, and when: a recipient gets a route by name; a printer lets slips out at its hours.

The route is looked up again at each attempt, so that a corrected configuration heals what waits.
"""
