"""`python -m haloforge` is `halo-forge`."""

from haloforge.cli.main import main

main()
