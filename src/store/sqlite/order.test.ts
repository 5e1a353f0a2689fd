import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import type { Cell, Key } from '../../kernel/cells.ts'
import type { Step, Store, StoreHost } from '../../store.ts'
import { EMPTY_POLICY } from '../coalesce.ts'
import { sqliteStore } from './store.ts'

const ALL = 600
const HOST: StoreHost = {
  compilePolicy: (version) => ({ ...EMPTY_POLICY, version }),
}
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1)

/** Adds a cell, opens a request, closes the one ten before it and removes the cell twenty before it. */
const work =
  (i: number): Step<number> =>
  (cells) => {
    const before = cells.get('account') as unknown as { n: number } | null
    const n = (before?.n ?? 0) + 1
    const writes: { key: Key; cell: Cell | null }[] = []
    const put = (key: Key, cell: object | null): void => void writes.push({ key, cell: cell as Cell | null })
    put('account', { v: 1, id: 'new', n, dueAt: n % 2 === 0 ? null : 9_000_000_000_000 + n })
    put(`grant:${i}`, { v: 1, id: `${i}` })
    put(`request:${i}`, { v: 1, id: `${i}`, createdAt: 0, expiresAt: 9_000_000_000_000 + n })
    if (i > 10) put(`request:${i - 10}`, { v: 1, id: `${i - 10}`, createdAt: 0, expiresAt: null })
    if (i > 20) put(`grant:${i - 20}`, null)
    return {
      result: n,
      writes,
      entries: [{ seq: n, kind: 'usage', body: `${i}`, private: null, hash: `${n}` }],
    }
  }

it('an account that did not exist is written right by batches that build on each other', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
  const open = async (): Promise<Store> => {
    const store = sqliteStore({ path: join(folder, 'sluice.db'), limits: { maxBatch: 64 } })
    await store.open(HOST)
    return store
  }
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const first = await open()
  const numbers = await Promise.all(
    upTo(ALL).map((i) =>
      first.transact('new', ['account', `request:${i}`, `request:${i - 10}`, `grant:${i}`], work(i)),
    ),
  )
  assert.deepEqual(numbers, upTo(ALL))
  await first.close()

  const store = await open()
  const grants = await store.cells('new', 'grant:', { limit: ALL })
  assert.deepEqual(
    new Set(grants.map(({ key }) => key)),
    new Set(upTo(20).map((i) => `grant:${ALL - 20 + i}`)),
  )
  assert.deepEqual(
    (await store.holds('new', ALL)).map(({ id }) => id),
    upTo(10).map((i) => `${ALL - 10 + i}`),
  )
  assert.equal((await store.cells('new', 'request:', { limit: ALL })).length, ALL)
  const entries = await store.entries('new', { limit: ALL })
  assert.deepEqual(
    entries.map(({ seq, body }) => [seq, body]),
    upTo(ALL).map((i) => [i, `${i}`]),
  )
  await store.close()
})
