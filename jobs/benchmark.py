"""A benchmark as a Ray job: `ray job submit -- python jobs/benchmark.py run --model FOLDER`."""

import sys

from haloforge.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "benchmark")
    main()
