"""A command of halo-forge that ends with the process that began it, however that one ends:
`python -m haloforge.observe.child PID COMMAND ARGUMENTS`."""

import sys

from haloforge.cli.main import main
from haloforge.rollout.lifetime import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    sys.argv[1:] = sys.argv[2:]
    main()
