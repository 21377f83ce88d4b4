"""From a bundle to a board: a signed release, then a card's seed, a running board over ssh, an image builder's tree.

bundle.py    one signed file for a kind of board (boards.py); its format: edge/release/README.md
agent.py     what it has of the device's package; wheels.py: and of others', by the hashes in locks/
signing.py   the fleet's key; history.py: which version each release got
parcel.py    a release with a claim, and where it goes: card.py, ssh, rootfs
"""
