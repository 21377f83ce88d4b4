"""`cutlayer profile`: what a bundle costs on this board, stage by stage.

asked.py      what is to be measured, and the limits of that
stages.py     the stages of a step, each set up as the agent would have it, and one repetition of it
spread.py     median, interval, percentiles of the times of a stage
child.py      the measured process: all stages of one batch size and number of threads, clear of what came before
children.py   starts one such process after the other, reads what they find, says why one died
record.py     around them: the board, how warm it is, who else is busy; a Profile of it all
table.py      the same for a terminal
calibrate.py  `cutlayer profile calibrate`: a model of the board's energy, fitted against a meter
attended.py   standard input of a profile that someone waits for elsewhere: it ends when they are gone
command.py    the options of both
"""
