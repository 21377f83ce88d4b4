"""What runs on the board: numpy, onnxruntime, paho-mqtt and psutil, nothing else.

sensors.py    a batch of the device's own samples
segment.py    one graph of the bundle: activation, new state
wire/codec    the activation, coded (wire/entropy.py, wire/coder.py); wire/messages: with order, round, step
known.py      without the samples that the hub has
uploads.py    fewer samples, or coarser, where it does not fit the budget: then into the mailbox
weights.py    weights that come and go as differences; what coding left out
purse.py      what the budget has left; gate.py: nothing leaves beyond it; effort.py: joules and CPU seconds of a round
outbox.py     state, position and message in one transaction
wire/delivery numbers, chunks, acknowledgements, resends
mqtt_link.py  to the broker and back: what is urgent overtakes bulk (link.py: what any link does; tls_chain.py, namesakes.py)
accounts.py   what all this has cost, with the source of each figure
meters.py     windows of time, memory and joules (energy/: where joules come from; thermal.py); board.py: which board
memory.py     how much there is, and what graph and batch fit; processor.py: whether the wheels run at all
mailbox.py    ties delivery, outbox and link together: commit, then publish
checkpoints.py the state and the position in the order, which a restart goes on from
beyond.py     steps of its own while the hub is away
inquiry.py    what the hub asks of this board, answered once (profiler.py: the process that measures it, profile/)
agent.py      ties everything together: the one loop, from a batch to an update
updates.py    fetches a release that the hub offers, beside the agent (fetch.py, part.py, installed.py, remembered.py; beside.py, side_link.py)
service.py    what systemd is told, and the mark that a release is well
release/      the signed release file, and what installs it: the standard library only
device.py     builds it from a configuration and takes it down in the right order
enrolment/    how it comes to a certificate of its fleet, and to the next one
check.py      can this board run it?  profile/: what does it cost here, stage by stage?

Batches and noise are functions of seed, round and step, so a step that is done again is the same step.
"""
