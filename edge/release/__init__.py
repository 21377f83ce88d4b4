"""The signed set of files a board runs: read, checked, and only then believed. Standard library only: it runs from a zipapp.

ed25519.py   the signature over the manifest
manifest.py  what a release states of itself: for which board, which version, the hash of every file
archive.py   the file: manifest, signature, files; nothing in it is looked at before the signature is right
"""
