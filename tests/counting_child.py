"""A child process that counts and works for a moment; for test_bill.py."""

import hashlib

from laion_etl.core.usage_counters import Counter, count

count(Counter.WEB_BYTES, 23)
hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)
