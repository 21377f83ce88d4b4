"""The workstation's side of profiles of boards (`edge/wire/profile.py` is the file).

command.py    `cutlayer-hub profile …`: its commands and their options
fleet.py      profiles the devices of a fleet through its hub (fleet_options.py: what may be asked)
survey.py     asks devices that are there, and puts their answers down
overview.py   what a step costs on each of them, as a table for the terminal
"""
