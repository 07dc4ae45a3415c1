"""Search in a published dataset: an index of its images, queries, and a web page."""
