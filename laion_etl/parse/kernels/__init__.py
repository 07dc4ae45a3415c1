"""Loops over bytes, compiled by numba: extracting links from records, checking texts, resolving simple URLs.

A kernel never decides a hard case. It either gives the answer that the readable Python (text.py, urls.py,
wat_record.py) would give, or leaves the case to Python; property tests check that the two agree.

Everything is a span (start, end) into one byte array, the arena of a batch, so no object is created per link.
"""
