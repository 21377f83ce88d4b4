"""What both ends agree on: frames, messages, codecs, delivery, topics and the manifest of a bundle.

Nothing here touches a socket, a thread or a clock. `README.md` in this folder has the bytes.
"""
