"""The flight recorder: a bounded file of what a device saw and did, and its replay at home.

recorder.py    stands between the agent and its clock, link and outbox, and notes what passes
ring.py        the files: bounded, with a checksum a record, replayable from the oldest
trace.py       an entry as bytes
freeze.py      the agent as it was where a file begins, without pickle
recording.py   a file read back
tape.py        clock, link, outbox and mailbox that play a recording and compare
tape_purse.py  what a budget had left, from the recording
replay.py      the agent, or its mailbox alone, run again on a tape
telling.py     what happened, in words
"""
