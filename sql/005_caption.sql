-- A pair's text is called caption in every file and table. Renaming changes the catalogue only, whatever the number of rows: it
-- waits for the transactions that use the table, and then takes milliseconds.

alter table pair rename column alt to caption;
alter view pair_text rename column alt to caption;
comment on column pair.caption is 'Cleaned text of the image.';
comment on column pair.pair_id is 'MD5 of url + caption (UTF-8), the original''s hash; MD5 of url where the dedupe rule is url.';
