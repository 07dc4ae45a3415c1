"""Looking into a published dataset: an index of its pictures, searching it, and a page to do so."""
