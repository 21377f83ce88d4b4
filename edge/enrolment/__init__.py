"""How a board comes to a certificate of its fleet, with the standard library alone.

claim.py        what lets one board in, once
key.py          its private key, made here and kept here
der.py, csr.py  the request for a certificate, byte by byte
certificate.py  what a certificate says: name, key, dates
client.py       HTTPS to the hub
enrolling.py    from a claim to a certificate, and to the next one, however often the network or the clock is missing

The key is on the disk before anything is sent, so that a power cut at any point asks again with the same key, and hears the same answer.
"""
