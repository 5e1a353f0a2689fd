import assert from 'node:assert/strict'
import { randomInt } from 'node:crypto'
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { Client } from 'pg'
import { openProgress } from '../src/cli/audit/progress.ts'
import {
  type AuditedAccount,
  type AuditOptions,
  createEngine,
  type Disagreement,
  type Engine,
} from '../src/engine.ts'
import type { AccountCell } from '../src/kernel/cells.ts'
import { memoryStore } from '../src/store/memory.ts'
import { postgresStore } from '../src/store/postgres/store.ts'
import { sqliteStore } from '../src/store/sqlite/store.ts'
import type { Store } from '../src/store.ts'
import { type TestDatabase, testDatabase } from './postgres.ts'
import { sluice, temporary } from './process.ts'

const POLICY = `
features: { job: {} }
plans:
  plus:
    guards: [{ name: in-flight, concurrency: 500, by: user }]
    waterfall:
      - { allowance: included, by: user, windows: [{ name: 7d, limit: "1000000", per: 7d }] }
      - credits: [purchased]
    hold: { ttl: 1h }
`

const use = async (engine: Engine, account: string, id: string, user = 'u1'): Promise<void> => {
  const reserve = { account, request_id: id, subject: { user }, feature: 'job', cost: '2' }
  const { outcome, reason } = await engine.reserve(reserve)
  assert.equal(outcome, 'allow', reason)
  await engine.settle({ account, request_id: id, cost: '1' })
}

/** Small accounts, one with more entries than small ones have, one with more open requests, and a policy or two. */
async function fill(engine: Engine): Promise<void> {
  const names = Array.from({ length: 130 }, (_, n) => `a${String(n).padStart(3, '0')}`)
  await Promise.all(
    [...names, 'long', 'held'].map(async (id) => {
      await engine.createAccount({ id, plan: 'plus' })
      await engine.grant(id, { id: 'g', kind: 'purchased', amount: '5' })
      for (let n = 0; n < 3; n++) await use(engine, id, `r${n}`, `u${n % 2}`)
    }),
  )
  await Promise.all(Array.from({ length: 500 }, (_, n) => use(engine, 'long', `l${n}`, `u${n % 7}`)))
  const hold = { account: 'held', subject: { user: 'u1' }, feature: 'job', cost: '1' }
  await Promise.all(Array.from({ length: 400 }, (_, n) => engine.reserve({ ...hold, request_id: `h${n}` })))
}

async function look(engine: Engine, options: AuditOptions = {}) {
  const audited: AuditedAccount[] = []
  const told: Disagreement[] = []
  const report = await engine.audit({
    ...options,
    onAccount: (one) => audited.push(one),
    onDisagreement: (one) => told.push(one),
  })
  return { report, audited, told }
}

/** Damage as a disk would do it: to what is read, of some accounts. */
function damaged(store: Store, accounts: readonly string[]): Store {
  const wrong = <T extends { readonly body: string; readonly seq: number }>(stored: T): T =>
    stored.seq % 3 === 0
      ? { ...stored, body: stored.body.replace('"cost":1000000', '"cost":999999') }
      : stored
  const hurt = (account: string) => accounts.includes(account)
  return {
    ...store,
    snapshots: async (asked, limit) =>
      (await store.snapshots(asked, limit)).map((one, place) =>
        hurt(asked[place]!.account) ? { ...one, entries: one.entries.map(wrong) } : one,
      ),
    entries: async (account, query) => {
      const page = await store.entries(account, query)
      return hurt(account) ? page.map(wrong) : page
    },
  }
}

describe('an audit of many accounts', () => {
  test('tells the same in the same order, however many parts are audited at a time', async () => {
    const store = memoryStore()
    await fill(await createEngine({ store, policy: POLICY, sweeps: false }))
    const engine = await createEngine({
      store: damaged(store, ['a003', 'a111', 'long', 'held']),
      sweeps: false,
    })
    const one = await look(engine, { atOnce: 1 })
    assert.deepEqual(
      one.audited.map(({ account }) => account),
      [
        '@system',
        ...one.audited
          .map(({ account }) => account)
          .slice(1)
          .sort(),
      ],
    )
    assert.deepEqual([...new Set(one.told.map(({ account }) => account))], ['a003', 'a111', 'held', 'long'])
    assert.ok(one.told.length > 100)
    const { report } = one
    assert.equal(report.entries, (await store.journal(undefined, 1e6)).length)
    assert.equal(report.accounts, 133)
    for (const atOnce of [2, 7]) assert.deepEqual(await look(engine, { atOnce }), one)
    // In parts of one account each, every account is read page by page.
    const audit = engine.auditParts({})
    const elsewhere: AuditOptions['elsewhere'] = async (part) =>
      (await Promise.all(part.map((account) => audit([account])))).flat()
    assert.deepEqual(await look(engine, { elsewhere, atOnce: 3 }), one)
  })

  test('goes on behind an account, and heads of accounts that are gone are told at their place', async () => {
    const store = memoryStore()
    const engine = await createEngine({ store, policy: POLICY, sweeps: false })
    await fill(engine)
    const whole = await look(engine)
    const gone = { seq: 9, hash: 'f'.repeat(64) }
    const heads = { ...whole.report.heads, a0601: gone, zzz: gone, A: gone }
    const all = await look(engine, { heads })
    assert.deepEqual(
      all.told.map(({ account, kind }) => [account, kind]),
      [
        ['A', 'head'],
        ['a0601', 'head'],
        ['zzz', 'head'],
      ],
    )
    const rest = await look(engine, { heads, after: 'a050' })
    assert.deepEqual(
      rest.told.map(({ account }) => account),
      ['a0601', 'zzz'],
    )
    assert.equal(rest.report.accounts, 132 - 51)
    assert.equal((await look(engine, { after: '@system' })).report.accounts, 132)
    const some = await look(engine, { accounts: ['long', '@system', 'a007', 'long'], after: 'a007' })
    assert.deepEqual(
      some.audited.map(({ account }) => account),
      ['long'],
    )
  })

  test('knows the prices of a policy that is published while it runs', async () => {
    const store = memoryStore()
    const engine = await createEngine({ store, policy: POLICY, sweeps: false })
    await fill(engine)
    const priced = POLICY.replace('job: {}', 'job: {}, task: { rate_card: [{ per_unit: { units: 1 } }] }')
    const { snapshots, snapshot } = store
    let publish: (() => Promise<unknown>) | undefined
    const task = (account: string) => ({
      account,
      request_id: 'new',
      subject: { user: 'u1' },
      feature: 'task',
      usage: { units: '3' },
    })
    store.snapshots = async (...asked) => {
      await publish?.()
      return snapshots(...asked)
    }
    store.snapshot = async (account, read) => {
      if (account !== '@system') await publish?.()
      return snapshot(account, read)
    }
    publish = async () => {
      publish = async () => {
        publish = undefined
        await engine.publishPolicy(priced.replace('units: 1', 'units: 2'), undefined)
        await engine.record(task('long'))
      }
      await engine.publishPolicy(priced, undefined)
      await engine.record(task('a100'))
    }
    const { told, report } = await look(engine, { atOnce: 1 })
    assert.deepEqual(told, [])
    assert.equal(publish, undefined, 'both policies were published meanwhile')
    assert.ok(report.entries > 0)
  })
})

describe('an audit of a PostgreSQL that is in use', () => {
  let database: TestDatabase
  before(async () => {
    database = await testDatabase()
  })
  after(() => database.drop())

  test('finds nothing, and keeps no transaction open', async () => {
    const engine = await createEngine({ store: postgresStore({ url: database.url }), policy: POLICY })
    const auditor = await createEngine({
      store: postgresStore({ url: database.url, schema: 'require' }),
      sweeps: false,
    })
    const watcher = new Client({ connectionString: database.url })
    await watcher.connect()
    await fill(engine)
    let working = true
    let ops = 0
    const load = Promise.all(
      ['long', 'held', 'a001', 'a002'].map(async (account) => {
        for (let n = 0; working; n++, ops++) await use(engine, account, `${account}-${n}`, `u${randomInt(9)}`)
      }),
    )
    let longest = 0
    let seen = 0
    const watch = (async () => {
      while (working) {
        const { rows } =
          await watcher.query(`select extract(epoch from clock_timestamp() - xact_start)::float8 as age
          from pg_stat_activity where datname = current_database() and xact_start is not null and pid <> pg_backend_pid()`)
        seen += rows.length
        for (const { age } of rows) longest = Math.max(longest, age)
        await pause(3)
      }
    })()
    try {
      for (let round = 0; round < 6; round++) {
        const { told, report } = await look(auditor, {
          writeCheckpoints: round === 3,
          fromCheckpoints: round > 4,
        })
        assert.deepEqual(told, [])
        assert.equal(report.accounts, 133)
      }
    } finally {
      working = false
      await Promise.all([load, watch])
      await watcher.end()
      await Promise.all([engine.close(), auditor.close()])
    }
    assert.ok(ops > 0 && seen > 0)
    assert.ok(longest < 10, `a transaction lasted ${longest} s`)
  })

  test('with threads tells the same as without', async () => {
    const audit = async (...args: string[]) =>
      JSON.parse((await sluice(['audit', '--json', '--store', database.url, ...args])).stdout)
    const one = await audit('--jobs', '1')
    assert.equal(one.clean, true)
    assert.deepEqual(await audit('--jobs', '3'), one)
    await sql(
      database.url,
      `update sluice.journal set body = replace(body, '"cost":1000000', '"cost":900000')
      where account in ('a005', 'a100', 'long') and seq % 5 = 0`,
    )
    const damage = await audit('--jobs', '1')
    assert.equal(damage.clean, false)
    assert.deepEqual(await audit('--jobs', '3'), damage)
    const { code, stderr } = await sluice(['audit', '--jobs', '0', '--store', database.url])
    assert.equal(code, 2)
    assert.match(stderr, /--jobs is 0/)
  })
})

async function sql(url: string, text: string): Promise<void> {
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query(text)
  await client.end()
}

describe('an audit that was interrupted', () => {
  const { folder, remove } = temporary()
  after(remove)
  const path = join(folder, 'sluice.db')
  const file = join(folder, 'progress')
  const audit = async (...args: string[]) => {
    const ended = await sluice(['audit', '--json', '--store', `sqlite:${path}`, ...args])
    return { ...ended, report: ended.stdout === '' ? undefined : JSON.parse(ended.stdout) }
  }
  const SAME = {
    store: path,
    accounts: [],
    heads: null,
    from_checkpoints: false,
    write_checkpoints: false,
  }
  let whole: Awaited<ReturnType<typeof look>>
  before(async () => {
    const engine = await createEngine({ store: sqliteStore({ path }), policy: POLICY, sweeps: false })
    await fill(engine)
    whole = await look(engine)
    await engine.close()
  })

  /** A file as an audit leaves it that is killed after so many accounts. */
  function interrupt(accounts: number): void {
    const progress = openProgress(file, SAME, 10)
    for (const one of whole.audited.slice(0, accounts)) progress.note(one)
    progress.flush()
  }

  test('goes on behind the last account that was finished, and reports on all of them', async () => {
    interrupt(60)
    const { report } = await audit('--progress', file)
    const { heads: _, ...counts } = whole.report
    assert.deepEqual(report, { ...counts, clean: true, found: [] })
    assert.ok(!existsSync(file), 'the file is removed at the end')
  })

  test('reads no line that was not whole, and none of accounts before it again', async () => {
    interrupt(60)
    appendFileSync(file, JSON.stringify(whole.audited[60]).slice(0, 40))
    const done = openProgress(file, SAME, 10).done!
    assert.deepEqual([done.after, done.accounts], [whole.audited[59]!.account, 60])
    assert.ok(readFileSync(file, 'utf8').endsWith('}\n'))
    // What the file says of an account is believed: this one had a finding, and it is not looked at again.
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
    const last = JSON.parse(lines.pop()!)
    const finding = { account: last.account, kind: 'charge', message: 'two sides differ' }
    writeFileSync(
      file,
      `${[...lines, JSON.stringify({ ...last, disagreements: 1, found: [finding] })].join('\n')}\n`,
    )
    const { report, code } = await audit('--progress', file)
    assert.deepEqual([code, report.disagreements, report.found], [1, 1, [finding]])
    assert.equal(report.entries, whole.report.entries)
  })

  test('begins anew where nothing was finished, and refuses the progress of another audit', async () => {
    writeFileSync(file, JSON.stringify({ audit: SAME }).slice(0, 30))
    assert.equal(openProgress(file, SAME, 10).done, undefined)
    assert.equal((await audit('--progress', file)).report.accounts, 133)
    interrupt(3)
    const { code, stderr } = await audit('--progress', file, '--from-checkpoints')
    assert.equal(code, 2)
    assert.match(stderr, /is not the progress of this audit/)
  })

  test('an account that was made meanwhile is audited where it comes later in the order', async () => {
    writeFileSync(file, '')
    interrupt(60)
    const engine = await createEngine({ store: sqliteStore({ path }), sweeps: false })
    const [first, later] = ['a0001', 'a0901']
    for (const id of [first, later]) await engine.createAccount({ id, plan: 'plus' })
    await engine.close()
    const { report } = await audit('--progress', file, '--write-heads', join(folder, 'heads'))
    assert.equal(report.accounts, 134)
    const heads = JSON.parse(readFileSync(join(folder, 'heads'), 'utf8'))
    assert.deepEqual([first in heads, later in heads], [false, true])
  })
})

test('an account cell that counts fewer entries than there are is read all the same', async () => {
  const store = memoryStore()
  const engine = await createEngine({ store, policy: POLICY, sweeps: false })
  await fill(engine)
  const { accounts } = store
  store.accounts = async (page) =>
    (await accounts(page)).map((cell): AccountCell => ({ ...cell, head: { ...cell.head, seq: 2 } }))
  const { told, report } = await look(engine)
  assert.deepEqual(told, [])
  assert.equal(report.entries, (await store.journal(undefined, 1e6)).length)
})
