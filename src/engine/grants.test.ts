import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ALL_CREDITS,
  CREDITS_ONLY,
  cu,
  DAY,
  during,
  HOUR,
  MINUTE,
  refused,
  type Scene,
  START,
  scene,
} from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'
import type { GrantRequest } from '../wire.ts'

type Recurring = NonNullable<PlanDocument['grants']>[number]
const recurring = (...grants: readonly Recurring[]): PlanDocument => ({
  waterfall: [ALL_CREDITS],
  grants: [...grants],
})
const daily: Recurring = { kind: 'plan', amount: 10, every: 'day', rollover: 5 }
const MIDNIGHT = START + DAY / 2

const available = async (on: Scene): Promise<string> => (await on.view()).credits.available
/** Instants at which balances moved for one reason. */
const moved = async (on: Scene, reason: string): Promise<string[]> =>
  (await on.told('balance')).flatMap((entry) =>
    entry.kind === 'balance' && entry.reason === reason
      ? [`${new Date(entry.at).toISOString().slice(0, 16)} ${cu(entry.amount / 1_000_000)}`]
      : [],
  )

describe('a grant that recurs comes at its instant', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, grant: Recurring, account: object, days: number, instants: string][] = [
    ['each midnight', { ...daily, rollover: 0 }, {}, 3, '01-15T12:00 01-16T00:00 01-17T00:00 01-18T00:00'],
    ['each midnight of its zone', { ...daily, rollover: 0 }, { time_zone: 'Asia/Tokyo' }, 2, '01-15T12:00 01-15T15:00 01-16T15:00'],
    ['each month', { ...daily, rollover: 0, every: 'month' }, {}, 50, '01-15T12:00 02-01T00:00 03-01T00:00'],
    ['each month from an anchor', { ...daily, rollover: 0, every: 'month' }, { anchor_at: Date.UTC(2025, 11, 31, 6) }, 80, '01-15T12:00 01-31T06:00 02-28T06:00 03-31T06:00'],
    ['each 36 hours from the account’s beginning', { ...daily, rollover: 0, every: '36h' }, {}, 4, '01-15T12:00 01-17T00:00 01-18T12:00'],
    ['once', { kind: 'free', amount: 10 }, {}, 300, '01-15T12:00'],
    ['each week, on Mondays', { ...daily, rollover: 0, every: 'week' }, {}, 12, '01-15T12:00 01-19T00:00 01-26T00:00'],
    ['each week, on the day chosen', { ...daily, rollover: 0, every: 'week', week_start: 'sunday' }, {}, 12, '01-15T12:00 01-18T00:00 01-25T00:00'],
  ]
  for (const [what, grant, account, days, instants] of rows) {
    for (const stepMs of [DAY / 2, days * DAY]) {
      test(`${what}, ${stepMs === DAY / 2 ? 'step by step' : 'after an idle gap'}`, async () => {
        const on = await scene(recurring(grant), { account })
        while (on.clock.now < START + days * DAY) {
          on.after(stepMs)
          const seen = await on.view()
          await on.engine.tidyUp()
          assert.deepEqual(await on.view(), seen, 'reads compute what a step writes')
        }
        assert.deepEqual(
          await moved(on, 'issued'),
          instants.split(' ').map((at) => `2026-${at} 10`),
        )
        assert.equal(await available(on), '10')
        await on.agree()
      })
    }
  }
})

describe('what is left at the end of a period rolls over', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, used: readonly number[], left: readonly string[]][] = [
    ['up to the bound, for one period', [0, 0, 0], ['10', '15', '15', '15']],
    ['less where less is left', [7, 0, 0], ['3', '13', '15', '15']],
    ['nothing where all is used', [10, 0], ['0', '10', '15']],
    ['the child before the new grant, as it ends first or was there first', [0, 12, 0], ['10', '3', '13', '15']],
    ['what the child had left does not roll over again', [0, 3, 0], ['10', '12', '15', '15']],
  ]
  for (const [what, used, left] of rows) {
    test(what, async () => {
      const on = await scene(recurring(daily))
      for (const [day, cost] of used.entries()) {
        await on.record(`r${day}`, cost)
        assert.equal(await available(on), left[day], `day ${day}`)
        on.clock.now = MIDNIGHT + day * DAY
      }
      assert.equal(await available(on), left[used.length])
      await on.engine.tidyUp()
      await on.agree()
    })
  }
  test('at its instant, a millisecond before and after', async () => {
    const on = await scene(recurring(daily))
    on.clock.now = MIDNIGHT - 1
    assert.equal(await available(on), '10')
    on.after(1)
    assert.equal(await available(on), '15')
  })
  for (const exit of ['settle', 'release'] as const) {
    test(`less what is held, which ends with its grant at the ${exit}`, async () => {
      const on = await scene({ ...recurring(daily), hold: { ttl: '2d', max_lifetime: '2d' } })
      await on.reserve('r', 7)
      on.clock.now = MIDNIGHT
      assert.equal(await available(on), '13', 'three roll over')
      assert.equal((await on.view()).credits.held, '7')
      await (exit === 'settle' ? on.settle('r', 4) : on.release('r'))
      assert.equal(await available(on), '13')
      assert.equal((await on.view()).credits.held, '0')
      assert.deepEqual(
        await moved(on, 'expired'),
        exit === 'settle' ? ['2026-01-16T00:00 3'] : ['2026-01-16T00:00 7'],
      )
      await on.agree()
    })
  }
})

describe('a long gap leaves what many steps would have left', () => {
  const plans: Readonly<Record<string, PlanDocument>> = {
    'one grant a day': recurring(daily),
    'one a day without rollover': recurring({ ...daily, rollover: 0 }),
    'three a day and one a month': recurring(
      daily,
      { ...daily, name: 'b', amount: 3 },
      { ...daily, name: 'c', kind: 'free', rollover: 1 },
      { ...daily, name: 'd', every: 'month', amount: 100 },
    ),
    'eight a day': recurring(...Array.from({ length: 8 }, (_, n) => ({ ...daily, name: `n${n}` }))),
    'one an hour': recurring({ ...daily, every: 'hour' }),
  }
  // Where periods of different lengths repay a debt, a summary books the shorter ones first; the sum of both is the same.
  const alike = Object.entries(plans).filter(([what]) => !what.includes('month'))
  const rows = [
    ...Object.entries(plans).map(([what, plan]) => [what, plan, 0] as const),
    ...alike.map(([what, plan]) => [`${what}, in debt`, plan, 700] as const),
  ]
  for (const [what, plan, owed] of rows) {
    test(what, async () => {
      for (const days of [1, 2, 33, 45, 120]) {
        await during(`${days} days`, async () => {
          const stepped = await scene(plan)
          const jumped = await scene(plan)
          for (const on of [stepped, jumped]) await on.record('owed', owed)
          for (let day = 0; day < days; day++) {
            stepped.after(DAY)
            await stepped.engine.tidyUp()
          }
          jumped.after(days * DAY)
          const before = (await jumped.kept()).entries.length
          await jumped.record('r', 0)
          await stepped.record('r', 0)
          const grants = async (on: Scene) =>
            (await on.view()).credits.grants.map(({ id, ...grant }) => JSON.stringify(grant)).sort()
          assert.deepEqual(await grants(jumped), await grants(stepped))
          const totals = async (on: Scene) => (await on.kept()).cells.account
          assert.deepEqual(
            ((await totals(jumped)) as { books: object }).books,
            ((await totals(stepped)) as { books: object }).books,
          )
          const told = (await jumped.kept()).entries.slice(before).map(({ body }) => JSON.parse(body))
          const events = new Set(
            told.filter(({ what }) => what === 'grant' || what === 'recurrence').map(({ seq }) => seq),
          )
          assert.ok(events.size <= 100, `${events.size} grants came in one step`)
          await jumped.agree()
        })
      }
    })
  }
})

test('a grant that a policy adds begins in idle accounts with the next quiet pass', async () => {
  const on = await scene(CREDITS_ONLY)
  await on.publish(recurring(daily))
  await on.engine.tidyUp()
  on.clock.now = MIDNIGHT
  await on.engine.tidyUp()
  assert.deepEqual(await moved(on, 'issued'), ['2026-01-15T12:00 10', '2026-01-16T00:00 10'])
  await on.agree()
})

describe('a grant that came once and is to recur', () => {
  const once = recurring({ kind: 'plan', amount: 10 })
  // biome-ignore format: a row a line
  const ways: readonly [what: string, look: (on: Scene) => Promise<unknown>][] = [
    ['used at once', (on) => on.record('r', 0)],
    ['only swept', (on) => on.engine.tidyUp()],
  ]
  for (const [what, look] of ways) {
    test(`does so from the next period on, and what it had given stays, in an account that is ${what}`, async () => {
      const on = await scene(once)
      await on.record('before', 4)
      await on.publish(recurring(daily))
      await look(on)
      assert.equal(await available(on), '6')
      on.clock.now = MIDNIGHT - 1
      assert.equal(await available(on), '6')
      on.after(1)
      assert.equal(await available(on), '16')
      on.after(DAY)
      await on.engine.tidyUp()
      assert.equal(await available(on), '21', 'the second period’s, and what rolled over from the first')
      assert.deepEqual((await moved(on, 'issued')).length, 3)
      await on.agree()
    })
  }
})

describe('on a change of plan', () => {
  const policy = {
    plans: { next: recurring({ kind: 'plan', amount: 30, every: 'day', rollover: 30 }), none: CREDITS_ONLY },
  }
  test('the old plan’s grants run to their period’s end and stop, the new plan’s first comes at once', async () => {
    const on = await scene(recurring(daily), { policy })
    await on.record('r', 4)
    on.after(HOUR)
    await on.engine.patchAccount('a', { plan: 'next' })
    assert.equal(await available(on), '36')
    on.clock.now = MIDNIGHT
    assert.equal(await available(on), '60', 'the new one rolls over, the old one has gone')
    assert.equal((await moved(on, 'issued')).length, 2)
    await on.engine.tidyUp()
    assert.deepEqual(await moved(on, 'issued'), [
      '2026-01-15T12:00 10',
      '2026-01-15T13:00 30',
      '2026-01-16T00:00 30',
    ])
    assert.deepEqual(await moved(on, 'expired'), ['2026-01-16T00:00 6'])
    await on.agree()
  })
  test('to one without grants nothing comes any more', async () => {
    const on = await scene(recurring(daily), { policy })
    await on.engine.patchAccount('a', { plan: 'none' })
    assert.equal(await available(on), '10')
    on.after(5 * DAY)
    assert.equal(await available(on), '0')
  })
  test('bought credits stay', async () => {
    const on = await scene(recurring(daily), { policy })
    await on.grant('g', 50)
    await on.engine.patchAccount('a', { plan: 'none' })
    on.after(DAY)
    assert.equal(await available(on), '50')
  })
})

describe('a revocation', () => {
  test('takes what is left at once, and answers the same again', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 10)
    await on.record('r', 4)
    const first = await on.engine.revokeGrant('a', 'g', { reason: 'mistake' })
    assert.partialDeepStrictEqual(first, { id: 'g', remaining: '0', status: 'revoked' })
    const kept = await on.kept()
    assert.deepEqual(await on.engine.revokeGrant('a', 'g', { reason: 'mistake' }), first)
    assert.deepEqual(await on.kept(), kept)
    assert.deepEqual(await moved(on, 'revoked'), ['2026-01-15T12:00 6'])
  })
  test('of what is not there is an error', async () => {
    const on = await scene(CREDITS_ONLY)
    await refused('grant_unknown', '/grant', () => on.engine.revokeGrant('a', 'g'))
  })
  test('of a grant that is still to start keeps it from starting', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 10, { starts_at: START + HOUR })
    await on.engine.revokeGrant('a', 'g')
    on.after(HOUR)
    assert.equal(await available(on), '0')
    await on.agree()
  })
  test('of the plan’s own grant leaves the next to come', async () => {
    const on = await scene(recurring(daily))
    await on.engine.revokeGrant('a', 'plan:1')
    assert.equal(await available(on), '0')
    on.clock.now = MIDNIGHT
    assert.equal(await available(on), '10', 'and nothing rolls over')
    await on.agree()
  })
})

describe('cells stay small', () => {
  const sizes = async (on: Scene) =>
    Object.entries((await on.kept()).cells).map(([key, cell]) => [key, JSON.stringify(cell).length] as const)
  const largest = async (on: Scene) => Math.max(...(await sizes(on)).map(([, bytes]) => bytes))

  test('a year of daily grants and use, in an ordinary plan', async () => {
    const on = await scene({
      guards: [
        { name: 'requests', rate: { meter: 'requests', limit: 60, per: '1m', burst: 20 }, by: 'user' },
        { name: 'in-flight', concurrency: 3, by: 'user' },
        { name: 'budget', budget: 500, per: 'month', by: 'user' },
      ],
      waterfall: [
        {
          allowance: 'i',
          by: 'user',
          windows: [
            { name: '5h', limit: 3, per: '5h' },
            { name: '7d', limit: 20, per: '7d' },
          ],
        },
        ALL_CREDITS,
        { overage: { limit: 10, per: 'month' } },
      ],
      grants: [daily],
      low_balance: ['5', '0'],
    })
    let most = 0
    for (let day = 0; day < 365; day++) {
      on.clock.now = START + day * DAY
      if (day % 100 === 0) await on.grant(`bought${day}`, 50)
      await on.reserve(`r${day}`, { cost: 9, subject: { user: `u${day % 3}` } })
      await on.settle(`r${day}`, 8)
      if (day % 30 === 0) most = Math.max(most, await largest(on))
    }
    most = Math.max(most, await largest(on))
    assert.ok(most <= 1536, `${most} bytes`)
    await on.agree()
  })

  test('256 live grants are the most, whatever they are limited to, and a cell has at most 64 KB', async () => {
    const long = (n: number): string => `${n}`.padEnd(128, 'x')
    const terms: Readonly<Record<string, Partial<GrantRequest>>> = {
      plain: {},
      'of long ids': { priority: 1_000_000, expires_at: START + 900 * DAY },
      'with scopes as large as they may be': {
        features: Array.from({ length: 32 }, (_, n) => long(n)),
        subjects: Object.fromEntries(
          Array.from({ length: 8 }, (_, d) => [long(d), Array.from({ length: 32 }, (_, n) => long(n))]),
        ),
      },
    }
    for (const [what, more] of Object.entries(terms)) {
      await during(what, async () => {
        const on = await scene(CREDITS_ONLY)
        let issued = 0
        for (; issued < 256; issued++) {
          const id = what === 'plain' ? `g${issued}` : long(issued)
          const answer = await on.grant(id, 1, more).catch((error) => error.code)
          if (answer === 'too_many') break
        }
        if (what === 'plain') assert.equal(issued, 256)
        await refused('too_many', '/id', () => on.grant('one-more', 1, more))
        assert.ok((await largest(on)) <= 65_536, `${await largest(on)} bytes`)
        await on.agree()
      })
    }
  })
  test('a hold over 256 grants stays in bounds, and used up they make room', async () => {
    const on = await scene(CREDITS_ONLY)
    for (let n = 0; n < 256; n++) await on.grant(`grant-number-${n}`, 1)
    await on.reserve('r', 256)
    assert.ok((await largest(on)) <= 65_536, `${await largest(on)} bytes`)
    await refused('too_many', '/id', () => on.grant('more', 1))
    await on.settle('r', 256)
    assert.ok((await largest(on)) <= 65_536, `${await largest(on)} bytes`)
    await on.grant('more', 1)
    assert.deepEqual(
      (await on.view()).credits.grants.map(({ id }) => id),
      ['more'],
    )
    assert.equal(
      (await on.engine.grants('a', { limit: 100 })).items.length,
      100,
      'used-up grants are read from elsewhere',
    )
    await on.agree()
  })
})

test('a grant’s terms are checked against now', async () => {
  const on = await scene(CREDITS_ONLY)
  // biome-ignore format: a row a line
  const rows: readonly [what: string, terms: Partial<GrantRequest>, path: string | undefined][] = [
    ['ends now', { expires_at: START }, '/expires_at'],
    ['ended before', { expires_at: START - 1 }, '/expires_at'],
    ['ends as it starts', { starts_at: START + HOUR, expires_at: START + HOUR }, '/expires_at'],
    ['ends in a millisecond', { expires_at: START + 1 }, undefined],
    ['started long ago', { starts_at: START - DAY }, undefined],
    ['nothing', { amount: 0 }, '/amount'],
  ]
  for (const [what, terms, path] of rows) {
    if (path === undefined) await on.grant(what.replaceAll(' ', '-'), 1, terms)
    else await refused('invalid', path, () => on.grant(what.replaceAll(' ', '-'), 1, terms))
  }
  on.after(MINUTE)
  await on.engine.tidyUp()
  await on.agree()
})

describe('the range of amounts', () => {
  test('leaves room for what the plan brings, so that the largest grants stop nothing', async () => {
    const on = await scene(recurring(daily))
    await refused('amount_overflow', '/amount', () =>
      on.engine.grant('a', { id: 'max', kind: 'free', amount: '9007199254' }),
    )
    await on.engine.grant('a', { id: 'half', kind: 'free', amount: '4503599617' })
    await on.reserve('r', 1)
    on.after(DAY)
    assert.equal((await on.settle('r', 1)).charged, '1')
    await on.agree()
  })
  test('ends for the plan’s own grants with as much as still fits', async () => {
    const on = await scene(recurring({ kind: 'plan', amount: '4000000000', every: 'day' }))
    await on.reserve('r', 1)
    for (const left of ['4000000000', '1007199254.740991', '0', '0']) {
      on.after(DAY)
      assert.equal(await available(on), left)
      await on.engine.tidyUp()
    }
    on.after(400 * DAY)
    assert.equal((await on.settle('r', 1)).charged, '1')
    await on.agree()
  })
})
