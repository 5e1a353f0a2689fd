-- Everything stands in the schema `sluice`. The account leads every primary key, so that a distributed PostgreSQL can spread
-- accounts. Names are compared byte by byte, as Sluice orders them. Bodies are text: as jsonb they took 40 % more log, and text
-- keeps the very bytes that were hashed.

-- The account's own cell. `due_at` is where the sweep looks: at or before the end of each open hold, and lowered at once, but
-- raised only when the sweep comes by, so that an update nearly always leaves the index alone and the row on its page.
create table account (
  name text collate "C" primary key,
  due_at bigint,
  body text not null
) with (fillfactor = 50);
create index account_due on account (due_at) where due_at is not null;

-- Subjects, grants, policies and keys.
create table cell (
  account text collate "C" not null,
  key text collate "C" not null,
  body text not null,
  primary key (account, key)
) with (fillfactor = 50);

-- Open requests. A request moves to `request` when it closes, so that this table and its index stay small.
create table hold (
  account text collate "C" not null,
  request_id text collate "C" not null,
  expires_at bigint not null,
  body text not null,
  primary key (account, request_id)
);

-- Closed requests, by generation; a generation is a partition and is dropped whole.
create table generation (
  id integer primary key,
  opened_at bigint not null,
  closed_at bigint
);
create table request (
  generation integer not null,
  account text collate "C" not null,
  request_id text collate "C" not null,
  body text not null,
  primary key (account, request_id, generation)
) partition by list (generation);

-- Entries, by month of recording. `position` is commit order: the transaction's number, counted on from what stood here before
-- where the database was restored into another server.
create table journal (
  account text collate "C" not null,
  seq bigint not null,
  recorded_at bigint not null,
  at bigint not null,
  kind smallint not null,
  position bigint not null,
  request text,
  body text not null,
  private text,
  hash text not null,
  primary key (account, seq, recorded_at)
) partition by range (recorded_at);
create table journal_other partition of journal default;
create index journal_position on journal (position);

-- What is added to a transaction's number: one row.
create table position_base (
  base bigint not null
);
insert into position_base values (0);

-- A bounded log outside every chain; accounts by name, because a refusal makes no account.
create table refusal (
  account text collate "C" not null,
  id bigint generated always as identity,
  request_id text not null,
  subject text not null,
  reason text not null,
  at bigint not null,
  count bigint not null,
  answer text not null,
  primary key (account, id)
);
create index refusal_id on refusal (id);

-- The journal as people query it, one view for each kind of entry. Amounts are CU, quantities micro-units. `recorded_ms` is
-- what months are cut by: a bound on it keeps a query out of the other months.
create function cu(micros text) returns numeric language sql immutable parallel safe
  return round(micros::numeric / 1000000, 6);

create view usage as
  select account, seq, to_timestamp(at / 1000.0) as at, to_timestamp(recorded_at / 1000.0) as recorded_at,
    recorded_at as recorded_ms, request, e ->> 'actor' as actor, e ->> 'op' as op, e ->> 'feature' as feature,
    e ->> 'endpoint' as endpoint, e -> 'quantities' as quantities, (e ->> 'duration_ms')::bigint as duration_ms,
    private::json -> 'subject' as subject, private::json -> 'attributes' as attributes, hash
  from journal, lateral (select body::json as e) entry where kind = 0;

create view charge as
  select account, seq, to_timestamp(at / 1000.0) as at, to_timestamp(recorded_at / 1000.0) as recorded_at,
    recorded_at as recorded_ms, request, e ->> 'actor' as actor, (e ->> 'usage')::bigint as usage_seq,
    (e ->> 'policy')::integer as policy, (e ->> 'line')::integer as line, cu(e ->> 'cost') as cost,
    cu(e ->> 'returned') as returned, e -> 'cover' as cover, (e ->> 'corrects')::bigint as corrects,
    e ->> 'refund' as refund, e ->> 'reason' as reason, hash
  from journal, lateral (select body::json as e) entry where kind = 1;

create view balance as
  select account, seq, to_timestamp(at / 1000.0) as at, to_timestamp(recorded_at / 1000.0) as recorded_at,
    recorded_at as recorded_ms, request, e ->> 'actor' as actor, e ->> 'from' as debited, e ->> 'to' as credited,
    cu(e ->> 'amount') as amount, e ->> 'reason' as reason, (e ->> 'charge')::bigint as charge_seq, hash
  from journal, lateral (select body::json as e) entry where kind = 2;

create view decision as
  select account, seq, to_timestamp(at / 1000.0) as at, to_timestamp(recorded_at / 1000.0) as recorded_at,
    recorded_at as recorded_ms, request, e ->> 'actor' as actor, e ->> 'op' as op, e ->> 'feature' as feature,
    e ->> 'plan' as plan, (e ->> 'policy')::integer as policy, e ->> 'outcome' as outcome, e ->> 'reason' as reason,
    cu(e ->> 'cost') as cost, cu(e ->> 'granted') as granted, e -> 'from' as sources, e -> 'limits' as limits,
    private::json -> 'subject' as subject, private::json -> 'attributes' as attributes, hash
  from journal, lateral (select body::json as e) entry where kind = 3;

create view change as
  select account, seq, to_timestamp(at / 1000.0) as at, to_timestamp(recorded_at / 1000.0) as recorded_at,
    recorded_at as recorded_ms, request, e ->> 'actor' as actor, e ->> 'what' as what, e -> 'detail' as detail, hash
  from journal, lateral (select body::json as e) entry where kind = 4;
