"""laion_etl: from a Common Crawl dump to a documented image-text dataset."""

__version__ = "0.2.0.dev0"
