"""Pictures on other servers that letters refer to: `shelf` keeps the copies, `fetch` brings them.

The rendering child reads the shelf and never the network; what it asked for is fetched after the slip, for the next.
"""
