-- what:  what notification rules told of, by queue and kind.
-- why:   first failure after success, recovery and throttling look at what was told before.
-- locks: none that anybody waits for: a new table.
-- safe while old code runs: yes, it doesn't know the table.

CREATE TABLE rule_marks (
    rule          text NOT NULL,
    queue         text NOT NULL,
    kind          text NOT NULL,
    failing_since timestamptz,      -- of the first death that no success has followed; null: none
    first_id      uuid,             -- the effect of that death
    told_at       timestamptz,      -- when a message was let through last
    told_id       uuid,             -- which effect's
    PRIMARY KEY (rule, queue, kind)
) WITH (fillfactor = 50);

CREATE INDEX rule_marks_failing ON rule_marks (failing_since) WHERE failing_since IS NOT NULL;
