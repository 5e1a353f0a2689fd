import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, during, refused, type Scene, START, scene } from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'

// Whatever comes in, a caller gets a code, the path and a remedy; nothing changes, and nothing crashes.

const PLAN: PlanDocument = { ...CREDITS_ONLY, guards: [{ name: 'b', budget: 1000, per: 'month' }] }
const MAX = '9007199254.740991'
/** An own key, as a JSON parser makes it. */
const own = (key: string, value: unknown): object =>
  JSON.parse(JSON.stringify({ x: value }).replace('"x"', JSON.stringify(key)))
const many = (count: number, value: unknown): object =>
  Object.fromEntries(Array.from({ length: count }, (_, n) => [`k${n}`, value]))

const NO_ID: readonly unknown[] = [
  '',
  ' ',
  'a b',
  'a\n',
  'é',
  '🙂',
  'x'.repeat(129),
  'a\0b',
  '\ud800',
  '__proto__',
  null,
  undefined,
  5,
  true,
  {},
  [],
  ['a'],
  Number.NaN,
]
const NO_TEXT: readonly unknown[] = ['x'.repeat(257), 'a\0b', 'a\ud800b', '\udc00', null, 5, true, {}, []]
const NO_AMOUNT: readonly unknown[] = [
  ...[
    -1,
    1e21,
    1e-7,
    0.1 + 0.2 + 1e-16,
    9007199255,
    Number.NaN,
    Infinity,
    -Infinity,
    Number.MAX_VALUE,
    Number.MIN_VALUE,
  ],
  ...[
    '-1',
    '-0',
    '+1',
    '1e3',
    '1E3',
    '1e21',
    '0x10',
    '01',
    '00',
    '.5',
    '1.',
    '0.0000001',
    '1.1234567',
    '1_000',
    '1,5',
    '１',
    '',
    ' ',
    ' 1',
    '1 ',
    'NaN',
    'Infinity',
    'one',
    '9007199254.740992',
    '9'.repeat(400),
  ],
  ...[null, true, {}, [], [1], ['1'], { valueOf: 1 }],
]
const NO_FLAG = [1, 'true', null, {}]
const NO_DURATION: readonly unknown[] = [
  -1,
  0.5,
  Number.NaN,
  Infinity,
  1e21,
  '1',
  null,
  {},
  [],
  true,
  400 * 86_400_000 + 1,
]
const NO_INSTANT: readonly unknown[] = [
  -1,
  0.5,
  Number.NaN,
  Infinity,
  1e21,
  8.64e15,
  '2026-01-01',
  '1',
  null,
  {},
  [],
  true,
]
const NO_SUBJECT: readonly unknown[] = [
  null,
  [],
  'u1',
  5,
  true,
  { user: 5 },
  { user: null },
  { user: '' },
  { user: {} },
  { user: ['u1'] },
  { '': 'x' },
  { 'a b': 'x' },
  own('__proto__', 'x'),
  many(9, 'x'),
]
const NO_ATTRIBUTES: readonly unknown[] = [
  null,
  [],
  'x',
  5,
  { a: null },
  { a: {} },
  { a: [] },
  { a: Number.NaN },
  { a: Infinity },
  { a: 'a\0' },
  { a: '\ud800' },
  { a: 'x'.repeat(257) },
  { '': 'x' },
  own('__proto__', 'x'),
  many(17, 'x'),
]
const NO_QUANTITIES: readonly unknown[] = [
  null,
  [],
  'x',
  5,
  many(33, 1),
  { '': 1 },
  { 'a b': 1 },
  own('__proto__', 1),
  { units: -1 },
  { units: '1e3' },
  { units: null },
  { units: {} },
  { units: Number.NaN },
  { units: 1e21 },
]
const NO_BODY: readonly unknown[] = [null, undefined, [], 'x', 5, true, [{}]]

const base = { account: 'a', request_id: 'r' }
type Send = (on: Scene, body: unknown) => Promise<unknown>
/** One operation: a body that is good but for what is put in, and what may be wrong with each field. */
interface Door {
  readonly what: string
  readonly send: Send
  readonly good: object
  readonly fields: Readonly<Record<string, readonly unknown[]>>
}

// biome-ignore format: a row a line
const DOORS: readonly Door[] = [
  { what: 'reserve', send: (on, body) => on.engine.reserve(body as never), good: { ...base, feature: 'job', cost: 1 },
    fields: { request_id: NO_ID, account: NO_ID, feature: NO_ID, subject: NO_SUBJECT, attributes: NO_ATTRIBUTES, cost: NO_AMOUNT, min_cost: NO_AMOUNT, min: NO_QUANTITIES, ttl_ms: [0, ...NO_DURATION], dry_run: NO_FLAG } },
  { what: 'reserve by estimate', send: (on, body) => on.engine.reserve(body as never), good: { ...base, feature: 'task' },
    fields: { estimate: NO_QUANTITIES } },
  { what: 'extend', send: (on, body) => on.engine.extend(body as never), good: { ...base, request_id: 'open', step: 1 },
    fields: { request_id: NO_ID, account: NO_ID, step: [0, -1, 1.5, '1', null, undefined, Number.NaN, 2 ** 53], cost: NO_AMOUNT, estimate: NO_QUANTITIES, used: NO_QUANTITIES, min_cost: NO_AMOUNT, ttl_ms: [0, ...NO_DURATION] } },
  { what: 'settle', send: (on, body) => on.engine.settle(body as never), good: { ...base, request_id: 'open', cost: 1 },
    fields: { request_id: NO_ID, account: NO_ID, feature: NO_ID.filter((id) => id !== undefined), subject: NO_SUBJECT, attributes: NO_ATTRIBUTES, cost: [undefined, ...NO_AMOUNT], endpoint: NO_TEXT, started_at: NO_INSTANT, duration_ms: NO_DURATION, estimated: NO_FLAG } },
  { what: 'settle by usage', send: (on, body) => on.engine.settle(body as never), good: { ...base, request_id: 'open' },
    fields: { usage: NO_QUANTITIES } },
  { what: 'release', send: (on, body) => on.engine.release(body as never), good: { ...base },
    fields: { request_id: NO_ID, account: NO_ID, reason: NO_TEXT } },
  { what: 'record', send: (on, body) => on.engine.record(body as never), good: { ...base, feature: 'job', cost: 1 },
    fields: { request_id: NO_ID, account: NO_ID, feature: NO_ID, subject: NO_SUBJECT, attributes: NO_ATTRIBUTES, cost: [undefined, ...NO_AMOUNT], endpoint: NO_TEXT, at: NO_INSTANT, duration_ms: NO_DURATION, estimated: NO_FLAG } },
  { what: 'refund', send: (on, body) => on.engine.refund('a', 'done', body as never), good: { refund_id: 'x', reason: 'y' },
    fields: { refund_id: NO_ID, amount: NO_AMOUNT, usage: NO_QUANTITIES, reason: [undefined, ...NO_TEXT] } },
  { what: 'account', send: (on, body) => on.engine.createAccount(body as never), good: { id: 'n', plan: 'plan' },
    fields: { id: ['@x', '@system', ...NO_ID], plan: NO_ID, time_zone: ['Mars/Olympus', '', 'UTC+25', '+02:00', 'a\0b', 'x'.repeat(300), 5, null, {}], anchor_at: NO_INSTANT, metadata: [[], 'x', 5, { a: null }, { a: 5 }, { a: 'x'.repeat(257) }, { a: '\ud800' }, { '': 'x' }, own('__proto__', 'x'), many(33, 'x')] } },
  { what: 'patch', send: (on, body) => on.engine.patchAccount('a', body as never), good: {},
    fields: { plan: NO_ID.filter((id) => id !== undefined), status: ['deleted', '', 5, null, {}, ['active']], time_zone: ['Mars/Olympus', '', 5, null], metadata: [[], 'x', 5, { a: 5 }, { a: 'a\0' }, own('__proto__', 'x'), many(33, 'x')] } },
  { what: 'overrides', send: (on, body) => on.engine.overrideLimits('a', body as never), good: { overrides: [{ name: 'b', limit: 5 }], reason: 'x' },
    fields: { subject: [...NO_SUBJECT, {}, { user: 'u', team: 't' }], overrides: [undefined, null, [], {}, 'b', [null], ['b'], [{}], [{ name: 'b' }], [{ limit: 5 }], [{ name: 'b', limit: 5, alien: 1 }], Array.from({ length: 65 }, () => ({ name: 'b', limit: 5 }))], reason: [undefined, ...NO_TEXT] } },
  { what: 'an override’s limit', send: (on, body) => on.engine.overrideLimits('a', { overrides: [{ name: 'b', ...(body as { limit: string }) }], reason: 'x' }), good: {},
    fields: { limit: NO_AMOUNT.filter((amount) => amount !== null) } },
  { what: 'an override’s end', send: (on, body) => on.engine.overrideLimits('a', { overrides: [{ name: 'b', limit: 5, ...(body as object) }], reason: 'x' }), good: {},
    fields: { until_at: NO_INSTANT } },
  { what: 'grant', send: (on, body) => on.engine.grant('a', body as never), good: { id: 'h', kind: 'free', amount: 1 },
    fields: { id: ['plan:1', 'refund:x', ...NO_ID], kind: ['gold', '', 'constructor', null, undefined, 5, {}], amount: [0, '0', undefined, ...NO_AMOUNT], priority: [-1, 1.5, 1_000_001, '1', null, Number.NaN], starts_at: NO_INSTANT, expires_at: [START, 0, ...NO_INSTANT], features: [null, {}, [], 'job', [''], ['a b'], [null], [['job']], Array.from({ length: 33 }, () => 'job')], subjects: [null, [], 'u', {}, { user: [] }, { user: '' }, { user: null }, { user: [null] }, { user: Array.from({ length: 33 }, () => 'u') }, own('__proto__', 'u'), many(9, 'u')], reason: NO_TEXT } },
  { what: 'key', send: (on, body) => on.engine.createKey(body as never), good: { id: 'k', role: 'read' },
    fields: { id: NO_ID, role: ['root', '', 'constructor', null, undefined, 5], account: ['@system', ...NO_ID.filter((id) => id !== undefined)], subject: NO_SUBJECT, expires_at: [START, 1, ...NO_INSTANT] } },
]

async function made(): Promise<Scene> {
  const on = await scene(PLAN)
  await on.grant('g', 100)
  await on.reserve('open', 5)
  await on.record('done', 5)
  return on
}
const shown = (value: unknown): string => (JSON.stringify(value) ?? String(value)).slice(0, 60)

describe('a field that is wrong is refused with its path', () => {
  for (const { what, send, good, fields } of DOORS) {
    for (const [field, wrong] of Object.entries(fields)) {
      test(`${what}: ${field}`, async () => {
        const on = await made()
        const before = await on.everything()
        for (const value of wrong) {
          await during(shown(value), async () => {
            const { detail } = await refused('invalid', undefined, () =>
              send(on, { ...good, [field]: value }),
            )
            assert.match(
              detail.path ?? 'no path',
              new RegExp(`/${field}(/|$)|^/overrides/0/${field}|^/cost$|^/usage$`),
            )
          })
        }
        assert.deepEqual(await on.everything(), before)
      })
    }
    if (what.startsWith('an ') || what.includes(' by ')) continue
    test(`${what}: a field that means nothing here, and a body that is none`, async () => {
      const on = await made()
      const before = await on.everything()
      await refused('invalid', '/alien', () => send(on, { ...good, alien: 1 }))
      await refused('invalid', '/__proto__', () => send(on, { ...good, ...own('__proto__', {}) }))
      for (const body of NO_BODY)
        await during(shown(body), () => refused('invalid', undefined, () => send(on, body)))
      assert.deepEqual(await on.everything(), before)
    })
  }
})

describe('names that every object has are names like others', () => {
  const NAMES = [
    'constructor',
    'toString',
    'hasOwnProperty',
    'valueOf',
    'prototype',
    '__defineGetter__',
    'length',
    '0',
    '-1',
    '1e3',
  ]
  for (const name of NAMES) {
    test(name, async () => {
      const on = await scene({ ...CREDITS_ONLY, subjects: { user: { max: 1 } } })
      await on.grant(name, 100, { subjects: { user: [name] }, reason: name })
      assert.equal((await on.reserve('r0', { cost: 1 })).reason, 'credits_short', 'its scope binds')
      const asked = { subject: { user: name, [name]: name }, attributes: { [name]: name }, feature: 'task' }
      assert.equal((await on.reserve(name, { ...asked, estimate: { units: 5 } })).outcome, 'allow')
      assert.equal(
        (await on.reserve('r1', { ...asked, subject: { user: 'other' }, estimate: { units: 0 } })).reason,
        'subject_limit',
      )
      assert.deepEqual((await on.settle(name, { usage: { units: 2, [name]: 3 } })).unpriced, [name])
      assert.equal((await on.refund(name, name, { amount: 1 })).refunded, '1')
      const story = await on.engine.explain('a', name)
      assert.deepEqual([story.subject?.user, story.attributes?.[name], story.charged], [name, name, '1'])
      const rows = await on.engine.usage('a', {
        from: 0,
        to: START + 1,
        group_by: [`subject.${name}`, `attributes.${name}`],
      })
      assert.partialDeepStrictEqual(rows, [
        { group: { [`subject.${name}`]: name }, requests: 1, quantities: { [name]: '3' } },
      ])
      const made = await on.engine.createAccount({ id: name, plan: 'plan', metadata: { [name]: name } })
      assert.deepEqual(made.metadata, { [name]: name })
      assert.equal((await on.engine.revokeGrant('a', name)).status, 'revoked')
      await on.agree()
    })
  }
})

test('amounts at the edges are taken as they are', async () => {
  const on = await scene(CREDITS_ONLY)
  // biome-ignore format: a row a line
  const rows: readonly [given: string | number, told: string][] = [
    [0, '0'], [-0, '0'], ['0', '0'], ['0.0', '0'], ['0.000000', '0'], [1, '1'], ['1.500000', '1.5'], [0.1, '0.1'],
    [0.000001, '0.000001'], ['0.000001', '0.000001'], [1e3, '1000'], [MAX, MAX], [9007199254, '9007199254'],
  ]
  for (const [given, told] of rows)
    assert.equal((await on.reserve('r', { cost: given, dry_run: true })).cost, told, shown(given))
})

test('one that is wrong never spoils the others that come with it', async () => {
  const on = await scene(CREDITS_ONLY)
  await on.grant('g', 1000)
  const good = Array.from({ length: 40 }, (_, n) => () => on.reserve(`r${n}`, n % 2 === 0 ? 1 : 2))
  // biome-ignore format: a row a line
  const bad: readonly (() => Promise<unknown>)[] = [
    () => on.reserve('\0', 1), () => on.reserve('x', { feature: 'nothing', cost: 1 }), () => on.settle('nobody', 1), () => on.extend('nobody', 1),
    () => on.record('y', { feature: 'task', usage: { units: MAX, tokens: MAX } }), () => on.engine.grant('a', null as never), () => on.grant('g', 1),
    () => on.engine.account('nobody'), () => on.refund('nobody', 'x'), () => on.engine.revokeGrant('a', 'nobody'),
  ]
  const calls = good.flatMap((call, n) => (n % 4 === 0 ? [call, bad[n / 4] ?? call] : [call]))
  const answers = await Promise.allSettled(calls.map((call) => call()))
  const allowed = answers.filter(
    (one) => one.status === 'fulfilled' && (one.value as { outcome?: string }).outcome === 'allow',
  )
  assert.equal(allowed.length, good.length)
  for (const one of answers) if (one.status === 'rejected') assert.equal(one.reason.name, 'SluiceError')
  assert.equal(answers.filter(({ status }) => status === 'rejected').length, bad.length)
  await on.agree()
})
