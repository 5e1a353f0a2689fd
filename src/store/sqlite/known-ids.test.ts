import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { createKnownIds, type IdRow, type IdSource, learnKnownIds } from './known-ids.ts'
import { sqliteStore } from './store.ts'

test('an id that was added is never taken for a new one, across all parts', () => {
  const known = createKnownIds()
  for (let n = 0; n < 300_000; n++) known.add(n % 7, `request-${n}`)
  for (let n = 0; n < 300_000; n++) assert.ok(known.mayKnow(n % 7, `request-${n}`), `request-${n}`)
})

test('few new ids are taken for known ones, whether they are random or counted', () => {
  const known = createKnownIds()
  for (let n = 0; n < 100_000; n++) known.add(1, n % 2 === 0 ? randomUUID() : `job:${n}`)
  let random = 0
  let counted = 0
  let elsewhere = 0
  for (let n = 0; n < 100_000; n++) {
    if (known.mayKnow(1, randomUUID())) random++
    if (known.mayKnow(1, `job:${n + 100_000}`)) counted++
    if (known.mayKnow(2, `job:${n}`)) elsewhere++
  }
  // Sixteen bits an id and four hashes let 0.24 % pass; two parts twice that.
  for (const passed of [random, counted, elsewhere]) assert.ok(passed < 1_000, `${passed} of 100,000`)
})

test('when it is full it takes every id for known', () => {
  const known = createKnownIds(10)
  for (let n = 0; n < 10; n++) known.add(1, `${n}`)
  assert.ok(!known.mayKnow(1, 'new'))
  known.add(1, '10')
  assert.ok(known.mayKnow(1, 'new'))
})

test('while a file is learnt every id may be known; then the new are told from the old', async () => {
  const rows = Array.from({ length: 9_000 }, (_, n): IdRow => [`id-${String(n).padStart(5, '0')}`, n % 3])
  const source: IdSource = {
    generations: () => [2, 1],
    requestIds: (generation, afterId, _, limit) =>
      rows
        .filter(([id]) => Number(id.slice(3)) % 2 === generation % 2)
        .filter(([id]) => id > afterId)
        .slice(0, limit),
  }
  const ids = learnKnownIds(source)
  ids.add(1, 'written meanwhile')
  assert.ok(ids.mayKnow(1, 'new'))
  while (ids.mayKnow(1, 'new')) await pause(5)
  for (const [id, account] of rows) assert.ok(ids.mayKnow(account, id), id)
  assert.ok(ids.mayKnow(1, 'written meanwhile'))
})

test('a store that is opened again knows each request, from the first moment on', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
  const open = async () => {
    const store = sqliteStore({ path: join(folder, 'sluice.db') })
    await store.open({ compilePolicy: () => assert.fail('there is no policy') })
    return store
  }
  const requests = Array.from({ length: 6_000 }, () => randomUUID())
  try {
    let store = await open()
    const write = (id: string) =>
      store.transact('a', [`request:${id}`], () => ({
        result: null,
        writes: [{ key: `request:${id}`, cell: { v: 1, id, expiresAt: null } as never }],
        entries: [],
      }))
    await Promise.all(requests.map(write))
    await store.close()
    store = await open()
    const isThere = (id: string) =>
      store.transact('a', [`request:${id}`], (cells) => ({
        result: cells.get(`request:${id}`) !== null,
        writes: [],
        entries: [],
      }))
    const all = async () => (await Promise.all(requests.map(isThere))).every(Boolean)
    assert.ok(await all())
    await pause(200)
    assert.ok(await all())
    assert.equal(await isThere(randomUUID()), false)
    await store.close()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})
