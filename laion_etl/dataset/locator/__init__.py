"""The locator of a crawl: sorted hashes by which removal requests find the files that hold something of them.

Without it a removal reads every file of every crawl. See docs/formats.md ("Locator").

- keys.py: what is hashed of a row, and what is looked up of a request
- segment_writer.py, segment_reader.py: the files
- units.py: the files of a crawl that hold links and images, as units
- build.py: writes what a crawl's locator lacks
- lookup.py: the files that requests have to read
"""
