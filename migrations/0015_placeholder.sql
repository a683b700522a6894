-- what:  nothing. It keeps the place of another branch's 0015, for numbers may have no gap: delete it when
--        that one is there.
-- why:   0016 can't be tested without it.
-- locks: none.
-- safe while old code runs: yes.
SELECT 1;
