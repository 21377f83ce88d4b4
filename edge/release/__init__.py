"""The signed set of files a board runs: read, checked, and only then believed. Standard library only: it runs from a zipapp.

ed25519.py     the signature over the manifest; signatures.py: who has signed, and whose signature counts
manifest.py    what a release states of itself: for which board, which version, the hash of every file
archive.py     the file: manifest, signature, contents; nothing in it is looked at before the signature is right
install.py   puts one on the board, whole or not at all; incoming.py: one that came over the air
guard.py     before each start: which release is it to be? trial.py: the journal that says so
layout.py    where everything is; disk.py: changes that a power cut leaves done or not begun
writer.py      writes it
"""
