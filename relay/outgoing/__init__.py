"""Exactly what we send: `rewrite` makes the envelope the institution's, `assemble` puts our fields on top, `sign`
comes last.
"""
