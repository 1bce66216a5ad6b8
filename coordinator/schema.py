"""The tables of a coordinator's database (`coordinator.store`), as SQLite reads them.

What `coordinator.postgres` makes of them it finds by the words BLOB, INTEGER, REAL, TEXT, REFERENCES and STRICT. A
line holds one statement at most. `ordinal` says in which order rows came.
"""

from coordinator.telemetry import TABLE as TELEMETRY

SECURE = """
CREATE TABLE exchange (  -- what was said (device, its key) and decided (device '') in secure aggregation, in order
    run BLOB NOT NULL REFERENCES run, number INTEGER NOT NULL, attempt INTEGER NOT NULL, device TEXT NOT NULL,
    identity BLOB NOT NULL, data BLOB NOT NULL, payload_bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX exchange_of_round ON exchange (run, number);
CREATE TABLE told (  -- payload bytes of what secure aggregation had to tell a device in a round
    run BLOB NOT NULL REFERENCES run, number INTEGER NOT NULL, device TEXT NOT NULL, payload_bytes INTEGER NOT NULL,
    PRIMARY KEY (run, number, device)
) STRICT;
"""
CONNECTION = "ALTER TABLE device ADD COLUMN connection INTEGER NOT NULL DEFAULT 0;"
DRAWS = "ALTER TABLE device ADD COLUMN draws INTEGER NOT NULL DEFAULT 0;"
PAUSED = "CREATE TABLE paused (since_s REAL NOT NULL) STRICT;"  # one row while no round is to open
PARTIAL = """
CREATE TABLE partial (  -- what a worker handed on: the votes of its masks, or none where those have their signs
    run BLOB NOT NULL REFERENCES run, number INTEGER NOT NULL, worker TEXT NOT NULL, batch BLOB NOT NULL,
    votes BLOB NOT NULL, payload_bytes INTEGER NOT NULL, PRIMARY KEY (run, worker, batch)
) STRICT;
"""
ORDINAL = """
ALTER TABLE run ADD COLUMN ordinal INTEGER NOT NULL DEFAULT 0;
ALTER TABLE exchange ADD COLUMN ordinal INTEGER NOT NULL DEFAULT 0;
DROP INDEX exchange_of_round;
CREATE INDEX exchange_of_round ON exchange (run, number, attempt, ordinal);
"""
BY_ROW_ID = """
UPDATE run SET ordinal = rowid;
UPDATE exchange SET ordinal = rowid;
"""
AMENDED = """
CREATE TABLE amended (  -- settings (JSON) that a run began with in place of devices.yaml's (begun 1), or got since
    run BLOB NOT NULL REFERENCES run, name TEXT NOT NULL, begun INTEGER NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (run, name, begun)
) STRICT;
CREATE TABLE next_run (amended TEXT NOT NULL, since_s REAL NOT NULL) STRICT;  -- a row while a run is to be started
"""
REMAINDER = """
CREATE TABLE remainder (  -- what of mean scores the votes of a run's newest round leave (coordinator.dithered)
    run BLOB PRIMARY KEY REFERENCES run, number INTEGER NOT NULL, data BLOB NOT NULL
) STRICT;
"""
SCHEMA_VERSION = 11
# From a version to the next: what is new. Only files are older than version 9.
UPGRADES = {
    2: TELEMETRY,
    3: SECURE,
    4: CONNECTION,
    5: DRAWS,
    6: PAUSED,
    7: PARTIAL,
    8: ORDINAL + BY_ROW_ID,
    9: AMENDED,
    10: REMAINDER,
}
SCHEMA = f"""
CREATE TABLE run (
    id BLOB PRIMARY KEY, name TEXT NOT NULL, ticket BLOB NOT NULL, settings TEXT NOT NULL,
    started_s REAL NOT NULL, finished_s REAL, bundle_bytes INTEGER NOT NULL
) STRICT;
CREATE TABLE round (  -- votes are those announced with the round: the outcome of the one before
    run BLOB NOT NULL REFERENCES run, number INTEGER NOT NULL, selected TEXT NOT NULL, votes BLOB NOT NULL,
    announced_bytes INTEGER NOT NULL, opened_s REAL NOT NULL, closed_s REAL, PRIMARY KEY (run, number)
) STRICT;
CREATE TABLE mask (  -- number: the round whose votes it was trained from; counted: the one it is a vote in
    run BLOB NOT NULL REFERENCES run, number INTEGER NOT NULL, device TEXT NOT NULL, signs BLOB NOT NULL,
    train_samples INTEGER NOT NULL, loss REAL NOT NULL, correct INTEGER NOT NULL, test_samples INTEGER NOT NULL,
    train_s REAL NOT NULL, step_ms REAL NOT NULL, peak_memory_kb INTEGER NOT NULL,
    payload_bytes INTEGER NOT NULL, receipt_bytes INTEGER NOT NULL, arrived_s REAL NOT NULL,
    counted INTEGER NOT NULL, PRIMARY KEY (run, number, device), UNIQUE (run, counted, device)
) STRICT;
CREATE TABLE evaluation (
    run BLOB NOT NULL REFERENCES run, number INTEGER NOT NULL, device TEXT NOT NULL, correct INTEGER NOT NULL,
    test_samples INTEGER NOT NULL, payload_bytes INTEGER NOT NULL, PRIMARY KEY (run, number, device)
) STRICT;
CREATE TABLE held_out (
    run BLOB NOT NULL REFERENCES run, number INTEGER NOT NULL, correct INTEGER NOT NULL, samples INTEGER NOT NULL,
    PRIMARY KEY (run, number)
) STRICT;
CREATE TABLE device (
    name TEXT PRIMARY KEY, instance BLOB NOT NULL, software TEXT NOT NULL, runtime TEXT NOT NULL, profile TEXT NOT NULL,
    train_samples INTEGER NOT NULL, test_samples INTEGER NOT NULL, key BLOB NOT NULL, started INTEGER NOT NULL,
    greetings INTEGER NOT NULL, seen_s REAL NOT NULL, connection INTEGER NOT NULL DEFAULT 0,
    draws INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE revoked (device TEXT PRIMARY KEY, since_s REAL NOT NULL) STRICT;
{PAUSED}
{TELEMETRY}
{SECURE}
{PARTIAL}
{ORDINAL}
{AMENDED}
{REMAINDER}
"""
