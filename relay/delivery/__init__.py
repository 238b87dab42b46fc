"""Until settled: `runner` brings due deliveries to their routes, `attempt` makes one try of one delivery, `retry` says
when
the next one is due.
"""
