"""The workstation's side of profiles of boards (`edge/wire/profile.py` is the file).

command.py    `cutlayer-hub profile …`: its commands and their options
ssh.py        profiles a board over the user's own ssh
read.py       profiles from files, each with a name of its own, and their loose records
facts.py      board and conditions in words
tables.py     stages, memory, whole steps, the comparison: figures with the reasons of those that are missing
plots.py      the same, drawn
page.py       all of it as one HTML page
fleet.py      profiles the devices of a fleet through its hub (fleet_options.py: what may be asked)
survey.py     asks devices that are there, and puts their answers down
overview.py   what a step costs on each of them, as a table for the terminal
"""
