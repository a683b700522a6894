-- what:  why effects of rules wait (quiet hours, groups), and groups that are told of in one message.
-- why:   `quiet` and `group` of notification rules; decision 0022.
-- locks: ACCESS EXCLUSIVE on effects and deliveries for a moment: columns without default. SHARE on
--        both while three indexes are built that nothing is in yet: a scan of deliveries, about a
--        second for a few million, in which nothing is delivered and no end that is to be told of
--        is settled.
-- safe while old code runs: yes. Give no rule `quiet` or `group` before the last old replica is gone:
--        it refuses that configuration, and would send the first of a group by itself.

ALTER TABLE effects ADD COLUMN IF NOT EXISTS waits_for text;    -- quiet, group, retry, asked
ALTER TABLE effects ADD COLUMN IF NOT EXISTS group_id uuid;     -- that it is or was gathered in
ALTER TABLE effects ADD COLUMN IF NOT EXISTS message_id uuid;   -- the effect whose message tells of it
ALTER TABLE effects ADD COLUMN IF NOT EXISTS labels json;       -- of that message, on its effect
ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS message_id uuid;
ALTER TABLE deliveries ADD COLUMN IF NOT EXISTS labels json;

CREATE INDEX effects_group ON effects (group_id, at) WHERE group_id IS NOT NULL AND message_id IS NULL;
CREATE INDEX effects_message ON effects (message_id, at) WHERE message_id IS NOT NULL;
CREATE INDEX deliveries_message ON deliveries (message_id, at) WHERE message_id IS NOT NULL;

-- A group of a rule, while it gathers or rests.
CREATE TABLE rule_groups (
    group_id    uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    rule        text NOT NULL,
    key         text NOT NULL,          -- of the event and the labels
    labels      json NOT NULL,          -- what its members have in common
    leader      uuid,                   -- the effect that will be its next message; null: it rests
    rests_until timestamptz NOT NULL,   -- no message before
    PRIMARY KEY (rule, key)
) WITH (fillfactor = 50);
