"""The dashboard: pages on the state of crawls, as a web application independent of Airflow.

Data comes from Postgres and from the stats files of the store. Requests never wait for either: they are
answered from snapshots, which are refreshed in the background while a page is open (snapshots.py).
"""
