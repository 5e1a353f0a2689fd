-- Integer ids for accounts, so that no other row or index carries their names.
create table account (
  id integer primary key,
  name text not null unique
) strict;

-- Everything that changes, but requests. The row id is the account's id times 4,194,304 plus a slot, 0 for the account's
-- own cell: what one operation changes lies side by side, in one page. `sum` is the CRC-32 of the body, seeded with the
-- account's id.
create table cell (
  id integer primary key,
  account integer not null,
  key text,
  due_at integer,
  sum integer not null,
  body text not null
) strict;
create unique index cell_key on cell (account, key) where key is not null;
create index cell_due on cell (due_at) where due_at is not null;

-- Row ids are commit order. Kinds are numbered as in ENTRY_KINDS.
create table journal (
  id integer primary key,
  account integer not null,
  seq integer not null,
  kind integer not null,
  body text not null,
  private text,
  hash text not null
) strict;
create unique index journal_seq on journal (account, seq);

-- Request cells live in tables request_<id>, one a generation, which are dropped whole.
create table generation (
  id integer primary key,
  opened_at integer not null,
  closed_at integer
) strict;

-- A bounded log outside every chain; accounts by name, because a refusal makes no account.
create table refusal (
  id integer primary key,
  account text not null,
  request_id text not null,
  subject text not null,
  reason text not null,
  at integer not null,
  count integer not null,
  answer text not null
) strict;
create index refusal_account on refusal (account, id);

-- Written to find out whether writing works again.
create table probe (
  id integer primary key,
  at integer not null
) strict;
