"""The vocabulary of mail: addresses, envelopes, replies, header fields, queue ids, VERP tokens.

Pure: no input or output, and nothing of ours imported but `relay.errors`.
"""
