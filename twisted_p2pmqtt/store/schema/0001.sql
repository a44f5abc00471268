-- Version 1 of the store.  How the columns are filled is in rows.py; checksums are CRC-32 over the row's other columns,
-- because SQLite itself notices damage to its pages' structure only, and a changed byte of a payload is no better than
-- a lost one.  No table has an index besides its key: keys grow, so that inserting appends.

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

-- Once, however many deliveries name it; id is the first one's.
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    topic BLOB NOT NULL,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    properties BLOB NOT NULL,
    expires_at REAL,
    checksum INTEGER NOT NULL
);

-- id grows with time, over all sessions.  packet_id: 0 while it waits; is_released: PUBREC was received.
-- These two change, so they have a checksum of their own.
CREATE TABLE delivery (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL,
    message INTEGER NOT NULL,
    qos INTEGER NOT NULL,
    retain INTEGER NOT NULL,
    is_p2p INTEGER NOT NULL,
    extra BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    packet_id INTEGER NOT NULL,
    is_released INTEGER NOT NULL,
    state_checksum INTEGER NOT NULL
);

CREATE TABLE retained (
    topic TEXT PRIMARY KEY,
    payload BLOB NOT NULL,
    qos INTEGER NOT NULL,
    properties BLOB NOT NULL,
    expires_at REAL,
    checksum INTEGER NOT NULL
) WITHOUT ROWID;
