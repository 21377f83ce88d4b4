"""Trials: broker, hub and devices as real processes, each device behind a bad link that this machine emulates.

scenario.py    what a link does, read from TOML; scenarios/ has those that come with the package
outages.py     when a link is gone
traces.py      a rate that changes with time: steps, a recorded trace
channel.py     one direction of a link, sans-I/O: packets in, packets out when they are due
net.py         open_net: what a trial needs from any of the three below
emulator.py    their emulator is a process of its own: what it and its owner say to each other
namespaces.py  network namespaces with a TUN device each; tunnel.py moves the packets
netem.py       the same by `tc netem` where the kernel has it; shaper.py is its process
relay.py       without namespaces: a TCP relay on the loopback, whose directions are in stream.py
timeline.py    what happened in each second, for the report
plan.py        what a scenario means for a run: its deadlines
run.py         the trial: links, hub, devices; at_hub.py is broker and hub behind the links
report.py      what it came to, as a table; page.py: as a page with link and training on one time axis
"""
