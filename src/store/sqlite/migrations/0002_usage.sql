-- Totals of usage, kept beside the entries: what an account's charges up to the number `through` add up to, by lengths of
-- time and by what the uses have in common. `revision` grows with each change, so that of two who would add one does.
create table usage_account (
  account integer primary key,
  through integer not null,
  revision integer not null,
  earliest_at integer,
  latest_at integer
) strict;
create table usage_total (
  account integer not null,
  span_ms integer not null,
  start_at integer not null,
  dimensions text not null,
  requests integer not null,
  charged integer not null,
  quantities text not null,
  sources text not null,
  first_at integer not null,
  last_at integer not null,
  first_seq integer not null,
  last_seq integer not null,
  primary key (account, span_ms, start_at, dimensions)
) strict, without rowid;
