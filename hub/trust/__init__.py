"""Who belongs to a fleet: its authority, its claims, the broker that lets nobody else in, and how a device is put out again.

folder.py      what lies in the fleet's folder, made once
authority.py   the fleet's own CA: certificates, and the list of those revoked
register.py    claims and certificates, in one database: a claim is used once, whoever races
listener.py    HTTPS for two requests, /enrol and /renew, and nothing else
mosquitto.py   the broker's configuration: who may do what on which topic
revocation.py  a device out for good: list, broker, open connection
serving.py     broker and listener beside a run, and what must be renewed in time
command.py     cutlayer-hub enrol, devices, revoke, status, keys

README.md says who holds which key, and what to back up.
"""
