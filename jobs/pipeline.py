"""The whole pipeline as a Ray job: `ray job submit -- python jobs/pipeline.py --config FILE`."""

import sys

from haloforge.cli.main import main

if __name__ == "__main__":
    sys.argv.insert(1, "pipeline")
    main()
