"""A release goes to a fleet over MQTT, in stages, and stops by itself where it does harm.

plan.py      canary, a share, all: who is next
gate.py      is a device worse than before, or than the others?
rollout.py   what has happened, who is offered what, when a stage is over: no clock, no I/O
book.py      all that on the disk, so that a command that was ended goes on
serving.py   bytes of the release file, as devices ask for them
progress.py  on the terminal
command.py   `cutlayer-hub rollout`: ties them together, a process of its own beside `serve`
"""
