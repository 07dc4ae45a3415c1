"""The dashboard: pages of what is going on, as a web application that knows nothing of Airflow.

Data comes from Postgres and from the stats files of the store. Requests never wait for either: they are
answered from snapshots, which are made anew in the background while somebody is looking (snapshots.py).
"""
