"""Looking into a published dataset: an index of its images, searching it, and a page to do so."""
