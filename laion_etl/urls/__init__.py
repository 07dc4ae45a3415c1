"""Absolute URLs, their hosts and registered domains.

The form of a URL is a contract: blocklists, removal requests and pair ids are hashes of it, some of them for
ever. normalize.py says what a change of the rule needs.
"""
