import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, FEATURES, refused, type Scene, START, scene } from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'

const PLAN: PlanDocument = { ...CREDITS_ONLY, guards: [{ name: 'b', budget: 1000, per: 'month' }] }
const MAX = '9007199254.740991'
const base = { account: 'a', request_id: 'r' }

async function made(): Promise<Scene> {
  const on = await scene(PLAN)
  await on.grant('g', 100)
  await on.reserve('open', 5)
  await on.record('done', 5)
  return on
}
const shown = (value: unknown): string => (JSON.stringify(value) ?? String(value)).slice(0, 60)

describe('what is unknown is named', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, code: string, path: string | undefined, call: (on: Scene) => Promise<unknown>][] = [
    ['an account', 'account_unknown', '/account', (on) => on.engine.reserve({ ...base, account: 'nobody', feature: 'job', cost: 1 })],
    ['a feature, of a reserve', 'feature_unknown', '/feature', (on) => on.reserve('r', { feature: 'nothing', cost: 1 })],
    ['a feature that every object has', 'feature_unknown', '/feature', (on) => on.reserve('r', { feature: 'constructor', cost: 1 })],
    ['a feature, of a record', 'feature_unknown', '/feature', (on) => on.record('r', { feature: 'toString', cost: 1 })],
    ['a feature, of a settle', 'feature_unknown', '/feature', (on) => on.settle('r', { feature: 'nothing', cost: 1 })],
    ['a plan, of an account', 'plan_unknown', '/plan', (on) => on.engine.createAccount({ id: 'n', plan: 'constructor' })],
    ['a plan, of a change', 'plan_unknown', '/plan', (on) => on.engine.patchAccount('a', { plan: 'nothing' })],
    ['a request', 'request_unknown', '/request_id', (on) => on.extend('nobody', 1)],
    ['a request, of a story', 'request_unknown', undefined, (on) => on.engine.explain('a', 'nobody')],
    ['a request, anywhere', 'request_unknown', '/request_id', (on) => on.engine.explainAnywhere('nobody')],
    ['a grant', 'grant_unknown', '/grant', (on) => on.engine.revokeGrant('a', 'toString')],
    ['a key', 'key_unknown', '/id', (on) => on.engine.revokeKey('constructor')],
    ['a policy version', 'not_found', '/version', (on) => on.engine.policy(99)],
    ['a limit', 'invalid', '/overrides/0/name', (on) => on.override('constructor', 1)],
    ['a page size', 'invalid', '/limit', (on) => on.engine.journal({ limit: 0 })],
    ['a page size that is none', 'invalid', '/limit', (on) => on.engine.grants('a', { limit: Number.NaN })],
    ['a cursor', 'invalid', '/cursor', (on) => on.engine.entries('a', { cursor: '\0' })],
    ['a cursor of another kind', 'invalid', '/cursor', (on) => on.engine.holds('a', { cursor: 'eA' })],
    ['an account that is Sluice’s own', 'invalid', '/account', (on) => on.engine.account('@system')],
    ['a bucket', 'invalid', '/bucket', (on) => on.engine.usage('a', { from: 0, to: START, bucket: 'constructor' })],
    ['a grouping', 'invalid', '/group_by', (on) => on.engine.usage('a', { from: 0, to: START, group_by: ['constructor'] })],
    ['an instant of a report', 'invalid', '/from', (on) => on.engine.usage('a', { from: Number.NaN, to: START })],
    ['a person to forget', 'invalid', '/dimension', (on) => on.engine.erase('a', 'a b', 'u1')],
  ]
  for (const [what, code, path, call] of rows) {
    test(what, async () => {
      const on = await made()
      const before = await on.everything()
      await refused(code, path, () => call(on))
      assert.deepEqual(await on.everything(), before)
    })
  }
  // biome-ignore format: a row a line
  const calls: readonly [what: string, call: (on: Scene, account: string) => Promise<unknown>][] = [
    ['reserve', ({ engine }, account) => engine.reserve({ ...base, account, feature: 'job', cost: 1 })],
    ['extend', ({ engine }, account) => engine.extend({ ...base, account, step: 1 })],
    ['settle', ({ engine }, account) => engine.settle({ ...base, account, feature: 'job', cost: 1 })],
    ['record', ({ engine }, account) => engine.record({ ...base, account, feature: 'job', cost: 1 })],
    ['release', ({ engine }, account) => engine.release({ ...base, account })],
    ['refund', ({ engine }, account) => engine.refund(account, 'r', { refund_id: 'f', reason: 'x' })],
    ['grant', ({ engine }, account) => engine.grant(account, { id: 'g', kind: 'free', amount: 1 })],
  ]
  for (const [what, call] of calls) {
    test(`an account that is Sluice’s own, or has a name like one, in a ${what}: no default plan makes it`, async () => {
      const on = await scene(PLAN, { policy: { default_plan: 'plan' } })
      const before = await on.everything()
      for (const account of ['@system', '@x']) await refused('invalid', '/account', () => call(on, account))
      assert.deepEqual(await on.everything(), before)
      assert.deepEqual(
        (await on.engine.accounts({})).items.map(({ id }) => id),
        ['a'],
      )
    })
  }
  test('before any policy is published, nothing is decided', async () => {
    const on = await scene(PLAN, { account: null, published: false })
    await refused('policy_missing', undefined, () => on.engine.createAccount({ id: 'a', plan: 'plan' }))
  })
})

describe('a policy that is wrong is refused with every complaint, and the one in force stays', () => {
  const plan = (more: object): string =>
    JSON.stringify({ features: FEATURES, plans: { plan: { ...PLAN, ...more } } })
  // biome-ignore format: a row a line
  const rows: readonly [what: string, text: unknown, path: string | undefined][] = [
    ['nothing', '', undefined],
    ['no YAML', '{{{', undefined],
    ['a text', 'hello', undefined],
    ['a list', '[]', undefined],
    ['no text', 5, undefined],
    ['null', null, undefined],
    ['an object', { features: {} }, undefined],
    ['a key twice', 'features: { a: {} }\nfeatures: { b: {} }\nplans: {}', undefined],
    ['no plans', '{"features":{"a":{}},"plans":{}}', '/plans'],
    ['a window of no length', plan({ waterfall: [{ allowance: 'i', windows: [{ name: 'w', limit: 1, per: '0s' }] }] }), '/plans/plan/waterfall/0/windows/0/per'],
    ['a negative limit', plan({ waterfall: [{ overage: { limit: -1, per: 'month' } }] }), '/plans/plan/waterfall/0/overage/limit'],
    ['a name twice', plan({ guards: [{ name: 'x', concurrency: 1 }, { name: 'x', concurrency: 2 }] }), '/plans/plan/guards/1/name'],
    ['a line that nothing reaches', JSON.stringify({ features: { f: { rate_card: [{ per_unit: { a: 1 } }, { per_unit: { a: 2 } }] } }, plans: { p: CREDITS_ONLY } }), '/features/f/rate_card/1'],
    ['an alien field', plan({ alien: 1 }), '/plans/plan/alien'],
    ['a default plan that is not there', JSON.stringify({ features: FEATURES, plans: { p: CREDITS_ONLY }, default_plan: 'q' }), '/default_plan'],
  ]
  for (const [what, text, path] of rows) {
    test(what, async () => {
      const on = await made()
      const before = await on.everything()
      const { detail } = await refused('policy_invalid', undefined, () =>
        on.engine.publishPolicy(text as string, undefined),
      )
      assert.ok((detail.complaints ?? []).length > 0)
      for (const { message } of detail.complaints ?? []) assert.notEqual(message, '')
      if (path !== undefined)
        assert.ok(
          detail.complaints?.some((one) => one.path === path),
          shown(detail.complaints),
        )
      const check = await on.engine.checkPolicy(text as string)
      assert.equal(check.valid, false)
      assert.deepEqual(await on.everything(), before)
      assert.equal((await on.engine.policy()).version, 1)
    })
  }
})

describe('sums that leave the range are refused, and change nothing', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, before: (on: Scene) => Promise<unknown>, call: (on: Scene) => Promise<unknown>][] = [
    ['of grants', (on) => on.engine.grant('a', { id: 'x', kind: 'free', amount: '4503599000' }), (on) => on.engine.grant('a', { id: 'y', kind: 'free', amount: 1000 })],
    ['of debts', (on) => on.record('x', { cost: '9007199154' }), (on) => on.record('y', { cost: MAX })],
    ['of quantities and prices', async () => {}, (on) => on.record('x', { feature: 'task', usage: { units: MAX, tokens: MAX } })],
  ]
  for (const [what, before, call] of rows) {
    test(what, async () => {
      const on = await made()
      await before(on)
      const state = await on.everything()
      await refused('amount_overflow', undefined, () => call(on))
      assert.deepEqual(await on.everything(), state)
      assert.equal((await on.record('after', 0)).charged, '0')
      await on.agree()
    })
  }
})
