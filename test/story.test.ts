import assert from 'node:assert/strict'
import { test } from 'node:test'
import { readEntry, readPrivate } from '../src/ledger/entries.ts'
import { tellStory } from '../src/ledger/story.ts'
import { HOUR, history, MINUTE } from './histories.ts'

const POLICY = `
features:
  job: {}
  task: { rate_card: [{ when: { size: large }, per_unit: { units: 2 } }, { per_unit: { units: 1 } }] }
plans:
  plus:
    guards:
      - { name: requests, rate: { meter: requests, limit: 60, per: 1m }, by: user }
      - { name: in-flight, concurrency: 3, by: user }
    waterfall:
      - { allowance: included, by: user, windows: [{ name: 5h, limit: "10", per: 5h }] }
      - credits: [purchased, promo]
      - overage: { limit: "5", per: month }
    on_shortfall: { absorb: "2", per: month }
`
type Played = Awaited<ReturnType<typeof history>>
const key = { actor: 'key-7' }

async function storyOf(on: Played, request: string): Promise<string[]> {
  const { entries } = await on.keep()
  const lines = entries.map((stored) => ({ entry: readEntry(stored), person: readPrivate(stored) }))
  return tellStory(lines.filter(({ entry }) => entry.request === request))
}

test('a request that was granted in part, extended, used beyond everything, and refunded, tells each step', async () => {
  const on = await history(POLICY)
  await on.create('plus')
  await on.grant('bought', '10', { expires_at: on.clock.now + HOUR })
  const asks = { account: 'acme', request_id: 'r1', subject: { user: 'u1' }, feature: 'task' }
  await on.engine.reserve(
    { ...asks, attributes: { size: 'small' }, estimate: { units: 30 }, min_cost: '1', ttl_ms: 5 * HOUR },
    key,
  )
  on.wait(MINUTE)
  await on.extend('r1', 1, { used: { units: 3 } })
  on.wait(2 * HOUR)
  await on.used('r1', '20', { attributes: { size: 'large' }, endpoint: '/v1/video', duration_ms: 1_500 })
  await on.refund('r1', 'f1', '17')
  assert.deepEqual(await storyOf(on, 'r1'), [
    '2026-01-15T12:00:00Z: key-7 asked to use task for user u1 (size small), estimated at 30 CU: 30 units. Granted in part, 25 CU of 30 CU: 25 units. Held: 10 CU from the allowance included, 10 CU from grant bought and 5 CU from overage, until 2026-01-15T17:00:00Z.',
    '  Decided under plan plus, policy version 1; reason: granted_in_part.',
    '  Rate requests by user: 0 before, 1 after, of 60 requests; 59 left, free again 2026-01-15T12:00:01Z.',
    '  Concurrency in-flight by user: 0 before, 1 after, of 3 holds; 2 left.',
    '  Allowance included/5h by user: 0 before, 10 after (0 used, 10 held), of 10 CU; 0 left, resets 2026-01-15T17:00:00Z.',
    '  Credits purchased, promo: 10 CU available, 10 taken, 0 left.',
    '  Overage: 0 before, 5 after (0 used, 5 held), of 5 CU; 0 left, resets 2026-02-01T00:00:00Z.',
    '2026-01-15T12:01:00Z: system extended it, step 1, to 25 CU in all: 25 units. Allowed. Held now: 10 CU from the allowance included, 10 CU from grant bought and 5 CU from overage, until 2026-01-15T17:00:00Z.',
    '  Decided under plan plus, policy version 1; reason: granted.',
    '  It asked no limit for more.',
    '2026-01-15T14:01:00Z: system settled it with what was used of task for user u1 (size large): 20 units, at /v1/video, over 1.5 s.',
    '2026-01-15T14:01:00Z: It cost 40 CU, by line 1 of the rate card in policy version 1: 10 CU from the allowance included, 10 CU from grant bought, 5 CU from overage, 2 CU absorbed by the house and 13 CU owed as debt.',
    '  Window included/5h by user, begun 2026-01-15T12:00:00Z: +10 CU used.',
    '  Window overage, begun 2026-01-01T00:00:00Z: +5 CU used.',
    '  Window absorb, begun 2026-01-01T00:00:00Z: +2 CU used.',
    '  Transfer 8: 10 CU from grant bought to “charged”, for the charge.',
    '  Transfer 9: 5 CU from “overage” to “charged”, for the charge.',
    '  Transfer 10: 2 CU from “absorbed by the house” to “charged”, for the charge.',
    '  Transfer 11: 13 CU from “debt” to “charged”, for the charge.',
    '2026-01-15T14:01:00Z: system refunded 17 CU: 13 CU that were owed, 2 CU that the house had absorbed and 2 CU to overage, under f1 (a mistake). 23 CU stand charged.',
    '  Window absorb, begun 2026-01-01T00:00:00Z: -2 CU used.',
    '  Window overage, begun 2026-01-01T00:00:00Z: -2 CU used.',
    '  Transfer 13: 13 CU from “charged” to “debt”, given back.',
    '  Transfer 14: 2 CU from “charged” to “absorbed by the house”, given back.',
    '  Transfer 15: 2 CU from “charged” to “overage”, given back.',
  ])
})

test('a hold that went back says where it came from, and why it ended', async () => {
  const on = await history(POLICY)
  await on.create('plus')
  await on.grant('bought', '20', { expires_at: on.clock.now + MINUTE })
  for (const id of ['released', 'forgotten']) await on.reserve(id, '12')
  on.wait(2 * MINUTE)
  await on.engine.release({ account: 'acme', request_id: 'released', reason: 'client went away' }, key)
  on.wait(HOUR)
  await on.touch()
  assert.deepEqual((await storyOf(on, 'released')).slice(-2), [
    '2026-01-15T12:02:00Z: key-7 released it (client went away). 12 CU went back to where they were held from; nothing was charged.',
    '  Transfer 8: 2 CU from grant bought to “expired”, it had expired meanwhile.',
  ])
  assert.deepEqual((await storyOf(on, 'forgotten')).slice(-2), [
    '2026-01-15T12:10:00Z (written 2026-01-15T13:02:00Z): Its hold came to its end without being settled. 12 CU went back to where they were held from; nothing was charged.',
    '  Transfer 10: 12 CU from grant bought to “expired”, it had expired meanwhile.',
  ])
})

test('usage that was counted is said to be estimated', async () => {
  const on = await history(POLICY)
  await on.create('plus')
  const request = { account: 'acme', subject: { user: 'u1' }, feature: 'job', cost: '3' }
  for (const [id, estimated] of [
    ['r1', true],
    ['r2', false],
  ] as const) {
    await on.engine.record({ ...request, request_id: id, estimated }, key)
    assert.equal((await storyOf(on, id))[0]?.endsWith(': a stated cost, estimated.'), estimated)
    const { entries } = await on.engine.explain('acme', id)
    assert.equal(entries.find(({ kind }) => kind === 'usage')?.body.estimated, estimated ? true : undefined)
  }
})

test('what was erased is said to be erased', async () => {
  const on = await history(POLICY)
  await on.create('plus')
  await on.record('r1', '3')
  await on.engine.erase('acme', 'user', 'u1')
  assert.equal(
    (await storyOf(on, 'r1'))[0],
    '2026-01-15T12:00:00Z: system recorded what had been used of job, for someone who has been erased: a stated cost.',
  )
})

test('milliseconds are told with all three digits, or not at all', async () => {
  const on = await history(POLICY)
  await on.create('plus')
  await on.grant('bought', '10')
  const started = on.clock.now
  on.wait(290)
  await on.engine.record(
    { account: 'acme', request_id: 'r1', subject: { user: 'u1' }, feature: 'job', cost: '1' },
    key,
  )
  const [told = ''] = await storyOf(on, 'r1')
  assert.ok(told.startsWith(new Date(started + 290).toISOString()), told)
})
