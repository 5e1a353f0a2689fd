-- Totals of usage, kept beside the entries: what an account's charges up to the number `through` add up to. `revision` grows
-- with each change, so that of two nodes who would add one does. A node that knows nothing of these tables is not disturbed:
-- what it writes stands behind `through`.
create table usage_account (
  account text collate "C" primary key,
  through bigint not null,
  revision bigint not null,
  earliest_at bigint,
  latest_at bigint
);

-- By lengths of time in UTC (a quarter of an hour, an hour, six hours) and by what the uses have in common, `dimensions`, a JSON object.
-- Its SHA-256 stands for it in the key, whose rows may have 2,704 bytes at most. Amounts are µCU, quantities micro-units.
-- `first_at` and `last_at` are the earliest and the latest use, the numbers those of the entries that were counted.
create table usage_total (
  account text collate "C" not null,
  span_ms bigint not null,
  start_at bigint not null,
  dimensions_hash text collate "C" not null,
  dimensions text not null,
  requests bigint not null,
  charged bigint not null,
  quantities text not null,
  sources text not null,
  first_at bigint not null,
  last_at bigint not null,
  first_seq bigint not null,
  last_seq bigint not null,
  primary key (account, span_ms, start_at, dimensions_hash)
);
