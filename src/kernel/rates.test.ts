import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { AmountOverflow, type Millis } from '../units.ts'
import type { GcraState, RateState, SlidingState } from './cells.ts'
import vectors from './gcra-vectors.json' with { type: 'json' }
import type { RateGuard } from './plan.ts'
import { rateFreeAt, rateGiveBack, rateIsIdle, rateTake, rateView } from './rates.ts'

const MINUTE = 60_000
const DAY = 86_400_000

function guardOf(fields: Partial<RateGuard>): RateGuard {
  const limit = fields.limit ?? 10
  const base = {
    kind: 'rate',
    name: 'r',
    by: undefined,
    features: undefined,
    meter: { kind: 'cost' },
  } as const
  return { ...base, limit, perMs: MINUTE, algorithm: 'gcra', capacity: limit, ...fields }
}

type Step =
  | readonly [at: Millis, op: 'take', amount: number]
  | readonly [at: Millis, op: 'back', amount: number, takenAt: Millis]

function run(guard: RateGuard, steps: readonly Step[], from?: RateState): RateState | undefined {
  return steps.reduce<RateState | undefined>(
    (state, [at, op, amount, takenAt]) =>
      op === 'take'
        ? rateTake(guard, state, amount, at)
        : rateGiveBack(guard, state, amount, takenAt as Millis, at),
    from,
  )
}

const ceil = (a: bigint, b: bigint) => Number((a + b - 1n) / b)

describe('gcra', () => {
  test(`answers the published vectors (${vectors.source.join('; ')})`, () => {
    const guard = guardOf({
      limit: 1,
      perMs: 1000,
      capacity: vectors.limiter.capacity,
      meter: { kind: 'requests' },
    })
    let state: RateState | undefined
    for (const { i, now_ms: now, quantity, ...expected } of vectors.cases) {
      const admitted = quantity <= rateView(guard, state, now).available
      const freeAt = rateFreeAt(guard, state, quantity, now)
      if (admitted) state = rateTake(guard, state, quantity, now)
      const view = rateView(guard, state, now)
      assert.deepEqual(
        {
          remaining: view.available,
          reset_after_ms: (view.resetsAt ?? now) - now,
          retry_after_ms: admitted || freeAt === null ? -1 : freeAt - now,
          limited: !admitted,
        },
        expected,
        `case ${i}`,
      )
    }
  })

  // 10 a minute: one unit in six seconds, with a burst of 5.
  const guard = guardOf({ limit: 10, capacity: 5 })
  // biome-ignore format: a row a line
  const rows: [what: string, steps: Step[], now: Millis, used: number, available: number, resetsAt: Millis | null][] = [
    ['nothing yet', [], 0, 0, 5, null],
    ['a full burst', [[0, 'take', 5]], 0, 5, 0, 30_000],
    ['a part of a unit has drained: used rounds up', [[0, 'take', 5]], 1, 5, 0, 30_000],
    ['a whole unit has drained', [[0, 'take', 5]], 6000, 4, 1, 30_000],
    ['all but a trace has drained', [[0, 'take', 5]], 29_999, 1, 4, 30_000],
    ['all has drained', [[0, 'take', 5]], 30_000, 0, 5, null],
    ['a remainder is kept when more is taken', [[0, 'take', 1], [5999, 'take', 1]], 6000, 1, 4, 12_000],
    ['past the limit', [[0, 'take', 12]], 0, 12, 0, 72_000],
    ['the clock steps back: no time passes', [[6000, 'take', 2]], 0, 2, 3, 12_000],
    ['an amount of zero', [[0, 'take', 0]], 0, 0, 5, null],
  ]
  for (const [what, steps, now, used, available, resetsAt] of rows) {
    test(what, () => assert.deepEqual(rateView(guard, run(guard, steps), now), { used, available, resetsAt }))
  }

  test('taking in small steps drains as much as one look at the end: no remainder is lost', () => {
    const odd = guardOf({ limit: 7, perMs: 1009, capacity: 1000 })
    let state: RateState = rateTake(odd, undefined, 1000, 0)
    for (let at = 1; at <= 100_000; at += 1) state = rateTake(odd, state, 0, at)
    assert.equal((state as GcraState).level, 1000 - Math.floor((7 * 100_000) / 1009))
    assert.equal((state as GcraState).drained, (7 * 100_000) % 1009)
  })

  const amounts = fc.array(
    fc.record({
      waitMs: fc.integer({ min: 0, max: 3 * DAY }),
      part: fc.double({ min: 0, max: 1.2, noNaN: true }),
    }),
    { minLength: 1, maxLength: 30, size: 'max' },
  )
  const guards = fc
    .record({
      limit: fc.integer({ min: 1, max: 1e15 }),
      perMs: fc.integer({ min: 1, max: 400 * DAY }),
      burst: fc.double({ min: 0.01, max: 3, noNaN: true }),
    })
    .map(({ limit, perMs, burst }) =>
      guardOf({ limit, perMs, capacity: Math.max(1, Math.floor(limit * burst)) }),
    )
  const smallGuards = fc
    .record({
      limit: fc.integer({ min: 1, max: 50 }),
      perMs: fc.integer({ min: 1, max: 5000 }),
      capacity: fc.integer({ min: 1, max: 100 }),
    })
    .map(guardOf)

  for (const [size, some] of [
    ['any', guards],
    ['small', smallGuards],
  ] as const) {
    test(`agrees with rational arithmetic to the last unit and millisecond, ${size} limits`, () => {
      fc.assert(
        fc.property(some, amounts, fc.integer({ min: 1, max: 400_000 }), (guard, takes, hurry) => {
          const [limit, per] = [BigInt(guard.limit), BigInt(guard.perMs)]
          let [state, level, now]: [RateState | undefined, bigint, Millis] = [
            undefined,
            0n,
            1_700_000_000_000,
          ]
          for (const { waitMs, part } of takes) {
            const elapsed = Math.floor(waitMs / hurry)
            now += elapsed
            level -= BigInt(elapsed) * limit
            if (level < 0n) level = 0n
            const room = Number.MAX_SAFE_INTEGER - rateView(guard, state, now).used
            const amount = Math.min(Math.floor(guard.capacity * part), room)
            state = rateTake(guard, state, amount, now)
            level += BigInt(amount) * per
            const view = rateView(guard, state, now)
            assert.equal(view.used, ceil(level, per))
            assert.equal(view.available, Math.max(0, guard.capacity - view.used))
            const reset = level === 0n ? null : now + ceil(level, limit)
            assert.equal(view.resetsAt, reset !== null && reset > 8.64e15 ? null : reset)
          }
        }),
        { numRuns: 500 },
      )
    })
  }

  test('a limit of 1e15 in 400 days after 400 days, and after one millisecond', () => {
    const huge = guardOf({ limit: 1e15, perMs: 400 * DAY })
    const state = rateTake(huge, undefined, 1e15, 0)
    assert.deepEqual(rateView(huge, state, 400 * DAY), { used: 0, available: 1e15, resetsAt: null })
    assert.equal(rateView(huge, state, 400 * DAY - 1).used, Math.ceil(1e15 / (400 * DAY)))
    assert.equal(rateView(huge, state, 1).available, Math.floor(1e15 / (400 * DAY)))
    assert.equal(rateView(huge, state, 1).resetsAt, 400 * DAY)
    assert.equal(rateFreeAt(huge, state, 1, 0), 1)
    assert.equal(rateFreeAt(huge, state, 1e15, 1), 400 * DAY)
  })

  test('a level beyond the safe range is refused, with nothing written', () => {
    const state = rateTake(guard, undefined, Number.MAX_SAFE_INTEGER, 0)
    assert.throws(() => rateTake(guard, state, 1, 0), AmountOverflow)
  })

  test('a reset beyond the end of the calendar, or under a limit of 0, is never', () => {
    const state = rateTake(guard, undefined, 5, 0)
    assert.equal(
      rateView(guardOf({ limit: 1, perMs: 400 * DAY }), rateTake(guard, undefined, 1e15, 0), 0).resetsAt,
      null,
    )
    const closed = guardOf({ limit: 0, capacity: 5 })
    assert.deepEqual(rateView(closed, state, MINUTE), { used: 5, available: 0, resetsAt: null })
    assert.equal(rateFreeAt(closed, state, 1, MINUTE), null)
  })

  describe('gives back', () => {
    // 10 a minute, capacity 20; one unit in six seconds.
    const rate = guardOf({ limit: 10, capacity: 20 })
    // biome-ignore format: a row a line
    const table: [what: string, steps: Step[], now: Millis, used: number][] = [
      ['all at once', [[0, 'take', 8], [0, 'back', 8, 0]], 0, 0],
      ['a part', [[0, 'take', 8], [0, 'back', 5, 0]], 0, 3],
      ['what is left of it', [[0, 'take', 8], [24_000, 'back', 8, 0]], 24_000, 0],
      ['below zero never', [[0, 'take', 8], [24_000, 'back', 6, 0]], 24_000, 0],
      ['the difference, when what was used has drained long since', [[0, 'take', 10], [30_000, 'back', 8, 0]], 30_000, 0],
      ['all, under others who came at the same time', [[0, 'take', 5], [0, 'take', 5], [30_000, 'back', 5, 0]], 30_000, 0],
      ['all, where the level was never lower than that', [[0, 'take', 12], [30_000, 'take', 4], [36_000, 'back', 5, 0]], 36_000, 5],
      ['as much as the lowest level since', [[0, 'take', 10], [48_000, 'take', 9], [54_000, 'back', 10, 0]], 54_000, 8],
      ['nothing, once the level has run dry', [[0, 'take', 10], [60_000, 'take', 9], [60_000, 'back', 10, 0]], 60_000, 9],
      ['nothing twice', [[0, 'take', 10], [48_000, 'take', 9], [48_000, 'back', 10, 0], [48_000, 'back', 10, 0]], 48_000, 9],
    ]
    for (const [what, steps, now, used] of table) {
      test(what, () => assert.equal(rateView(rate, run(rate, steps), now).used, used))
    }

    test('undefined when nothing counts any more', () => {
      assert.equal(
        run(rate, [
          [0, 'take', 8],
          [0, 'back', 8, 0],
        ]),
        undefined,
      )
      assert.equal(
        run(rate, [
          [0, 'take', 8],
          [48_000, 'back', 1, 0],
        ]),
        undefined,
      )
      assert.equal(rateGiveBack(rate, undefined, 8, 0, 0), undefined)
    })

    test('holding much and giving it back late does not win a second burst', () => {
      const steps: Step[] = []
      for (let i = 0; i < 10; i += 1) steps.push([i * 2 * MINUTE, 'take', 20])
      const now = 20 * MINUTE
      steps.push([now, 'take', 20])
      for (let i = 0; i < 10; i += 1) steps.push([now, 'back', 20, i * 2 * MINUTE])
      assert.equal(rateView(rate, run(rate, steps), now).used, 20)
    })

    const history = fc.array(
      fc.record({
        waitMs: fc.integer({ min: 0, max: 9 }),
        amount: fc.integer({ min: 1, max: 30 }),
        /** Which earlier amount is given back instead, and how much of it. */
        back: fc.option(fc.record({ which: fc.nat(), part: fc.double({ min: 0, max: 1, noNaN: true }) }), {
          freq: 2,
        }),
      }),
      { minLength: 2, maxLength: 80, size: 'max' },
    )
    const pace = fc.record({ limit: fc.integer({ min: 1, max: 20 }), perMs: fc.integer({ min: 1, max: 20 }) })

    /** The level, times `perMs`, had only what remained in the end ever been taken. */
    function ideal(
      takes: readonly (readonly [Millis, number])[],
      limit: number,
      perMs: number,
      now: Millis,
    ): number {
      let [level, last] = [0, 0]
      for (const [at, amount] of [...takes, [now, 0] as const]) {
        level = Math.max(0, level - (at - last) * limit) + amount * perMs
        last = at
      }
      return level
    }

    test('so that the level is what it would have been without the amount: never less, and while few lows are known hardly more', () => {
      fc.assert(
        fc.property(pace, history, ({ limit, perMs }, steps) => {
          const guard = guardOf({ limit, perMs, capacity: 1000 })
          const takes: [Millis, number][] = []
          let [state, now, backs, lows]: [RateState | undefined, Millis, number, number] = [
            undefined,
            0,
            0,
            0,
          ]
          for (const { waitMs, amount, back } of steps) {
            now += waitMs
            const take = back === null ? undefined : takes[back.which % Math.max(1, takes.length)]
            if (back !== null && take !== undefined) {
              const returned = Math.floor(take[1] * back.part)
              state = rateGiveBack(guard, state, returned, take[0], now)
              take[1] -= returned
              backs += 1
            } else {
              state = rateTake(guard, state, amount, now)
              takes.push([now, amount])
            }
            const known = (state as GcraState | undefined)?.lows ?? []
            for (const [i, [at, low]] of known.slice(1).entries()) {
              const [atBefore, lowBefore] = known[i]!
              assert.ok(at > atBefore && low > lowBefore, 'lows ascend in both')
            }
            lows = Math.max(lows, known.length)
            const { used } = rateView(guard, state, now)
            const least = Math.ceil(ideal(takes, limit, perMs, now) / perMs)
            assert.ok(used >= least, `${used} where ${least} was really used`)
            if (lows < 8) assert.ok(used <= least + backs, `${used} where ${least} was really used`)
          }
          assert.ok(lows <= 8)
        }),
        { numRuns: 1000 },
      )
    })
  })
})

describe('sliding', () => {
  const guard = guardOf({ algorithm: 'sliding', limit: 10 })
  // biome-ignore format: a row a line
  const rows: [what: string, steps: Step[], now: Millis, used: number, available: number, resetsAt: Millis | null][] = [
    ['nothing yet', [], 0, 0, 10, null],
    ['counts for the whole period', [[1000, 'take', 4]], 60_999, 4, 6, 61_000],
    ['and no longer', [[1000, 'take', 4]], 61_000, 0, 10, null],
    ['each at its own time', [[0, 'take', 4], [30_000, 'take', 5]], 60_000, 5, 5, 90_000],
    ['past the limit', [[0, 'take', 14]], 0, 14, 0, 60_000],
    ['the clock steps back: counted at the latest time seen', [[5000, 'take', 1], [4000, 'take', 1]], 4000, 2, 8, 65_000],
    ['given back', [[0, 'take', 4], [10, 'take', 5], [20, 'back', 3, 0]], 20, 6, 4, 60_010],
    ['given back below zero never', [[0, 'take', 4], [10, 'take', 5], [20, 'back', 7, 0]], 20, 5, 5, 60_010],
    ['given back too late', [[0, 'take', 4], [10, 'take', 5], [60_000, 'back', 4, 0]], 60_000, 5, 5, 60_010],
    ['given back twice', [[0, 'take', 4], [10_000, 'take', 5], [20_000, 'back', 4, 0], [20_000, 'back', 4, 0]], 20_000, 5, 5, 70_000],
  ]
  for (const [what, steps, now, used, available, resetsAt] of rows) {
    test(what, () => assert.deepEqual(rateView(guard, run(guard, steps), now), { used, available, resetsAt }))
  }

  test('nothing that counts is undefined', () => {
    assert.equal(
      run(guard, [
        [0, 'take', 4],
        [1, 'back', 4, 0],
      ]),
      undefined,
    )
    assert.equal(
      run(guard, [
        [0, 'take', 4],
        [60_000, 'back', 1, 0],
      ]),
      undefined,
    )
  })

  const requests = fc.array(fc.tuple(fc.integer({ min: 0, max: 400 }), fc.integer({ min: 1, max: 5 })), {
    minLength: 1,
    maxLength: 300,
    size: 'max',
  })
  const guards = fc
    .record({ limit: fc.integer({ min: 5, max: 400 }), perMs: fc.integer({ min: 1, max: 20_000 }) })
    .map((fields) => guardOf({ ...fields, algorithm: 'sliding', capacity: fields.limit }))
  const totalSince = (log: readonly (readonly [Millis, number])[], since: Millis) =>
    log.reduce((total, [at, amount]) => (at > since ? total + amount : total), 0)

  test('never admits more than the limit in any period, refuses wrongly for less than perMs/32, and keeps at most 33 items', () => {
    fc.assert(
      fc.property(guards, requests, (guard, asked) => {
        const { limit, perMs } = guard
        const admitted: [Millis, number][] = []
        let [state, now]: [RateState | undefined, Millis] = [undefined, 1_700_000_000_000]
        for (const [waitMs, amount] of asked) {
          now += waitMs
          if (amount <= rateView(guard, state, now).available) {
            state = rateTake(guard, state, amount, now)
            admitted.push([now, amount])
            assert.ok(totalSince(admitted, now - perMs) <= limit)
          } else assert.ok(totalSince(admitted, now - perMs - perMs / 32) + amount > limit)
          assert.ok(((state as SlidingState | undefined)?.log.length ?? 0) <= 33)
        }
      }),
      { numRuns: 500 },
    )
  })

  test('is exact while at most 32 admissions lie in a period', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 4000 }), fc.integer({ min: 1, max: 9 })), {
          maxLength: 200,
          size: 'max',
        }),
        (asked) => {
          const guard = guardOf({ algorithm: 'sliding', limit: 32, perMs: 10_007 })
          const admitted: [Millis, number][] = []
          let [state, now]: [RateState | undefined, Millis] = [undefined, 0]
          for (const [waitMs, amount] of asked) {
            now += waitMs
            const { used, available } = rateView(guard, state, now)
            assert.equal(used, totalSince(admitted, now - guard.perMs))
            if (amount > available) continue
            state = rateTake(guard, state, amount, now)
            admitted.push([now, amount])
          }
        },
      ),
    )
  })

  test('what is given back frees what it took, merged or not, and nothing of others', () => {
    const step = fc.record({
      waitMs: fc.integer({ min: 0, max: 40 }),
      amount: fc.integer({ min: 1, max: 9 }),
      back: fc.option(fc.nat(), { freq: 2 }),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200, size: 'max' }), (steps) => {
        const guard = guardOf({ algorithm: 'sliding', limit: 1000, perMs: 3000 })
        const live: [Millis, number][] = []
        /** Given back after their time: what was merged may count on for its perMs/32. */
        const late: [Millis, number][] = []
        let [state, now]: [RateState | undefined, Millis] = [undefined, 0]
        for (const { waitMs, amount, back } of steps) {
          now += waitMs
          const taken = back === null ? undefined : live.splice(back % Math.max(1, live.length), 1)[0]
          if (taken === undefined) {
            state = rateTake(guard, state, amount, now)
            live.push([now, amount])
          } else {
            state = rateGiveBack(guard, state, taken[1], taken[0], now)
            if (taken[0] <= now - guard.perMs) late.push(taken)
          }
          const { used } = rateView(guard, state, now)
          assert.ok(used >= totalSince(live, now - guard.perMs))
          assert.ok(used <= totalSince([...live, ...late], now - guard.perMs - guard.perMs / 32))
        }
      }),
      { numRuns: 500 },
    )
  })
})

describe('fixed', () => {
  const guard = guardOf({ algorithm: 'fixed', limit: 10 })
  // biome-ignore format: a row a line
  const rows: [what: string, steps: Step[], now: Millis, used: number, available: number, resetsAt: Millis | null][] = [
    ['nothing yet', [], 5, 0, 10, null],
    ['counts to the end of its minute', [[59_000, 'take', 4]], 59_999, 4, 6, 60_000],
    ['and no longer', [[59_000, 'take', 4]], 60_000, 0, 10, null],
    ['past the limit', [[61_000, 'take', 14]], 61_000, 14, 0, 120_000],
    ['the clock steps back over a boundary: the later window stands', [[61_000, 'take', 4]], 59_000, 4, 6, 120_000],
    ['given back', [[0, 'take', 4], [10, 'take', 5], [20, 'back', 3, 0]], 20, 6, 4, 60_000],
    ['given back below zero never', [[0, 'take', 4], [20, 'back', 7, 0]], 20, 0, 10, null],
    ['given back in the next window', [[0, 'take', 4], [60_000, 'take', 5], [60_000, 'back', 4, 0]], 60_000, 5, 5, 120_000],
  ]
  for (const [what, steps, now, used, available, resetsAt] of rows) {
    test(what, () => assert.deepEqual(rateView(guard, run(guard, steps), now), { used, available, resetsAt }))
  }
})

describe('every algorithm', () => {
  const algorithm = fc.constantFrom<RateGuard['algorithm']>('gcra', 'sliding', 'fixed')
  const guards = fc
    .record({
      algorithm,
      limit: fc.integer({ min: 1, max: 30 }),
      perMs: fc.integer({ min: 1, max: 3000 }),
      burst: fc.integer({ min: 1, max: 40 }),
    })
    .map(({ burst, ...fields }) =>
      guardOf({ ...fields, capacity: fields.algorithm === 'gcra' ? burst : fields.limit }),
    )
  /** Few enough for a sliding log to be exact. */
  const takes = fc.array(fc.tuple(fc.integer({ min: 0, max: 900 }), fc.integer({ min: 1, max: 12 })), {
    minLength: 1,
    maxLength: 30,
    size: 'max',
  })

  /** The state after the takes, and the instant of the last. */
  function after(
    guard: RateGuard,
    steps: readonly (readonly [Millis, number])[],
  ): [RateState | undefined, Millis] {
    let [state, now]: [RateState | undefined, Millis] = [undefined, 0]
    for (const [waitMs, amount] of steps) {
      now += waitMs
      state = rateTake(guard, state, amount, now)
    }
    return [state, now]
  }

  test('admits at the instant it told, and not a millisecond earlier', () => {
    fc.assert(
      fc.property(
        guards,
        takes,
        fc.integer({ min: 0, max: 2000 }),
        fc.integer({ min: 1, max: 45 }),
        (guard, steps, later, amount) => {
          const [state, last] = after(guard, steps)
          const now = last + later
          const freeAt = rateFreeAt(guard, state, amount, now)
          if (freeAt === null) return assert.ok(amount > guard.capacity)
          assert.ok(amount <= rateView(guard, state, freeAt).available)
          assert.ok(freeAt >= now)
          if (freeAt > now) assert.ok(amount > rateView(guard, state, freeAt - 1).available)
        },
      ),
      { numRuns: 2000 },
    )
  })

  test('is all free at the reset it told, and not a millisecond earlier', () => {
    fc.assert(
      fc.property(guards, takes, (guard, steps) => {
        const [state, now] = after(guard, steps)
        const { resetsAt, used } = rateView(guard, state, now)
        assert.ok(used > 0 && resetsAt !== null && resetsAt > now)
        assert.equal(rateView(guard, state, resetsAt).used, 0)
        assert.ok(rateView(guard, state, resetsAt - 1).used > 0)
        assert.ok(rateIsIdle(guard, state, resetsAt) && !rateIsIdle(guard, state, resetsAt - 1))
      }),
      { numRuns: 1000 },
    )
  })

  test('an idle state may be deleted: no later answer differs', () => {
    fc.assert(
      fc.property(guards, takes, takes, (guard, steps, more) => {
        const [state, last] = after(guard, steps)
        const now = rateView(guard, state, last).resetsAt as Millis
        let [kept, deleted]: [RateState | undefined, RateState | undefined] = [state, undefined]
        let at = now
        for (const [waitMs, amount] of more) {
          at += waitMs
          kept = rateTake(guard, kept, amount, at)
          deleted = rateTake(guard, deleted, amount, at)
          assert.deepEqual(rateView(guard, kept, at), rateView(guard, deleted, at))
          assert.deepEqual(rateGiveBack(guard, kept, 5, 0, at), rateGiveBack(guard, deleted, 5, 0, at))
        }
      }),
    )
  })

  test('giving back at once undoes taking, wherever the level stands', () => {
    fc.assert(
      fc.property(
        guards,
        takes,
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 0, max: 900 }),
        (guard, steps, amount, later) => {
          const [state, last] = after(guard, steps)
          const now = last + later
          const back = rateGiveBack(guard, rateTake(guard, state, amount, now), amount, now, now)
          assert.deepEqual(rateView(guard, back, now), rateView(guard, state, now))
        },
      ),
    )
  })

  test('states are data that is never changed, and survives JSON', () => {
    fc.assert(
      fc.property(guards, takes, (guard, steps) => {
        const [state, now] = after(guard, steps)
        const before = JSON.stringify(state)
        rateTake(guard, state, 3, now + 10)
        rateGiveBack(guard, state, 3, now, now + 10)
        assert.equal(JSON.stringify(state), before)
        assert.deepEqual(rateView(guard, JSON.parse(before), now + 10), rateView(guard, state, now + 10))
      }),
    )
  })

  test('nothing fits above the capacity, ever; nothing is refused that asks for nothing', () => {
    for (const algorithm of ['gcra', 'sliding', 'fixed'] as const) {
      const guard = guardOf({ algorithm, limit: 10 })
      assert.equal(rateFreeAt(guard, undefined, 11, 0), null)
      assert.equal(rateFreeAt(guard, rateTake(guard, undefined, 99, 0), 0, 0), 0)
      assert.equal(rateFreeAt(guard, undefined, 10, 7), 7)
    }
  })
})

describe('a guard that changes over live state', () => {
  test('a lower limit keeps what is used, and nothing is left', () => {
    for (const algorithm of ['gcra', 'sliding', 'fixed'] as const) {
      const state = rateTake(guardOf({ algorithm, limit: 10 }), undefined, 8, 0)
      const { used, available } = rateView(guardOf({ algorithm, limit: 5 }), state, 0)
      assert.deepEqual([used, available], [8, 0])
    }
  })

  test('a level drains at the new pace', () => {
    const state = rateTake(guardOf({ limit: 10 }), undefined, 10, 0)
    assert.equal(rateView(guardOf({ limit: 20 }), state, 0).resetsAt, 30_000)
    assert.equal(rateView(guardOf({ limit: 10, perMs: 2 * MINUTE }), state, 0).resetsAt, 120_000)
  })

  test('a shorter period moves a level by less than a unit', () => {
    const daily = guardOf({ limit: 10, perMs: DAY })
    const state = rateTake(daily, rateTake(daily, undefined, 9, 0), 0, DAY / 11)
    assert.equal(rateView(daily, state, DAY / 11).used, 9)
    assert.equal(rateView(guardOf({ limit: 10, perMs: 1000 }), state, Math.ceil(DAY / 11)).used, 9)
  })

  test('a longer fixed window counts what the shorter one inside it counted', () => {
    const state = rateTake(guardOf({ algorithm: 'fixed', perMs: MINUTE }), undefined, 7, 90_000)
    assert.deepEqual(rateView(guardOf({ algorithm: 'fixed', perMs: DAY }), state, 90_000), {
      used: 7,
      available: 3,
      resetsAt: DAY,
    })
  })

  test('another algorithm takes over what counts, and lets go of it', () => {
    const algorithms = ['gcra', 'sliding', 'fixed'] as const
    for (const before of algorithms)
      for (const now of algorithms) {
        const guard = guardOf({ algorithm: now })
        const state = rateTake(guardOf({ algorithm: before }), undefined, 7, 1000)
        assert.equal(rateView(guard, state, 1000).used, 7, `${before} to ${now}`)
        const next = rateTake(guard, state, 2, 1000)
        assert.equal(rateView(guard, next, 1000).used, 9)
        assert.equal(rateView(guard, rateGiveBack(guard, state, 3, 1000, 1000), 1000).used, 4)
        assert.ok(rateIsIdle(guard, state, 1000 + MINUTE) && rateIsIdle(guard, next, 1000 + MINUTE))
      }
  })
})
