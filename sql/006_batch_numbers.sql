-- Batch numbers follow from the crawl and are never given twice (docs/formats.md); rows that have shorter ones keep them.

comment on column batch.batch is 'Number of the batch and of its shard: six digits of the crawl and six counted within it, or up to nine digits, counted over all crawls, if version 0.1 gave it.';
