import assert from 'node:assert/strict'
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { DatabaseSync } from 'node:sqlite'
import { after, describe, it } from 'node:test'
import { Worker } from 'node:worker_threads'
import { SluiceError } from '../../errors.ts'
import type { Cell } from '../../kernel/cells.ts'
import { ENTRY_KINDS } from '../../ledger/entries.ts'
import type { Step, Store, StoreHost } from '../../store.ts'
import { EMPTY_POLICY } from '../coalesce.ts'
import { KINDS } from './reader.ts'
import { type SqliteOptions, sqliteReader, sqliteStore } from './store.ts'

const host: StoreHost = {
  compilePolicy: (version) => ({ ...EMPTY_POLICY, version }),
}
const CHILD = new URL('./faults.child.ts', import.meta.url).pathname
const folders: string[] = []
const stores: Store[] = []
const children: ChildProcess[] = []

after(async () => {
  for (const child of children) child.kill('SIGKILL')
  for (const store of stores) await store.close()
  for (const folder of folders) rmSync(folder, { recursive: true, force: true })
})

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-faults-'))
  folders.push(folder)
  return folder
}
const newPath = (): string => join(newFolder(), 'sluice.db')

async function open(path: string, options: Partial<SqliteOptions> = {}): Promise<Store> {
  const store = sqliteStore({ path, ...options })
  stores.push(store)
  await store.open(host)
  return store
}

/** Counts an account up and books an entry of that number, with as many bytes as wanted. */
function count(id: string, bytes = 100): Step<number> {
  return (cells) => {
    const n = ((cells.get('account') as unknown as { n: number } | null)?.n ?? 0) + 1
    const cell = { v: 1, id, n, dueAt: null } as unknown as Cell
    const entry = {
      seq: n,
      kind: 'usage',
      body: `{"seq":${n},"pad":"${'x'.repeat(bytes)}"}`,
      private: null,
      hash: '',
    } as const
    return { result: n, writes: [{ key: 'account', cell }], entries: [entry] }
  }
}
const add = (store: Store, id: string, bytes?: number): Promise<number> =>
  store.transact(id, ['account'], count(id, bytes))

const complains = (code: string, what: RegExp) => (error: unknown) => {
  assert.ok(error instanceof SluiceError, String(error))
  assert.equal(error.code, code)
  assert.match(error.message, what)
  assert.ok((error.detail.remedy ?? '').length > 10, 'there is a remedy')
  assert.ok(!error.message.includes('\n'), 'it is one line')
  return true
}

/** A file with some thousand entries, closed. */
async function filled(accounts = 40, each = 40): Promise<string> {
  const path = newPath()
  const store = await open(path)
  for (let i = 0; i < each; i++)
    await Promise.all(Array.from({ length: accounts }, (_, a) => add(store, `a${a}`)))
  await store.close()
  return path
}

describe('a file that is not sound is reported at start and not served', () => {
  it('where its end is missing', async () => {
    const path = await filled()
    truncateSync(path, statSync(path).size - 5000)
    await assert.rejects(open(path), complains('unavailable', /is damaged: .*missing at its end/))
  })

  it('where its end is missing and a log stands beside it', async () => {
    const path = await filled()
    const child = start('write', path)
    await child.line()
    await child.kill()
    truncateSync(path, Math.floor(statSync(path).size / 2))
    await assert.rejects(open(path), complains('unavailable', /is damaged/))
  })

  it('where a page is overwritten, at every tenth page', async () => {
    const whole = readFileSync(await filled())
    for (let page = 1; page < whole.length / 4096; page += 10) {
      const path = newPath()
      const damaged = Buffer.from(whole)
      damaged.fill(0xa5, page * 4096, page * 4096 + 4096)
      writeAll(path, damaged)
      await assert.rejects(open(path), complains('unavailable', /is damaged/), `page ${page}`)
    }
  })

  it('where its first page is gone', async () => {
    const path = await filled()
    const damaged = readFileSync(path).fill(0, 0, 100)
    writeAll(path, damaged)
    await assert.rejects(open(path), complains('unavailable', /is damaged/))
  })

  it('where it is large, without waiting for the whole check', async () => {
    const path = await filled(100, 4)
    const db = new DatabaseSync(path)
    db.exec(`create table ballast (x blob) strict;
      with recursive n(i) as (select 1 union all select i + 1 from n where i < 6000)
      insert into ballast select zeroblob(4000) from n`)
    db.close()
    const damaged = readFileSync(path)
    damaged.fill(0xa5, damaged.length - 4096)
    damaged.fill(0xa5, 4096 * 4, 4096 * 5)
    writeAll(path, damaged)
    await assert.rejects(open(path), complains('unavailable', /is damaged/))
    await assert.rejects(
      open(path, { checkMs: 0 }).then(async (store) => {
        for (;;) {
          await new Promise((resolve) => setTimeout(resolve, 20))
          await add(store, 'fresh')
        }
      }),
      complains('unavailable', /is damaged/),
    )
  })

  it('where it is another program’s', async () => {
    const path = newPath()
    const db = new DatabaseSync(path)
    db.exec('create table t (x)')
    db.close()
    await assert.rejects(open(path), complains('unavailable', /another program/))
    const text = newPath()
    writeAll(text, Buffer.from('something else entirely'.repeat(100)))
    await assert.rejects(open(text), complains('unavailable', /does not begin/))
  })

  it('where a newer version wrote it', async () => {
    const path = await filled(1, 1)
    const db = new DatabaseSync(path)
    db.exec('pragma user_version = 99')
    db.close()
    await assert.rejects(open(path), complains('format_newer', /schema 99/))
  })

  it('and an altered cell when it is read', async () => {
    const path = await filled(2, 1)
    const db = new DatabaseSync(path)
    db.exec(`update cell set body = replace(body, '"n":1', '"n":9') where body like '%"a1"%'`)
    db.close()
    const store = await open(path)
    await assert.rejects(
      add(store, 'a1'),
      complains('unavailable', /cell account of a1 does not match its checksum/),
    )
    assert.equal(await add(store, 'a0'), 2)
  })
})

describe('a file has one process', () => {
  it('and the second is told so', async () => {
    const path = await filled(2, 1)
    const child = start('write', path)
    await child.line()
    await assert.rejects(open(path), complains('unavailable', /in use by another process/))
    await child.kill()
    const store = await open(path)
    assert.equal(await add(store, 'a0'), 2)
    await assert.rejects(open(path), complains('unavailable', /in use by another process/))
  })

  it('while others may read', async () => {
    const path = await filled(3, 2)
    const store = await open(path)
    await add(store, 'a0')
    const reader = sqliteReader({ path })
    await reader.open(host)
    assert.equal((await reader.entries('a0', { limit: 9 })).length, 3)
    assert.equal((await reader.accounts({ limit: 9 })).length, 3)
    await add(store, 'a0')
    assert.equal((await reader.entries('a0', { limit: 9 })).length, 4)
    await assert.rejects(add(reader, 'a0'), complains('unavailable', /for reading only/))
    await reader.close()
  })

  it('while others read all requests of an account, and generations come and go', async () => {
    const path = newPath()
    let now = 1_700_000_000_000
    const store = await open(path, { now: () => now })
    const reader = sqliteReader({ path })
    await reader.open(host)
    const put = (...ids: string[]): Promise<number> =>
      store.transact('a', [], () => ({
        result: 0,
        entries: [],
        writes: ids.map((id) => ({
          key: `request:${id}`,
          cell: { v: 1, id, createdAt: now, expiresAt: null } as unknown as Cell,
        })),
      }))
    const listed = async (): Promise<string[]> =>
      (await reader.cells('a', 'request:', { limit: 9 })).map(({ key }) => key.slice(8))
    await put('r2', 'r1')
    assert.deepEqual(await listed(), ['r1', 'r2'])
    await put('r0')
    assert.deepEqual(await listed(), ['r0', 'r1', 'r2'])
    for (let pass = 0; pass < 2; pass++) {
      now += 1_001
      await store.dropRequestsBefore(now - 1_000)
      await put(`pass${pass}`)
      const old = pass === 0 ? ['r0', 'r1', 'r2'] : []
      assert.deepEqual(await listed(), [...['pass0', 'pass1'].slice(0, pass + 1), ...old])
      assert.deepEqual(await reader.accountsOfRequest('pass0', 9), ['a'])
    }
    await reader.close()
  })

  it('and a folder that is there or can be made', async (t) => {
    const made = join(newFolder(), 'a', 'b', 'sluice.db')
    assert.equal(await add(await open(made), 'a'), 1)
    await assert.rejects(
      open('/proc/nowhere/sluice.db'),
      complains('unavailable', /cannot be (opened|written)/),
    )
    const folder = newFolder()
    chmodSync(folder, 0o555)
    // Root may write everywhere, so that the attempt is made by a child that has given that up.
    t.diagnostic(`as user ${process.getuid?.()}`)
    const child = start('write', join(folder, 'sluice.db'), { SLUICE_DROP_ROOT: '1' })
    assert.match(await child.line(), /^unavailable .*cannot be (opened|written)/)
  })
})

describe('a disk that takes no more', () => {
  it('makes operations unavailable, loses nothing, and is found again by itself', async () => {
    const path = newPath()
    const store = await open(path, { maxPages: 60 })
    let taken = 0
    const fill = async (): Promise<void> => {
      for (;;) taken = await add(store, 'a', 2_000)
    }
    await assert.rejects(fill(), complains('unavailable', /disk is full/))
    const { ready, problem } = store.health()
    assert.deepEqual([ready, problem], [false, 'unavailable'])
    const all = await Promise.allSettled(Array.from({ length: 50 }, (_, i) => add(store, `b${i}`, 4_000)))
    for (const one of all) if (one.status === 'rejected') complains('unavailable', /disk is full/)(one.reason)
    assert.equal(
      await store.transact('a', ['account'], (cells) => ({
        result: cells.size,
        writes: [],
        entries: [],
      })),
      1,
    )
    assert.equal((await store.entries('a', { limit: 999 })).length, taken, 'no half commit')
    await store.close()
    const again = await open(path)
    assert.equal(await add(again, 'a'), taken + 1)
  })

  it('goes on when the limit of the process’s files is lifted', async () => {
    const path = newPath()
    const child = start('fill', path, {}, 'ulimit -S -f 4000; ')
    const [, failedAt] = /^failed (\d+) unavailable/.exec(await child.line()) ?? []
    assert.ok(Number(failedAt) > 0)
    execFileSync('prlimit', ['--pid', String(child.process.pid), '--fsize=unlimited'])
    assert.match(await child.line(), /^ready again/)
    const [, n] = /^went on (\d+)/.exec(await child.line()) ?? []
    assert.equal(Number(n), Number(failedAt) + 1)
    await child.kill()
    const store = await open(path)
    assert.equal((await store.entries('a', { limit: 9_999 })).length, Number(n))
  })
})

describe('what was answered', () => {
  it('is there after SIGKILL, whole, and without gaps', async () => {
    const path = newPath()
    const answered = new Map<string, number>()
    for (let round = 0; round < 3; round++) {
      const child = start('write', path)
      for (let lines = 0; lines < 200 + round * 70; lines++) {
        const [account, n] = (await child.line()).split(' ') as [string, string]
        answered.set(account, Number(n))
      }
      await child.kill()
    }
    assert.ok(answered.size > 5)
    const store = await open(path)
    for (const [account, n] of answered) {
      const entries = await store.entries(account, { limit: 99_999 })
      assert.ok(entries.length >= n, `${account}: ${entries.length} of ${n}`)
      assert.equal(await add(store, account), entries.length + 1, 'cells and entries agree')
    }
  })

  it('was synced before: each commit waits for the log to be on disk', async (t) => {
    if (!existsSync('/usr/bin/strace')) {
      t.diagnostic('strace is not installed: nothing was traced')
      return
    }
    const trace = join(newFolder(), 'trace')
    const child = start('one', newPath(), {}, '', [
      'strace',
      '-f',
      '-o',
      trace,
      '-e',
      'trace=fdatasync,fsync,write,pwrite64',
    ])
    while (!(await child.line()).startsWith('done'));
    const lines = readFileSync(trace, 'utf8').split('\n')
    for (let i = 1; i <= 20; i++) {
      const asked = lines.findIndex((line) => line.includes(`"ask ${i}\\n"`))
      const told = lines.findIndex((line) => line.includes(`"answer ${i}\\n"`))
      const between = lines.slice(asked, told)
      assert.ok(asked !== -1 && told > asked)
      assert.ok(
        between.some((line) => /fdatasync|fsync/.test(line)),
        `answer ${i} left before a sync`,
      )
    }
  })

  it('is found out after the writing thread has died in the middle', async () => {
    const path = newPath()
    let threads: Worker[] = []
    const post = Worker.prototype.postMessage
    Worker.prototype.postMessage = function (this: Worker, ...args: Parameters<typeof post>) {
      threads.push(this)
      return post.apply(this, args)
    }
    try {
      const store = await open(path)
      await add(store, 'a')
      for (let round = 0; round < 3; round++) {
        threads = []
        const calls = Array.from({ length: 300 }, (_, i) => {
          const key = `request:${round}-${i}` as const
          return store.transact('a', ['account', key], (cells, env) => {
            if (cells.get(key) !== null) return { result: 'replayed', writes: [], entries: [] }
            const cell = { v: 1, id: key.slice(8), createdAt: env.now, expiresAt: null } as unknown as Cell
            const done = count('a')(cells, env) as Extract<
              ReturnType<ReturnType<typeof count>>,
              { result: number }
            >
            return { ...done, result: 'written', writes: [...done.writes, { key, cell }] }
          })
        })
        while (threads.length === 0) await new Promise((resolve) => setImmediate(resolve))
        await threads[0]?.terminate()
        await Promise.all(calls)
      }
      assert.equal((await store.entries('a', { limit: 9_999 })).length, 901)
    } finally {
      Worker.prototype.postMessage = post
    }
  })
})

describe('the log of refusals', () => {
  it('is a ring', async () => {
    const store = await open(newPath(), { maxRefusals: 50 })
    const line = (i: number) => ({
      account: 'a',
      requestId: `r${i}`,
      subject: {},
      reason: 'x',
      at: i,
      count: 1,
      answer: '{}',
    })
    for (let i = 0; i < 20; i++)
      await store.logRefusals(Array.from({ length: 10 }, (_, j) => line(i * 10 + j)))
    const kept = await store.refusals('a', { limit: 999 })
    assert.deepEqual([kept.length, kept[0]?.requestId, kept.at(-1)?.requestId], [50, 'r199', 'r150'])
  })
})

it('numbers the kinds of entries as the ledger does', () => {
  assert.deepEqual(KINDS, ENTRY_KINDS)
})

function writeAll(path: string, bytes: Buffer): void {
  const file = openSync(path, 'w')
  writeSync(file, bytes)
}

/** Another process over a file; see faults.child.ts. */
function start(
  what: string,
  path: string,
  env: Record<string, string> = {},
  before = '',
  wrap: readonly string[] = [],
) {
  const command = [...wrap, process.execPath, CHILD, what, path].map((word) => `'${word}'`).join(' ')
  const child = spawn('sh', ['-c', `${before}exec ${command}`], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  children.push(child)
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    process: child,
    async line(): Promise<string> {
      const { value } = await lines.next()
      return String(value ?? '')
    },
    async kill(): Promise<void> {
      child.kill('SIGKILL')
      await once(child, 'exit')
    },
  }
}
