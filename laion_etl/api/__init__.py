"""What `laion_etl` offers as a library: the stages as functions on single files, lists and folders.

Nothing here decides anything: it puts the pieces of the stages together for callers without a crawl, a store
or a database. Every function takes `settings`; without them it takes those of the environment and of
laion_etl.toml, as the commands do. Users import the names from `laion_etl` (docs/library.md).
"""
