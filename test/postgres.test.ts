/** The PostgreSQL that tests use is what `postgres.ts` says of it. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, type TestContext, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { Client } from 'pg'
import { type Cluster, findPrograms, startCluster, testDatabase } from './postgres.ts'

const MODULE = join(import.meta.dirname, 'postgres.ts')

async function connect(t: TestContext, url: string): Promise<Client> {
  const client = new Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  t.after(() => client.end())
  return client
}

/** Waits up to five seconds for what happens at once or never. */
async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const endsAt = Date.now() + 5_000; !isSo(); await pause(20))
    assert.ok(Date.now() < endsAt, `in vain: ${what}`)
}

/** False also for a process that has ended and that nobody has asked about: who adopts it may never do so. */
function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    const state = existsSync('/proc') ? readFileSync(`/proc/${pid}/stat`, 'utf8') : ''
    return !/^\d+ \(.*\) Z/s.test(state)
  } catch {
    return false
  }
}

/** A test process of its own, whose temporary files are in a folder that should be empty afterwards. */
function elsewhere(
  t: TestContext,
  code: string,
  env: Readonly<Record<string, string>> = {},
): { readonly child: ChildProcess; readonly folder: string } {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-test-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  chmodSync(folder, 0o755)
  const text = `import { startCluster, testDatabase } from ${JSON.stringify(MODULE)}\n${code}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', text], {
    env: { ...process.env, TMPDIR: folder, SLUICE_TEST_POSTGRES: '', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return { child, folder }
}

describe('a database of a test', () => {
  test('is apart from every other, and gone when it is dropped', async (t) => {
    const [one, other] = await Promise.all([testDatabase(), testDatabase()])
    assert.match(new URL(one.url).pathname, /^\/sluice_test_[0-9a-f]{24}$/)
    const [inOne, inOther] = [await connect(t, one.url), await connect(t, other.url)]
    await inOne.query(`create table a as select 'ß' as text`)
    assert.equal((await inOne.query('select text from a')).rows[0].text, 'ß')
    await assert.rejects(inOther.query('select text from a'), { code: '42P01' })

    await one.drop()
    await assert.rejects(connect(t, one.url), { code: '3D000' })
    await one.drop()
    assert.equal((await inOther.query('select 1 as a')).rows[0].a, 1)
    await other.drop()
  })

  test('asks in one line for a server where none can be had', async (t) => {
    const code = 'await testDatabase().catch(({ message }) => console.log(message))'
    const { child } = elsewhere(t, code, { SLUICE_TEST_POSTGRES: 'postgres://127.0.0.1:1/x' })
    const said = await Array.fromAsync(child.stdout ?? [], String)
    assert.equal(
      said.join(''),
      'SLUICE_TEST_POSTGRES cannot be used (connect ECONNREFUSED 127.0.0.1:1): apt-get install postgresql, or set ' +
        'SLUICE_TEST_POSTGRES to the URL of a server where databases may be made\n',
    )
    assert.throws(() => findPrograms('/nowhere:', '/nowhere'), {
      message: /^tests need a PostgreSQL: apt-get install postgresql, or set SLUICE_TEST_POSTGRES to [^\n]+$/,
    })
  })
})

describe('a cluster', () => {
  let cluster: Cluster
  before(async () => {
    cluster = await startCluster({ max_connections: '20', 'sluice.test': "it's" })
  })
  after(() => cluster.remove())

  test('answers, with the settings asked for and on its port alone', async (t) => {
    const client = await connect(t, cluster.url())
    const { rows } = await client.query(`select 1 as a, current_setting('max_connections') as many,
      current_setting('sluice.test') as quoted, current_setting('fsync') as fsync,
      current_setting('unix_socket_directories') as sockets`)
    assert.deepEqual(rows, [{ a: 1, many: '20', quoted: "it's", fsync: 'on', sockets: '' }])
  })

  test('loses databases of tests that ended an hour ago, unless somebody uses them', async (t) => {
    const client = await connect(t, cluster.url())
    const nameAt = (hours: number, n: number): string =>
      `sluice_test_${Math.floor(Date.now() / 1000 - hours * 3600).toString(16)}${String(n).padStart(16, '0')}`
    const [old, used, recent] = [nameAt(1.1, 1), nameAt(1.1, 2), nameAt(0.9, 3)]
    for (const name of [old, used, recent]) await client.query(`create database ${name}`)
    await connect(t, cluster.url(used))

    const code = 'await (await testDatabase()).drop()'
    const { child } = elsewhere(t, code, { SLUICE_TEST_POSTGRES: cluster.url() })
    assert.deepEqual(await once(child, 'close'), [0, null])
    const { rows } = await client.query(`select datname from pg_database where datname ~ '^sluice_test'`)
    assert.deepEqual(rows.map(({ datname }) => datname).sort(), [used, recent])
  })

  test('crashes, and comes back at the same address with what was committed', async (t) => {
    const [pid, url] = [cluster.pid, cluster.url()]
    const before = await connect(t, url)
    await before.query(`create table a as select 'kept' as text`)
    await cluster.restart('immediate')
    assert.notEqual(cluster.pid, pid)
    assert.equal(cluster.url(), url)
    await assert.rejects(before.query('select 1'))
    assert.match(readFileSync(join(cluster.folder, 'log'), 'utf8'), /automatic recovery in progress/)
    const after = await connect(t, url)
    assert.equal((await after.query('select text from a')).rows[0].text, 'kept')
  })

  test('starts again when only its postmaster was killed', async (t) => {
    process.kill(cluster.pid, 'SIGKILL')
    await cluster.start()
    await connect(t, cluster.url())
  })

  test('stands still while it is paused, and goes on', async (t) => {
    const client = await connect(t, cluster.url())
    await cluster.pause()
    let answered = false
    const query = client.query('select 1 as a').finally(() => {
      answered = true
    })
    await pause(300)
    assert.equal(answered, false)
    cluster.resume()
    assert.equal((await query).rows[0].a, 1)
  })

  test('that refuses tests makes them start one of their own, which ends with them', async (t) => {
    const client = await connect(t, cluster.url())
    const rules = join(cluster.folder, 'data/pg_hba.conf')
    const open = readFileSync(rules, 'utf8')
    writeFileSync(rules, open.replaceAll(/\btrust$/gm, 'scram-sha-256'))
    await client.query('select pg_reload_conf()')

    const { host } = new URL(cluster.url())
    const code = `const { url } = await testDatabase('${host}'); console.log(url); throw new Error('on purpose')`
    const { child, folder } = elsewhere(t, code)
    const said = (await Array.fromAsync(child.stdout ?? [], String)).join('')
    assert.match(said, /^postgres:\/\/postgres@127\.0\.0\.1:\d+\/sluice_test_\w+\n$/)
    assert.notEqual(new URL(said).host, host)
    await once(child, 'close')
    assert.deepEqual(readdirSync(folder), [])
    await assert.rejects(connect(t, said.trim()), { code: 'ECONNREFUSED' })

    writeFileSync(rules, open)
    await client.query('select pg_reload_conf()')
  })

  test('ends also with a test process that is killed', async (t) => {
    const code = 'const { pid } = await startCluster(); console.log(pid); setInterval(() => {}, 1000)'
    const { child, folder } = elsewhere(t, code)
    const [line] = await once(child.stdout ?? child, 'data')
    assert.ok(isAlive(Number(line)))
    child.kill('SIGKILL')
    await until('the postmaster ends', () => !isAlive(Number(line)))
    await until('the folder is empty', () => readdirSync(folder).length === 0)
  })

  test('leaves no process and no folder, also when it is removed while it is paused', async (t) => {
    const client = await connect(t, cluster.url())
    const backend = (await client.query('select pg_backend_pid() as pid')).rows[0].pid
    const pids = [cluster.pid, backend]
    assert.ok(pids.every(isAlive))
    await cluster.pause()
    await cluster.remove()
    assert.equal(existsSync(cluster.folder), false)
    await until('its processes end', () => !pids.some(isAlive))
  })
})
