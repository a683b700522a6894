-- what:  what the pruner looks up by; progress of attempts.
-- why:   ended jobs go after a time that the operator sets.
-- locks: none yet.
-- safe while old code runs: yes.
SELECT 1;
