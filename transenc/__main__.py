"""Run the command line as `python -m transenc`."""

from transenc.cli.app import main

main()
