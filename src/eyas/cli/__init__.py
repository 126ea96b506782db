"""The command line: one thin module a verb, all of them listed in `eyas.cli.main`."""
