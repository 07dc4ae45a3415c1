"""Stands for the program `laion-etl`: its result is the environment that it was started with."""

import json
import os

if __name__ == "__main__":
    print(json.dumps(dict(os.environ)))
