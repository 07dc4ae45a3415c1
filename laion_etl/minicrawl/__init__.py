"""The small crawl and its web that the demo and the tests run on; `build` writes it, `web` serves it."""
