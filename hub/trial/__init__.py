"""Trials: broker, hub and devices as real processes, each device behind a bad link that this machine emulates.

scenario.py    what a link does, read from TOML; scenarios/ has those that come with the package
outages.py     when a link is gone
traces.py      a rate that changes with time: steps, a recorded trace
channel.py     one direction of a link, sans-I/O: packets in, packets out when they are due
net.py         open_net: what a trial needs from either of the two below
emulator.py    their emulator is a process of its own: what it and its owner say to each other
namespaces.py  network namespaces with a TUN device each; tunnel.py moves the packets
relay.py       without namespaces: a TCP relay on the loopback, whose directions are in stream.py
timeline.py    what happened in each second, for the report
"""
