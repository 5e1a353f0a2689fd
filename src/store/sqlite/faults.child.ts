/** The other process of faults.test.ts: opens a store, does one thing, and tells of it line by line. */
import { writeSync } from 'node:fs'
import { SluiceError } from '../../errors.ts'
import type { Cell } from '../../kernel/cells.ts'
import type { Step, Store } from '../../store.ts'
import { EMPTY_POLICY } from '../coalesce.ts'
import { sqliteStore } from './store.ts'

const [what, path = ''] = process.argv.slice(2)
/** A pipe that is full for now is tried again: the reader may be slower than the store. */
function say(line: string): void {
  for (;;) {
    try {
      writeSync(1, `${line}\n`)
      return
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
    }
  }
}
const later = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const count =
  (id: string, bytes: number): Step<number> =>
  (cells) => {
    const n = ((cells.get('account') as unknown as { n: number } | null)?.n ?? 0) + 1
    const cell = { v: 1, id, n, dueAt: null } as unknown as Cell
    const body = `{"seq":${n},"pad":"${'x'.repeat(bytes)}"}`
    return {
      result: n,
      writes: [{ key: 'account', cell }],
      entries: [{ seq: n, kind: 'usage', body, private: null, hash: '' }],
    }
  }
const add = (store: Store, id: string, bytes = 100): Promise<number> =>
  store.transact(id, ['account'], count(id, bytes))

/** Tells each number after it was answered. */
async function write(store: Store): Promise<void> {
  const one = async (id: string): Promise<void> => {
    for (;;) say(`${id} ${await add(store, id)}`)
  }
  await Promise.all(Array.from({ length: 20 }, (_, i) => one(`c${i}`)))
}

async function fill(store: Store): Promise<void> {
  let taken = 0
  try {
    for (;;) taken = await add(store, 'a', 3_000)
  } catch (error) {
    say(`failed ${taken} ${(error as SluiceError).code}`)
  }
  while (!store.health().ready) await later(20)
  say('ready again')
  for (;;) {
    try {
      say(`went on ${await add(store, 'a', 3_000)}`)
      return
    } catch {
      await later(20)
    }
  }
}

async function one(store: Store): Promise<void> {
  for (let i = 1; i <= 20; i++) {
    say(`ask ${i}`)
    await add(store, 'a')
    say(`answer ${i}`)
  }
  say('done')
  await store.close()
}

if (process.env.SLUICE_DROP_ROOT === '1' && process.getuid?.() === 0) {
  process.setgroups?.([])
  process.setgid?.(65_534)
  process.setuid?.(65_534)
}
try {
  const store = sqliteStore({ path })
  await store.open({
    compilePolicy: (version) => ({ ...EMPTY_POLICY, version }),
  })
  await { write, fill, one }[what as 'write' | 'fill' | 'one'](store)
} catch (error) {
  say(error instanceof SluiceError ? `${error.code} ${error.message}` : String(error))
}
