"""Scoring as a Ray job: `ray job submit -- python jobs/verify.py --input FILE --output FILE`."""

import sys

from haloforge.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "verify")
    main()
