"""`cutlayer-export cuts`: what every possible cut of a model costs and gives away, and which one to take.

calibration.py  samples to measure with
candidates.py   every cut, one after the other: made, trained a little, measured; what cannot be exported says why
child.py        time, memory and operators of a step, in a process of its own; measured.py starts it
operators.py    what a step takes that was not timed: sums over its operators
smashed.py      activations (and gradients) after a few steps of training
coded.py        the bytes of their messages
leak.py         what they give away: distance correlation, decoder.py: what a decoder makes of them
strategies.py   how many steps, uploads, gradients and weights a round has
link.py         links and budgets in words
rounds.py       seconds, joules and bytes of a round
choice.py       the Pareto front, and the one to take
table.py        for the terminal; plot.py: a drawing; command.py ties it together
"""
