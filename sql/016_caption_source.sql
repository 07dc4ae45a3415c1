-- Where the caption of a pair comes from. Null stands for alt, which nearly all are: so it takes no space in a row, and neither
-- the rows of earlier versions nor their pages are written again. Adding the column changes the catalogue only; it waits for
-- the transactions that use the table.

alter table pair add column caption_source text;
comment on column pair.caption_source is 'Where on the page the caption was: title, figcaption, link or og; null: alt.';

create or replace view pair_text as
select pair_id, crawl, partition, pair.url, caption, language, page.license, page.url as page_url,
       coalesce(caption_source, 'alt') as caption_source
from pair
join partition using (partition_no)
join crawl using (crawl_no)
left join page using (partition_no, page_no);
