"""The parse stage: WAT files of one partition become pairs of image URL and caption.

The problem: 90,000 WAT files of some 200 MB, each with a few hundred thousand image links, many of which are
dropped. The choice: no object per link. Records are inflated into a byte arena (`gzip_members.py`), numba
kernels (`kernels/`) extract links as columns of spans (`wat_reader.py`), and filters work on whole columns
(`link_filters.py`). A kernel never decides a hard case: it leaves it to readable Python (`wat_record.py`,
`urls.py`, `text.py`, `placeholders.py`), and property tests check that the two agree. Refused: FastWARC with
simdjson and cc2dataset, which create objects per record and link. The figures, in CPU seconds for 20,000
pages (benchmarks/RESULTS.md): gunzip 0.52, ours without languages 1.23, with CLD3 3.32; FastWARC + simdjson
3.94 and cc2dataset 4.35, both without cleaning captions or detecting languages.
"""
