/** State in a PostgreSQL: servers share it, commands work beside them, and nothing is made where a name was mistyped. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { Client } from 'pg'
import { type Cluster, startCluster, type TestDatabase, testDatabase } from '../../test/postgres.ts'
import { type Ended, ROOT, type Server, serve, sluice, temporary } from '../../test/process.ts'

const EXAMPLE = join(ROOT, 'examples/codex-and-sora.yaml')
const ADMIN_KEY = 'an-admin-key-for-tests'
const PASSWORD = 'hunter2'

/** Of all that was said here nothing may have the password in it. */
const said: string[] = []
async function run(...args: readonly string[]): Promise<Ended> {
  const ended = await sluice(args, { SLUICE_DEBUG: '1' })
  said.push(ended.stdout, ended.stderr)
  return ended
}
async function json(...args: readonly string[]) {
  const ended = await run(...args, '--json')
  assert.equal(ended.code, 0, ended.stderr)
  return JSON.parse(ended.stdout)
}
/** Without SLUICE_DEBUG: one line, and nothing on standard output. */
async function refused(code: number, says: RegExp, ...args: readonly string[]): Promise<void> {
  const ended = await sluice(args)
  said.push(ended.stderr)
  assert.match(ended.stderr, says)
  const lines = ended.stderr.trimEnd().split('\n').length
  assert.deepEqual([ended.code, ended.stdout, lines], [code, '', 1], ended.stderr)
}
function withPassword(text: string, user = 'postgres', password = PASSWORD): string {
  const url = new URL(text)
  return Object.assign(url, { username: url.username || user, password }).href
}
async function ask(url: string, sql: string): Promise<readonly Record<string, unknown>[]> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query(sql)).rows
  } finally {
    await client.end()
  }
}
async function call(
  { url }: Server,
  path: string,
  body?: object,
  key = ADMIN_KEY,
): Promise<Record<string, unknown>> {
  const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/json' }
  const sent = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }
  return (await (await fetch(`${url}${path}`, { headers, ...sent })).json()) as Record<string, unknown>
}

let database: TestDatabase
let store: readonly string[]
before(async () => {
  database = await testDatabase()
  store = ['--store', withPassword(database.url)]
})
after(async () => {
  await database?.drop()
  for (const text of said) assert.ok(!text.includes(PASSWORD), text)
})

test('commands that work on what is there refuse a database without a schema, and leave it empty', async () => {
  const says = /^sluice: the database has no schema of Sluice\. .*sluice migrate --store/
  await refused(3, says, 'audit', ...store)
  await refused(3, says, 'account', 'set', 'acme', '--plan', 'plus', ...store)
  const trace = join(ROOT, 'examples/data/azure-llm-code.csv.gz')
  await refused(3, says, 'replay', trace, '--policy', EXAMPLE, ...store)
  const found = await ask(database.url, "select nspname from pg_namespace where nspname = 'sluice'")
  assert.deepEqual(found, [])
})

test('three that migrate an empty database at once all end with its version', async () => {
  const all = await Promise.all([1, 2, 3].map(() => json('migrate', ...store)))
  const [{ version }] = (await ask(
    database.url,
    'select max(version) as version from sluice.schema_version',
  )) as [{ version: number }]
  assert.ok(version > 0)
  const { host, pathname } = new URL(database.url)
  for (const told of all) assert.deepEqual(told, { store: `postgres://${host}${pathname}`, version })
  assert.match((await run('migrate', ...store)).stdout, new RegExp(`is at version ${version}\\n$`))
  assert.equal((await json('audit', ...store)).clean, true)
})

test('a replay fills an empty database, and no other', async () => {
  const own = await testDatabase()
  try {
    const at = ['--store', withPassword(own.url)]
    await json('migrate', ...at)
    const trace = join(ROOT, 'examples/data/azure-llm-code.csv.gz')
    const replay = ['replay', trace, '--policy', EXAMPLE, '--accounts', '3', '--limit', '30', ...at]
    const report = await json(...replay, '--audit')
    assert.deepEqual([report.requests, report.audit.disagreements], [30, 0])
    await refused(2, /is in use\. A replay begins empty/, ...replay)
  } finally {
    await own.drop()
  }
})

test('a demonstration finds its key again, and makes another where the kept one does not work', async () => {
  const own = await testDatabase()
  const { folder, remove } = temporary()
  try {
    const started = async (): Promise<string> => {
      const server = await serve(['--demo', '--store', withPassword(own.url)], {}, folder)
      const key = /^key +(\S+)/m.exec(server.stdout())?.[1] ?? ''
      said.push(server.stdout(), server.stderr())
      const { items } = (await call(server, '/v1/accounts', undefined, key)) as { items: unknown[] }
      assert.equal(items.length, 4, 'what is printed works')
      await server.stop()
      return key
    }
    const key = await started()
    const [file = '', ...others] = readdirSync(join(folder, 'sluice-data'))
    const path = join(folder, 'sluice-data', file)
    assert.deepEqual([others, file.includes('sluice_test_')], [[], true])
    assert.deepEqual([statSync(path).mode & 0o777, readFileSync(path, 'utf8')], [0o600, `${key}\n`])
    assert.equal(await started(), key)
    assert.equal((await run('key', 'revoke', 'development', '--store', withPassword(own.url))).code, 0)
    const next = await started()
    assert.notEqual(next, key)
    assert.equal(await started(), next)
  } finally {
    remove()
    await own.drop()
  }
})

describe('servers on one database', () => {
  const servers: Server[] = []
  const request = { request_id: 'q1', account: 'acme', subject: { user: 'ada' }, feature: 'codex.task' }
  const estimate = { input_tokens: 200_000, output_tokens: 80_000 }
  before(async () => {
    const args = ['--policy', EXAMPLE, '--log-level', 'trace', ...store]
    const env = { SLUICE_ADMIN_KEY: ADMIN_KEY }
    servers.push(...(await Promise.all([serve(args, env), serve(args, env)])))
  })
  after(async () => {
    for (const server of servers) {
      // The log is written in blocks: whole only at the end.
      await server.stop()
      said.push(server.stdout(), server.stderr())
    }
  })
  const [first, second] = [() => servers[0] as Server, () => servers[1] as Server]

  test('say where state is', () => {
    const { host, pathname } = new URL(database.url)
    const says = `Sluice listens on ${first().url}; state is in postgres://${host}${pathname}\n`
    assert.ok(first().stderr().includes(says), first().stderr())
  })

  test('decide together: what one has decided, the other knows', async () => {
    await json('account', 'create', 'acme', '--plan', 'plus', ...store)
    const reserved = await call(first(), '/v1/reserve', { ...request, estimate })
    assert.equal(reserved.outcome, 'allow', JSON.stringify(reserved))
    const again = await call(second(), '/v1/reserve', { ...request, estimate })
    assert.deepEqual(again, { ...reserved, replayed: true })
    const settled = await call(second(), '/v1/settle', { request_id: 'q1', account: 'acme', usage: estimate })
    assert.equal(settled.charged, '85')
  })

  test('and commands beside them see the same, and change it', async () => {
    const here = await run('explain', 'acme', 'q1', ...store)
    assert.match(here.stdout, /Charged +85 CU/)
    const server = ['--url', second().url, '--key', ADMIN_KEY]
    assert.equal((await run('explain', 'acme', 'q1', ...server)).stdout, here.stdout)
    const audited = await json('audit', '--write-checkpoints', ...store)
    assert.deepEqual([audited.clean, audited.found], [true, []])
    assert.equal((await json('account', 'set', 'acme', '--plan', 'pro', ...store)).plan, 'pro')
    assert.equal((await call(first(), '/v1/accounts/acme')).plan, 'pro')
    const { secret } = await json('key', 'make', 'ops', '--role', 'read', ...store)
    assert.equal((await call(first(), '/v1/accounts/acme', undefined, secret)).id, 'acme')
    assert.equal((await json('erase', 'acme', 'user=ada', '--yes', ...store)).entries > 0, true)
    assert.equal((await json('audit', ...store)).clean, true)
  })

  test('end with 0', async () => {
    for (const server of servers) assert.equal(await server.stop(), 0)
  })
})

describe('a PostgreSQL that is not to be had is told in one line', () => {
  let cluster: Cluster
  before(async () => {
    cluster = await startCluster()
    await ask(cluster.url(), `create role ann login createdb password '${PASSWORD}'`)
    await ask(cluster.url(), 'create database books owner ann')
    writeFileSync(
      join(cluster.folder, 'data/pg_hba.conf'),
      'host all postgres all trust\nhost all all all scram-sha-256\n',
    )
    await ask(cluster.url(), 'select pg_reload_conf()')
  })
  after(() => cluster?.remove())
  const urlOf = (password: string, database: string): string =>
    withPassword(cluster.url(database).replace('postgres@', 'ann@'), 'ann', password)

  test('where the password is wrong, or the database is not there', async () => {
    const wrong = urlOf('hunter22', 'books')
    await refused(3, /refused the login .*Check user and password/, 'audit', '--store', wrong)
    await refused(3, /refused the login/, 'serve', '--store', wrong)
    await refused(3, /database does not exist/, 'audit', '--store', urlOf(PASSWORD, 'boks'))
    assert.ok((await json('migrate', '--store', urlOf(PASSWORD, 'books'))).version > 0)
  })

  test('where nobody listens', async () => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    server.close()
    const url = `postgres://u:${PASSWORD}@127.0.0.1:${port}/d`
    const says = new RegExp(`^sluice: postgres://127\\.0\\.0\\.1:${port}/d cannot be reached: .*ECONNREFUSED`)
    await refused(3, says, 'audit', '--store', url)
    await refused(3, says, 'serve', '--store', url)
    await refused(
      3,
      /cannot be reached: .*ENOTFOUND|EAI_AGAIN/,
      'audit',
      '--store',
      `postgres://u:${PASSWORD}@no.invalid/d`,
    )
  })

  test('where somebody listens and never answers, after two seconds', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    const { port } = silent.address() as AddressInfo
    const begun = performance.now()
    try {
      await refused(
        3,
        /cannot be reached/,
        'audit',
        '--store',
        `postgres://u:${PASSWORD}@127.0.0.1:${port}/d`,
      )
    } finally {
      silent.close()
    }
    // Two seconds, and what a process takes to start on a machine that is busy.
    assert.ok(performance.now() - begun < 10_000)
  })
})
