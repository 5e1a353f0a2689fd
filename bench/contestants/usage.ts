/** Asks for 30 days of one account among many times as much usage, by day and model, again and again. */
import { Client } from 'pg'
import { createEngine, type Engine } from '../../src/engine.ts'
import { postgresStore } from '../../src/store/postgres/store.ts'
import { perform } from '../contestant.ts'
import { median } from '../figures.ts'
import { samplePairs, type Written } from '../sample.ts'
import { accountName, PLAN, POLICY, reserveRequest, settleRequest, together } from '../workload.ts'

const DAY_MS = 86_400_000
/** How far back usage goes, and how much of it is looked at. */
const PAST_DAYS = 40
const ASKED_DAYS = 30
/** Every tenth use is of the account that is asked for; the others are spread over so many. */
const SHARE = 10
const OTHERS = 1_000
const MODELS = ['gpt-5.3-codex', 'gpt-5.5', 'gpt-5.5-mini', 'gpt-6']
const ENDPOINTS = ['/v1/responses', '/v1/completions']
/** Uses after those in totals: the first are folded when they are first read, the others stay to be read each time. */
const FOLDED_LATER = 2_000
const UNFOLDED = 240
const CONNECTIONS = 2
const CHUNK = 250_000

const ASKED = accountName(0)

await perform(async ({ url, uses }) => {
  const now = Date.now()
  await prepareSchema(String(url), now - PAST_DAYS * DAY_MS)
  const filling = performance.now()
  await fill(String(url), Number(uses), now)
  const folding = performance.now()
  const engine = await createEngine({
    store: postgresStore({ url: String(url) }),
    policy: POLICY,
    sweeps: false,
  })
  await engine.tidyUp()
  const folded = performance.now()
  await use(engine, FOLDED_LATER)
  await ask(engine)
  // What the first question has found to be much is folded behind its back.
  await engine.tidyUp()
  await use(engine, UNFOLDED)
  return {
    async run(seconds) {
      const times: number[] = []
      const until = performance.now() + seconds * 1_000
      let rows = 0
      do {
        const startedAt = performance.now()
        rows = await ask(engine)
        times.push(performance.now() - startedAt)
      } while (performance.now() < until)
      return {
        medianMs: median(times),
        rows,
        fillSeconds: (folding - filling) / 1_000,
        foldSeconds: (folded - folding) / 1_000,
      }
    },
    close: () => engine.close(),
  }
})

/** The account, and the partitions of months that a system of that age has. */
async function prepareSchema(url: string, at: number): Promise<void> {
  const store = postgresStore({ url, now: () => at, wall: () => at })
  const engine = await createEngine({ store, policy: POLICY, sweeps: false })
  await engine.createAccount({ id: ASKED, plan: PLAN, time_zone: 'Europe/Berlin' })
  await engine.close()
}

async function ask(engine: Engine): Promise<number> {
  const to = Date.now()
  const rows = await engine.usage(ASKED, {
    from: to - ASKED_DAYS * DAY_MS,
    to,
    bucket: 'day',
    group_by: ['attributes.model'],
  })
  return rows.length
}

async function use(engine: Engine, count: number): Promise<void> {
  let left = count
  await together(64, async () => {
    while (left-- > 0) {
      const request = reserveRequest({ accounts: 1, users: 1 })
      await engine.reserve(request)
      await engine.settle(settleRequest(request))
    }
  })
}

/**
 * Uses and their charges straight into the journal, in order of time, with texts as the engine writes them. Without a log of their
 * own, since what is measured reads: it takes half the time.
 */
async function fill(url: string, uses: number, now: number): Promise<void> {
  const [pair] = await samplePairs(10, 1)
  if (pair === undefined) throw new Error('there is no pair to copy')
  const insert = insertion(pair.settle, uses, now)
  const clients = Array.from({ length: CONNECTIONS }, () => new Client({ connectionString: url }))
  for (const client of clients) await client.connect()
  try {
    const [first] = clients as [Client]
    await first.query('set search_path to sluice')
    const { rows } =
      await first.query(`select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
      where i.inhparent = 'journal'::regclass`)
    for (const { relname } of rows) await first.query(`alter table ${relname} set unlogged`)
    // Indexes are made at the end, in a third of the time.
    await first.query('alter table journal drop constraint journal_pkey; drop index journal_position')
    let next = 0
    await Promise.all(
      clients.map(async (client) => {
        await client.query('set search_path to sluice')
        while (next < uses) {
          const from = next
          next = Math.min(uses, next + CHUNK)
          await client.query(insert, [from, next - 1])
        }
      }),
    )
    await first.query(`set maintenance_work_mem = '512MB';
      alter table journal add primary key (account, seq, recorded_at);
      create index journal_position on journal (position)`)
    const last = 2 * Math.ceil(uses / SHARE) + 10
    await first.query(
      `update account set body = jsonb_set(body::jsonb, '{head,seq}', to_jsonb($2::bigint))::text where name = $1`,
      [ASKED, last],
    )
    await first.query('analyze')
  } finally {
    for (const client of clients) await client.end()
  }
}

/**
 * The n-th use of all is the (n / 10)-th of the account that is asked for where n is a multiple of 10, else one of another's. An
 * account's entries begin at 11, behind those that made it.
 */
function insertion({ entries }: Written, uses: number, now: number): string {
  const of = (kind: string) => {
    const found = entries.find((entry) => entry.kind === kind)
    if (found === undefined) throw new Error(`a settle writes no ${kind}`)
    return found
  }
  const names = { seq: 'u', usage: 'u', previous: 'u - 1', at: 'at', request: 'md5(n::text)::uuid' }
  const usage = expressionOf(of('usage').body, {
    ...names,
    endpoint: `(array['${ENDPOINTS.join("','")}'])[1 + n / 40 % 2]`,
  })
  const charge = expressionOf(of('charge').body, { ...names, seq: 'u + 1', previous: 'u' })
  const person = expressionOf(of('usage').private ?? '', {
    model: `(array['${MODELS.join("','")}'])[1 + n / 10 % 4]`,
  })
  return `
    insert into journal (account, seq, recorded_at, at, kind, request, body, private, hash, position)
    select account, u + kind, at, at, kind, null, case kind when 0 then ${usage} else ${charge} end,
      case kind when 0 then ${person} end, repeat(md5(n::text), 2), 1000000 + n
    from (
      select n, case when n % ${SHARE} = 0 then '${ASKED}' else 'other-' || lpad((n % ${SHARE} * 1000 + n / ${SHARE} % ${OTHERS})::text, 8, '0') end as account,
        11 + 2 * case when n % ${SHARE} = 0 then n / ${SHARE} else n / ${SHARE} / ${OTHERS} end as u,
        ${now - PAST_DAYS * DAY_MS} + (n * ${(PAST_DAYS * DAY_MS) / uses}::float8)::bigint as at
      from generate_series($1::bigint, $2::bigint) as n
    ) use, (values (0), (1)) as kinds (kind)`
}

/** A text of the engine's with some of its fields as SQL expressions. */
function expressionOf(body: string, fields: Readonly<Record<string, string>>): string {
  let text = `'${body.replaceAll("'", "''")}'`
  for (const [name, expression] of Object.entries(fields)) {
    text = text.replace(new RegExp(`"${name}":("[^"]*"|\\d+)`), (_, value: string) => {
      const quote = value.startsWith('"') ? '"' : ''
      return `"${name}":${quote}' || (${expression}) || '${quote}`
    })
  }
  return text
}
