-- Version 1 of the store.  How the columns are filled is in rows.py.  Every row carries a CRC-32 over all of it, because
-- SQLite itself notices damage to its pages' structure only, and a changed byte of a payload is no better than a lost
-- one.  Messages have few columns, for each costs time; what nobody looks for is packed into ``rest``.  No table has an
-- index besides its key, and the keys of deliveries grow, so that inserting appends.

-- One row: how many transactions there have been.  Compared at start with the mark beside the file.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY,
    commits INTEGER NOT NULL
);
INSERT INTO meta (id, commits) VALUES (0, 0);

-- id: a number of the store's own, never that of an earlier session of the same client.
-- left_at: when its last connection ended, seconds since the epoch; NULL while it is connected.
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    expiry_interval INTEGER NOT NULL,
    left_at REAL,
    will_topic TEXT,
    will_payload BLOB,
    will_qos INTEGER,
    will_retain INTEGER,
    will_properties BLOB,
    checksum INTEGER NOT NULL
);

CREATE TABLE subscription (
    session INTEGER NOT NULL,
    topic_filter TEXT NOT NULL,
    qos INTEGER NOT NULL,
    no_local INTEGER NOT NULL,
    retain_as_published INTEGER NOT NULL,
    identifier INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (session, topic_filter)
) WITHOUT ROWID;

-- Packet identifiers of QoS 2 publishes that await the client's PUBREL.
CREATE TABLE received (
    session INTEGER NOT NULL,
    packet_id INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (session, packet_id)
) WITHOUT ROWID;

-- A message that more than one delivery holds, once; id is the first one's.
-- rest: checksum (4 bytes), flags, expiry if the flags say so (8 bytes), properties as MQTT 5.0 encodes them.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    topic BLOB NOT NULL,
    payload BLOB NOT NULL,
    rest BLOB NOT NULL
);

-- id grows with time, over all sessions.
-- state: packet identifier (bits 0-15, 0 while it waits), PUBREC received (bit 16), and a checksum of its own.
-- message: the payload; or, where topic is NULL, the id of the message that others hold, too.
-- rest: as in message, with the length of the properties before them and the receiver's own properties behind.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    state INTEGER NOT NULL,
    topic BLOB,
    message NOT NULL,
    rest BLOB NOT NULL
);

CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    payload BLOB NOT NULL,
    rest BLOB NOT NULL
) WITHOUT ROWID;
