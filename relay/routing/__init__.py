"""Where to: a recipient gets a route by name. The route is looked up again at each attempt, so that a corrected
configuration heals what waits.
"""
