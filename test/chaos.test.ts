/** Whatever happens to nodes, wires and PostgreSQL under load, what was answered stays, and nothing counts twice. */
import assert from 'node:assert/strict'
import { after, before, describe, type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Client } from 'pg'
import type { Engine } from '../src/engine.ts'
import { type Random, randomFrom } from '../src/sim/random.ts'
import type { PostgresOptions } from '../src/store/postgres/store.ts'
import { expectExactBooks } from './chaos/books.ts'
import { type Load, newAccounts, startLoad } from './chaos/load.ts'
import { type Node, NodeGone, type NodeProcess, startEngine, startProcess } from './chaos/nodes.ts'
import { layWire } from './chaos/wire.ts'
import { type Cluster, startCluster } from './postgres.ts'

const LONG = process.env.SLUICE_LONG === '1'
const TIMES = Number(process.env.SLUICE_TIMES ?? (LONG ? 30 : 3))
const SEED = Number(process.env.SLUICE_SEED ?? Date.now() & 0x7fffffff)
const ROLE = 'app'
const HOUR = 3_600_000
const NO_CONNECTION = /no connection left/

/** How long calls may take while nothing answers, and until they are answered again when something does. */
const ANSWER_MS = 10_000
const RECOVERY_MS = 15_000
/** More than this is charged before trouble begins, and after it has ended. */
const BEFORE = 100
const AFTER = 100

interface Trouble {
  readonly load: Load
  readonly random: Random
}

describe(`a PostgreSQL that two nodes share, ${TIMES} times each, under load (SLUICE_SEED=${SEED})`, () => {
  let cluster: Cluster
  let databases = 0
  before(async () => {
    cluster = await startCluster({ max_connections: '40' })
    await asAdmin(`create role ${ROLE} login`)
  })
  after(() => cluster.remove())

  /** A superuser, for whom a place is kept. */
  async function asAdmin(...commands: readonly string[]): Promise<readonly Record<string, unknown>[]> {
    const admin = new Client({ connectionString: cluster.url() })
    await admin.connect()
    try {
      let rows: Record<string, unknown>[] = []
      for (const command of commands) ({ rows } = await admin.query(command))
      return rows
    } finally {
      await admin.end()
    }
  }

  /** The URL of an empty database; its nodes are nobody special there. */
  async function newDatabase(): Promise<string> {
    const name = `chaos${databases++}`
    await asAdmin(`create database ${name} owner ${ROLE}`)
    const url = new URL(cluster.url(name))
    url.username = ROLE
    return url.href
  }

  /** Two nodes in this process, which end with the test. */
  async function twoEngines(t: TestContext, one: PostgresOptions, other = one): Promise<readonly Engine[]> {
    const engines = [await startEngine(one), await startEngine(other)]
    t.after(() => Promise.all(engines.map((engine) => engine.close())))
    return engines
  }

  /** Load, trouble in the midst of it, and load after it; then the books. As often as it is to be. */
  async function through(
    t: TestContext,
    nodes: () => readonly Node[],
    url: string,
    trouble: (under: Trouble) => Promise<void>,
  ): Promise<Load[]> {
    const loads: Load[] = []
    const reader = await startEngine({ url })
    t.after(() => reader.close())
    for (let round = 0; round < TIMES; round++) {
      const random = randomFrom(SEED + round)
      const accounts = await newAccounts(nodes()[0] as Node, round)
      const load = startLoad(accounts, nodes, random)
      try {
        await load.more(BEFORE)
        await trouble({ load, random })
        const recoveredMs = await load.more(AFTER)
        assert.ok(recoveredMs < RECOVERY_MS, `calls were answered again after ${recoveredMs} ms only`)
      } finally {
        await load.stop()
      }
      assert.ok(load.longestMs < ANSWER_MS, `a call took ${load.longestMs} ms to be answered`)
      assert.ok(load.refused.has('concurrency_full'), 'some limit was met all the time')
      await expectExactBooks([accounts.hot, ...accounts.others], load.told, nodes(), reader, random)
      loads.push(load)
    }
    assert.equal((await reader.audit({})).disagreements, 0)
    return loads
  }

  test('a node that is killed takes nothing with it that it has answered', async (t) => {
    const url = await newDatabase()
    const processes = [await startProcess(url), await startProcess(url)]
    t.after(() => Promise.all(processes.map((one) => one.kill())))
    const loads = await through(
      t,
      () => processes.map(({ node }) => node),
      url,
      async ({ load, random }) => {
        const place = random.int(0, 1)
        await pause(random.int(0, 50))
        await (processes[place] as NodeProcess).kill()
        // The other serves alone, and then with a new one.
        await load.more(50)
        processes[place] = await startProcess(url)
      },
    )
    assert.ok(failuresOf(loads).some((error) => error instanceof NodeGone))
  })

  test('a PostgreSQL that crashes loses nothing that was answered, and is found again', async (t) => {
    const url = await newDatabase()
    const engines = await twoEngines(t, { url })
    const loads = await through(
      t,
      () => engines,
      url,
      async ({ random }) => {
        await pause(random.int(0, 50))
        await cluster.restart('immediate')
      },
    )
    assert.ok(failuresOf(loads).length > 0)
  })

  test('connections cut in the middle of commits are made anew, and nothing is done twice or by half', async (t) => {
    const url = await newDatabase()
    const wire = await layWire(url)
    t.after(() => wire.close())
    const engines = await twoEngines(t, { url: wire.url })
    await through(
      t,
      () => engines,
      url,
      async ({ load, random }) => {
        const { before, within, after, any } = wire.cuts
        wire.rage(random)
        do await load.more(20)
        while (
          wire.cuts.before === before ||
          wire.cuts.within === within ||
          wire.cuts.after === after ||
          wire.cuts.any < any + 10
        )
        wire.mend()
      },
    )
  })

  test('a PostgreSQL that stands still is told of in time, takes no memory, and goes on', async (t) => {
    const url = await newDatabase()
    const engines = await twoEngines(t, { url })
    await through(
      t,
      () => engines,
      url,
      async ({ random }) => {
        const before = await heapUsed()
        await cluster.pause()
        await pause(5_000 + random.int(0, LONG ? 5_000 : 2_000))
        const grown = (await heapUsed()) - before
        cluster.resume()
        assert.ok(grown < 50_000_000, `the heap has grown by ${grown} bytes`)
      },
    )
  })

  test('a PostgreSQL without a connection left is told of, with what to do', async (t) => {
    const url = await newDatabase()
    const engines = await twoEngines(t, { url })
    const loads = await through(
      t,
      () => engines,
      url,
      async ({ load }) => {
        const others: Client[] = []
        const failures = load.failures.length
        const refused = () =>
          load.failures.slice(failures).filter(({ message }) => NO_CONNECTION.test(message))
        // A node that is cut off takes its place again, until others are there first.
        do {
          await takeConnections(others, url)
          await asAdmin(
            `select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'sluice%'`,
          )
          await pause(20)
        } while (refused().length < 200)
        await Promise.all(others.map((client) => client.end()))
      },
    )
    expectTold(loads, NO_CONNECTION, /max_connections/)
  })

  test('a PostgreSQL that can only be read is told of, with what to do', async (t) => {
    const url = await newDatabase()
    const engines = await twoEngines(t, { url })
    const loads = await through(
      t,
      () => engines,
      url,
      async ({ load }) => {
        const failures = load.failures.length
        await asAdmin('alter system set default_transaction_read_only = on', 'select pg_reload_conf()')
        while (load.failures.length < failures + 200) await pause(10)
        await asAdmin('alter system reset default_transaction_read_only', 'select pg_reload_conf()')
      },
    )
    expectTold(loads, /can only be read/, /primary/)
  })

  // To fill a disk of its own takes a mount, which not everybody may make: a trigger says here what PostgreSQL says then.
  test('a PostgreSQL whose disk is full is told of, with what to do', async (t) => {
    const url = await newDatabase()
    const engines = await twoEngines(t, { url })
    const owner = new Client({ connectionString: url })
    await owner.connect()
    t.after(() => owner.end())
    await owner.query(`create function no_room() returns trigger language plpgsql as
      $$ begin raise 'No space left on device' using errcode = 'disk_full'; end $$`)
    const loads = await through(
      t,
      () => engines,
      url,
      async ({ load }) => {
        const failures = load.failures.length
        await owner.query(
          'create trigger full_disk before insert on sluice.journal execute function no_room()',
        )
        while (load.failures.length < failures + 200) await pause(10)
        await owner.query('drop trigger full_disk on sluice.journal')
      },
    )
    expectTold(loads, /disk of PostgreSQL is full/, /room/)
  })

  test('nodes whose clocks are an hour apart decide by the database’s', async (t) => {
    const url = await newDatabase()
    let ahead = HOUR
    const wallOf = (sign: number) => ({ url, wall: () => Date.now() + sign * ahead })
    const engines = await twoEngines(t, wallOf(1), wallOf(-1))
    const databaseNow = async (): Promise<number> => {
      const [row] = await asAdmin('select (extract(epoch from clock_timestamp()) * 1000)::float8 as now')
      return row?.now as number
    }
    const begun = await databaseNow()
    const loads = await through(
      t,
      () => engines,
      url,
      async ({ load }) => {
        // Both are set anew while they work, past each other.
        ahead = -ahead
        await load.more(100)
      },
    )
    const ended = await databaseNow()
    for (const { told } of loads)
      for (const { reserved } of told)
        if (reserved) assert.ok(begun - 1 <= reserved.decided_at && reserved.decided_at <= ended)
    assert.deepEqual(failuresOf(loads), [])
  })
})

const failuresOf = (loads: readonly Load[]) => loads.flatMap(({ failures }) => failures)

/** Every load has been told of it, in these words. */
function expectTold(loads: readonly Load[], message: RegExp, remedy: RegExp): void {
  for (const { failures } of loads)
    assert.ok(
      failures.some(
        (error) =>
          message.test(error.message) &&
          !(error instanceof NodeGone) &&
          remedy.test(error.detail.remedy ?? ''),
      ),
      `told were ${[...new Set(failures.map((error) => error.message))].join('; ')}`,
    )
}

/** Takes every connection that is left to others than superusers. */
async function takeConnections(into: Client[], url: string): Promise<void> {
  for (;;) {
    const client = new Client({ connectionString: url })
    client.on('error', () => {})
    try {
      await client.connect()
      into.push(client)
    } catch (error) {
      assert.equal((error as { code?: string }).code, '53300')
      return
    }
  }
}

/** After everything is dropped that can be. */
async function heapUsed(): Promise<number> {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  await pause(0)
  collect()
  return process.memoryUsage().heapUsed
}
