/** Backups of a PostgreSQL in use, whole and damaged in every way that a file can be: what is found, and what is left behind. */
import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { delimiter, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { Client } from 'pg'
import { type Cluster, startCluster } from '../../test/postgres.ts'
import { type Ended, ROOT, sluice, temporary } from '../../test/process.ts'
import { createEngine, type Engine } from '../engine.ts'
import { postgresStore } from '../store/postgres/store.ts'
import { sqliteStore } from '../store/sqlite/store.ts'
import type { Store } from '../store.ts'
import { findProgram } from './backup/restore.ts'
import { CliError } from './failure.ts'
import { count } from './output.ts'

const PASSWORD = 'hunter2'
const FORMATS = ['plain', 'custom', 'directory', 'tar'] as const
const POLICY = {
  features: { job: {} },
  plans: { plan: { waterfall: [{ credits: ['purchased'] }] } },
} as const

describe('a backup', { timeout: 300_000 }, () => {
  const scratch = temporary()
  const file = (name: string): string => join(scratch.folder, name)
  const programs = file('programs')
  const callLog = file('calls')
  let cluster: Cluster
  let books: string
  /** Where the checks are made: by somebody who may make databases and owns nothing of what was dumped. */
  let server: string
  let engine: Engine
  let store: Store

  before(async () => {
    cluster = await startCluster()
    await ask(cluster.url(), 'create role owner login', 'create database books owner owner')
    await ask(cluster.url(), `create role checker login createdb password '${PASSWORD}'`, 'create role guest')
    await ask(cluster.url(), 'create role idle login')
    writeFileSync(
      join(cluster.folder, 'data/pg_hba.conf'),
      'host all checker all scram-sha-256\nhost all all all trust\n',
    )
    await ask(cluster.url(), 'select pg_reload_conf()')
    books = cluster.url('books').replace('postgres@', 'owner@')
    server = cluster.url().replace('postgres@', `checker:${PASSWORD}@`)
    // Every program that a check starts leaves what it was given, and then does its work.
    mkdirSync(programs)
    for (const name of ['psql', 'pg_restore'])
      script(name, `printf '%s\\n' "$0 $*" >>${callLog}\nexec ${findProgram(name)} "$@"`)

    store = postgresStore({ url: books })
    engine = await createEngine({ store, policy: POLICY, sweeps: false })
    for (const id of ['acme', 'umbrella']) {
      await engine.createAccount({ id, plan: 'plan' })
      await engine.grant(id, { id: 'g', kind: 'purchased', amount: '100000' })
    }
    await ask(
      books,
      'grant usage on schema sluice to guest',
      'grant select on all tables in schema sluice to guest',
    )
    await work(40)
    let working = true
    const others = (async () => {
      while (working) await work(4)
    })()
    for (const format of FORMATS) await dump(format, file(format))
    working = false
    await others
  })
  after(async () => {
    await engine?.close()
    await cluster?.remove()
    scratch.remove()
  })

  function script(name: string, text: string): void {
    writeFileSync(join(programs, name), `#!/bin/sh\n${text}\n`)
    chmodSync(join(programs, name), 0o755)
  }

  let requests = 0
  async function work(count: number): Promise<void> {
    await Promise.all(
      Array.from({ length: count }, async () => {
        const n = requests++
        const of = { account: n % 2 ? 'acme' : 'umbrella', request_id: `r${n}` }
        await engine.reserve({ ...of, feature: 'job', cost: '2', subject: { user: `u${n % 3}` } })
        if (n % 4) await engine.settle({ ...of, cost: '1.5' })
      }),
    )
  }

  async function dump(format: (typeof FORMATS)[number], to: string, ...more: readonly string[]) {
    await promisify(execFile)(findProgram('pg_dump'), [`--format=${format}`, ...more, `--file=${to}`, books])
    return to
  }

  const environment = () => ({ PATH: [programs, process.env.PATH].join(delimiter) })
  async function check(path: string, ...args: readonly string[]): Promise<Ended> {
    const ended = await sluice(['backup-check', path, '--store', server, ...args], environment())
    assert.ok(!`${ended.stdout}${ended.stderr}`.includes(PASSWORD))
    assert.deepEqual(await left(), [], 'no database is left behind')
    return ended
  }
  const left = async () =>
    (await ask(cluster.url(), "select datname from pg_database where datname like 'sluice_check%'")).map(
      ({ datname }) => datname,
    )
  async function finds(says: RegExp, path: string, ...args: readonly string[]): Promise<void> {
    const { code, stdout, stderr } = await check(path, ...args)
    assert.equal(code, 1, stderr)
    assert.match(`${stdout}${stderr}`, says)
  }

  test('of a database in use is restored from every format, and everything in it agrees', async () => {
    const counts = new Set<number>()
    const now = await store.now()
    for (const format of FORMATS) {
      const { code, stdout, stderr } = await check(file(format), '--json')
      assert.equal(code, 0, stderr)
      const told = JSON.parse(stdout)
      assert.deepEqual([told.clean, told.found, told.accounts], [true, [], 3], format)
      assert.ok(told.youngest_at <= now && told.youngest_at > now - 600_000, `${told.youngest_at}`)
      counts.add(told.entries)
    }
    assert.ok(counts.size > 1, 'the work went on from one dump to the next')
  })

  test('says how much there is and as of when', async () => {
    const whole = await dump('custom', file('whole'), '--schema=sluice')
    const { stdout } = await check(whole)
    const { entries } = JSON.parse((await sluice(['audit', '--store', books, '--json'])).stdout)
    const [row] = await ask(books, 'select max(recorded_at)::float8 as at from sluice.journal')
    const at = new Date(row?.at as number).toISOString().slice(0, 19).replace('T', ' ')
    assert.match(stdout, /^whole was restored in \d+\.\d s\n/)
    assert.match(stdout, new RegExp(`\\nNothing disagrees: ${count(entries)} entries of 3 accounts in`))
    assert.match(
      stdout,
      new RegExp(`\\nThis backup stands as of ${at}Z, when its last entry was written\\n$`),
    )
  })

  test('is restored without a password among what programs are given', () => {
    const calls = readFileSync(callLog, 'utf8')
    assert.match(calls, /psql .*--dbname=postgres:\/\/checker@127/)
    assert.match(calls, /pg_restore .*--dbname=postgres:\/\/checker@127/)
    assert.ok(!calls.includes(PASSWORD))
  })

  test('without the roles that it names is restored all the same', async () => {
    const text = readFileSync(file('plain'), 'utf8')
    assert.match(text, /OWNER TO owner;/)
    assert.match(text, /GRANT SELECT ON TABLE .* TO guest;/)
    writeFileSync(
      file('roles'),
      text.replaceAll('owner;', 'nobody_here;').replaceAll('TO guest;', 'TO no_guest;'),
    )
    assert.equal((await check(file('roles'))).code, 0)
  })

  test('with one row altered is told, with account and entry', async () => {
    const text = readFileSync(file('plain'), 'utf8')
    const altered = text.replace(/("kind":"charge".*?"cost":)1500000/, '$11500001')
    assert.notEqual(altered, text)
    writeFileSync(file('altered'), altered)
    await finds(
      /^chain: the hash does not follow .*\(account \w+, entry \w+\/\d+, request r\d+/m,
      file('altered'),
    )
  })

  test('with one row missing is told', async () => {
    const text = readFileSync(file('plain'), 'utf8')
    const without = text.replace(/\n(acme\t5\t\d{13}\t.*)\n/, '\n')
    assert.equal(without.split('\n').length, text.split('\n').length - 1)
    writeFileSync(file('without'), without)
    await finds(/^missing: entry 5 is missing before entry 6/m, file('without'))
  })

  test('that was cut off is told, wherever it was cut', async () => {
    const text = readFileSync(file('plain'), 'latin1')
    const inJournal = text.indexOf('\n', text.search(/\nacme\t9\t\d{13}\t/) + 1) + 1
    for (const at of [inJournal, inJournal + 20, text.lastIndexOf('ALTER TABLE'), text.length - 20]) {
      writeFileSync(file('cut'), text.slice(0, at), 'latin1')
      await finds(/cut is cut off: it does not end as pg_dump ends/, file('cut'))
    }
    copyFileSync(file('custom'), file('cut'))
    truncateSync(file('cut'), Math.floor(readFileSync(file('custom')).length / 2))
    await finds(/cut cannot be restored: .*pg_restore: error/, file('cut'))
    cpSync(file('directory'), file('holes'), { recursive: true })
    const [table = ''] = readdirSync(file('holes')).filter((name) => name.endsWith('.gz'))
    rmSync(join(file('holes'), table))
    await finds(/holes cannot be restored: .*pg_restore: error/, file('holes'))
  })

  test('whose ends of chains are missing is told where heads were kept elsewhere', async () => {
    const heads = file('heads.json')
    const keep = () => sluice(['audit', '--write-heads', heads, '--store', books])
    assert.equal((await keep()).code, 0)
    const later = await dump('custom', file('later'))
    assert.equal((await check(later, '--heads', heads)).code, 0)
    await work(8)
    assert.equal((await keep()).code, 0)
    await finds(
      /^head: entry \d+ was kept elsewhere .* its end was cut off \(account acme/m,
      later,
      '--heads',
      heads,
    )
    const { code, stdout } = await check(later, '--heads', heads, '--json')
    const { clean, found } = JSON.parse(stdout)
    assert.deepEqual([code, clean, found[0].kind], [1, false, 'head'])
  })

  test('that has nothing of Sluice is told', async () => {
    for (const [name, ...options] of [
      ['empty', '--exclude-schema=sluice'],
      ['schema', '--schema-only'],
    ] as const)
      for (const format of ['plain', 'custom'] as const)
        await finds(/has no state of Sluice/, await dump(format, file(`${name}.${format}`), ...options))
  })

  test('that is none is refused, and so is one that would go elsewhere', async () => {
    writeFileSync(file('note'), 'to do: backups\n')
    await finds(/note is no backup: it begins like nothing/, file('note'))
    writeFileSync(file('nothing'), '')
    await finds(/nothing is no backup: it is empty/, file('nothing'))
    await finds(/is no backup: it is a folder/, programs)
    writeFileSync(file('packed'), gzipSync('-- PostgreSQL database dump'))
    const packed = await check(file('packed'))
    assert.deepEqual([packed.code, /is compressed/.test(packed.stderr)], [2, true])
    assert.equal((await check(file('not there'))).code, 3)
    const create = await check(await dump('plain', file('create'), '--create'))
    assert.match(create.stderr, /goes to a database of its own choice \(\\connect .*without --create/)
    assert.equal(create.code, 2)
  })

  test('of another version of the schema: an older one is brought up to date, a newer one refused', async () => {
    const present = join(ROOT, 'src/store/postgres/migrations')
    const [first = ''] = readdirSync(present).sort()
    mkdirSync(file('migrations'))
    copyFileSync(join(present, first), join(file('migrations'), first))
    await ask(cluster.url(), 'create database old owner owner')
    const url = books.replace(/books$/, 'old')
    const old = postgresStore({ url, migrating: { folder: pathToFileURL(`${file('migrations')}/`) } })
    await old.open({ compilePolicy: () => assert.fail('there is no policy') })
    await old.close()
    await promisify(execFile)(findProgram('pg_dump'), [`--file=${file('old')}`, url])
    const { code, stdout, stderr } = await check(file('old'))
    assert.deepEqual([code, /This backup has no entries/.test(stdout)], [0, true], stderr)

    await ask(url, 'insert into sluice.schema_version values (9999)')
    await promisify(execFile)(findProgram('pg_dump'), [`--file=${file('new')}`, url])
    const newer = await check(file('new'))
    assert.equal(newer.code, 3)
    assert.match(newer.stderr, /has schema 9999, this version of Sluice knows \d+/)
  })

  test('is not restored where no database may be made, or nobody can log in', async () => {
    const at = (url: string) => sluice(['backup-check', file('custom'), '--store', url], environment())
    const idle = await at(cluster.url().replace('postgres@', 'idle@'))
    assert.equal(idle.code, 3)
    assert.match(idle.stderr, /^sluice: No database can be made on postgres:.*permission denied.*createdb/)
    const wrong = await at(server.replace(PASSWORD, 'hunter22'))
    assert.deepEqual([wrong.code, /refused the login/.test(wrong.stderr)], [3, true], wrong.stderr)
    const nowhere = await at('sqlite:some.db')
    assert.deepEqual([nowhere.code, /--store postgres:/.test(nowhere.stderr)], [2, true], nowhere.stderr)
  })

  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)
    test(`whose check is ended by ${signal} leaves nothing behind`, async () => {
      script('pg_restore', `touch ${file(`${signal}.begun`)}\nexec sleep 1000`)
      const main = join(ROOT, 'src/cli/main.ts')
      const args = [main, 'backup-check', file('custom'), '--store', server]
      const child = spawn(process.execPath, args, {
        env: { ...process.env, ...environment() },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
      let said = ''
      for (const stream of [child.stdout, child.stderr])
        stream.on('data', (text) => {
          said += text
        })
      while (!readdirSync(scratch.folder).includes(`${signal}.begun`)) await pause(10)
      assert.equal((await left()).length, 1)
      child.kill(signal)
      // The streams end with whatever the check has started.
      const [ended] = await once(child, 'close')
      assert.deepEqual([ended, said, await left()], [code, '', []])
    })

  test('whose check is killed leaves a database, and the next check drops it, and none that is in use', async () => {
    const killed = file('killed.begun')
    script('pg_restore', `echo $$ >>${killed}\nexec sleep 1000`)
    const main = join(ROOT, 'src/cli/main.ts')
    const begin = async (order: number) => {
      const child = spawn(process.execPath, [main, 'backup-check', file('custom'), '--store', server], {
        env: { ...process.env, ...environment() },
        stdio: 'ignore',
      })
      const begun = () => (existsSync(killed) ? readFileSync(killed, 'utf8').trim().split('\n') : [])
      while (begun().length < order) await pause(10)
      return { child, restoring: Number(begun()[order - 1]) }
    }
    const first = await begin(1)
    const [abandoned] = await left()
    first.child.kill('SIGKILL')
    await once(first.child, 'close')
    process.kill(first.restoring)
    assert.deepEqual(await left(), [abandoned])
    const running = await begin(2)
    const [second] = await left()
    assert.notEqual(second, abandoned, 'dropped by the one that began then')
    // Nobody holds its lock: one is used by hand, one is another user's, one is called otherwise.
    const names = ['sluice_check_0123456789abcdef', 'sluice_check_f123456789abcdef', 'sluice_check_mine']
    const [used = '', others = '', mine = ''] = names
    for (const [name, owner] of [
      [used, 'checker'],
      [others, 'owner'],
      [mine, 'checker'],
    ])
      await ask(cluster.url(), `create database ${name} owner ${owner}`)
    const client = new Client({ connectionString: cluster.url(used) })
    await client.connect()
    script('pg_restore', `exec ${findProgram('pg_restore')} "$@"`)
    const again = () => sluice(['backup-check', file('custom'), '--store', server], environment())
    const { code, stderr } = await again()
    assert.deepEqual([code, stderr.includes('Dropped')], [0, false], stderr)
    assert.deepEqual((await left()).toSorted(), [...names, second].toSorted())
    running.child.kill('SIGTERM')
    await once(running.child, 'close')
    await client.end()
    const next = await again()
    assert.match(next.stderr, new RegExp(`^Dropped ${used}, which a check that was killed had left`, 'm'))
    assert.deepEqual((await left()).toSorted(), [others, mine].toSorted())
    for (const name of [others, mine]) await ask(cluster.url(), `drop database ${name}`)
  })

  test('of an SQLite file is the file itself', async () => {
    const path = file('sluice.db')
    const one = await createEngine({ store: sqliteStore({ path }), policy: POLICY, sweeps: false })
    await one.createAccount({ id: 'a', plan: 'plan' })
    await one.grant('a', { id: 'g', kind: 'purchased', amount: '10' })
    const begun = Date.now()
    await one.record({ account: 'a', request_id: 'r', feature: 'job', cost: '2' })
    await one.close()
    const sound = await check(path, '--json')
    const { clean, youngest_at, accounts } = JSON.parse(sound.stdout)
    assert.deepEqual([sound.code, clean, accounts], [0, true, 2])
    assert.ok(youngest_at >= begun - 1_000 && youngest_at <= Date.now())
    const text = readFileSync(path, 'latin1')
    writeFileSync(path, text.replace('"cost":2000000', '"cost":2000001'), 'latin1')
    await finds(/^chain: /m, path)
  })
})

test('programs are looked for in PATH, then where Debian keeps them, the newest first', () => {
  const { folder, remove } = temporary()
  try {
    for (const place of ['9/bin', '15/bin', 'own']) {
      mkdirSync(join(folder, place), { recursive: true })
      writeFileSync(join(folder, place, 'psql'), '')
    }
    assert.equal(findProgram('psql', join(folder, 'own'), folder), join(folder, 'own/psql'))
    assert.equal(findProgram('psql', join(folder, 'none'), folder), join(folder, '15/bin/psql'))
    assert.throws(
      () => findProgram('psql', '', join(folder, 'none')),
      (error) => error instanceof CliError && error.exit === 3 && /apt-get install/.test(error.remedy ?? ''),
    )
  } finally {
    remove()
  }
})

async function ask(url: string, ...commands: readonly string[]): Promise<readonly Record<string, unknown>[]> {
  const client = new Client({ connectionString: url })
  await client.connect()
  try {
    let rows: Record<string, unknown>[] = []
    for (const command of commands) ({ rows } = await client.query(command))
    return rows
  } finally {
    await client.end()
  }
}
