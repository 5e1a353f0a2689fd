import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import type { Millis } from '../units.ts'
import type { WindowState } from './cells.ts'
import type { CalendarUnit, Weekday, WindowRule } from './plan.ts'
import { type Bounds, boundsAt, type Frame, isTimeZone, windowAt } from './windows.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

const ms = (text: string): Millis => Temporal.Instant.from(text).epochMilliseconds
const told = (at: Millis, zone: string) =>
  Temporal.Instant.fromEpochMilliseconds(at)
    .toZonedDateTimeISO(zone)
    .toString({ timeZoneName: 'never', smallestUnit: at % MINUTE === 0 ? 'minute' : 'second' })

const frameOf = (zone: string, anchor?: string): Frame => ({
  zone,
  anchorAt: anchor === undefined ? 0 : ms(anchor),
  anchored: anchor !== undefined,
})
const calendar = (unit: CalendarUnit, weekStart: Weekday = 1): WindowRule => ({
  anchor: 'calendar',
  unit,
  weekStart,
})
const account = (unit: CalendarUnit): WindowRule => ({ anchor: 'account', period: { unit } })

/** As computed, not as remembered: another window is asked for first. */
function afresh(rule: WindowRule, at: Millis, frame: Frame): Bounds {
  boundsAt(rule, at + 400 * DAY, frame)
  return boundsAt(rule, at, frame)
}

/** The windows that follow each other from the one `at` lies in, as their boundaries. */
function boundaries(rule: WindowRule, at: string, count: number, frame: Frame): string[] {
  let bounds = afresh(rule, ms(at), frame)
  const found = [told(bounds.startAt, frame.zone)]
  while (found.length < count) {
    found.push(told(bounds.endAt, frame.zone))
    const next = afresh(rule, bounds.endAt, frame)
    assert.equal(next.startAt, bounds.endAt)
    bounds = next
  }
  return found
}

describe('calendar windows', () => {
  // biome-ignore format: a row a line
  const rows: [what: string, unit: CalendarUnit, zone: string, from: string, boundaries: string][] = [
    // An hour that does not exist has no window; the one after it starts at the jump.
    ['spring forward, hours', 'hour', 'Europe/Berlin', '2025-03-30T00:30Z', '2025-03-30T01:00+01:00 2025-03-30T03:00+02:00 2025-03-30T04:00+02:00'],
    ['spring forward, day of 23 hours', 'day', 'Europe/Berlin', '2025-03-30T12:00Z', '2025-03-30T00:00+01:00 2025-03-31T00:00+02:00'],
    // The hour that comes twice is two windows.
    ['fall back, hours', 'hour', 'Europe/Berlin', '2025-10-25T23:30Z', '2025-10-26T01:00+02:00 2025-10-26T02:00+02:00 2025-10-26T02:00+01:00 2025-10-26T03:00+01:00'],
    ['fall back, day of 25 hours', 'day', 'Europe/Berlin', '2025-10-26T12:00Z', '2025-10-26T00:00+02:00 2025-10-27T00:00+01:00'],
    ['spring forward, hours', 'hour', 'America/New_York', '2025-03-09T06:30Z', '2025-03-09T01:00-05:00 2025-03-09T03:00-04:00 2025-03-09T04:00-04:00'],
    ['fall back, hours', 'hour', 'America/New_York', '2025-11-02T05:30Z', '2025-11-02T01:00-04:00 2025-11-02T01:00-05:00 2025-11-02T02:00-05:00'],
    // Days without a midnight, and a midnight that is never reached because the clock goes back at it.
    ['no midnight', 'day', 'America/Sao_Paulo', '2018-11-03T12:00Z', '2018-11-03T00:00-03:00 2018-11-04T01:00-02:00 2018-11-05T00:00-02:00'],
    ['23:00 comes twice', 'day', 'America/Sao_Paulo', '2018-02-17T12:00Z', '2018-02-17T00:00-02:00 2018-02-18T00:00-03:00 2018-02-19T00:00-03:00'],
    ['no midnight', 'day', 'Africa/Cairo', '2024-04-25T12:00Z', '2024-04-25T00:00+02:00 2024-04-26T01:00+03:00 2024-04-27T00:00+03:00'],
    ['23:00 comes twice', 'day', 'Africa/Cairo', '2024-10-31T12:00Z', '2024-10-31T00:00+03:00 2024-11-01T00:00+02:00'],
    ['no midnight, hours', 'hour', 'Africa/Cairo', '2024-04-25T21:30Z', '2024-04-25T23:00+02:00 2024-04-26T01:00+03:00 2024-04-26T02:00+03:00'],
    // Midnight comes twice: the day starts the first time.
    ['midnight twice', 'day', 'America/Havana', '2024-11-02T12:00Z', '2024-11-02T00:00-04:00 2024-11-03T00:00-04:00 2024-11-04T00:00-05:00'],
    // At 00:01 back to 23:01 of the day before: the date falls back, the window does not.
    ['the date falls back', 'day', 'America/St_Johns', '2010-11-06T12:00Z', '2010-11-06T00:00-02:30 2010-11-07T00:00-02:30 2010-11-08T00:00-03:30'],
    ['the date falls back, read a second time', 'day', 'America/St_Johns', '2010-11-07T02:45Z', '2010-11-07T00:00-02:30 2010-11-08T00:00-03:30'],
    ['half an hour of daylight saving begins', 'hour', 'Australia/Lord_Howe', '2025-10-04T15:00Z', '2025-10-05T01:00+10:30 2025-10-05T02:30+11:00 2025-10-05T03:00+11:00'],
    ['half an hour of daylight saving ends', 'hour', 'Australia/Lord_Howe', '2025-04-05T14:30Z', '2025-04-06T01:00+11:00 2025-04-06T02:00+10:30 2025-04-06T03:00+10:30'],
    ['quarter hours', 'hour', 'Asia/Kathmandu', '2025-06-01T00:00Z', '2025-06-01T05:00+05:45 2025-06-01T06:00+05:45'],
    ['a quarter hour left out at new year', 'hour', 'Asia/Kathmandu', '1985-12-31T18:00Z', '1985-12-31T23:00+05:30 1986-01-01T00:15+05:45 1986-01-01T01:00+05:45'],
    ['a quarter hour left out at new year', 'month', 'Asia/Kathmandu', '1985-12-20T00:00Z', '1985-12-01T00:00+05:30 1986-01-01T00:15+05:45 1986-02-01T00:00+05:45'],
    ['30 December 2011 does not exist', 'day', 'Pacific/Apia', '2011-12-29T12:00Z', '2011-12-29T00:00-10:00 2011-12-31T00:00+14:00 2012-01-01T00:00+14:00'],
    ['a week of six days', 'week', 'Pacific/Apia', '2011-12-29T12:00Z', '2011-12-26T00:00-10:00 2012-01-02T00:00+14:00'],
    ['a month without its last day', 'month', 'Pacific/Apia', '2011-12-29T12:00Z', '2011-12-01T00:00-10:00 2012-01-01T00:00+14:00'],
    ['a year without its last day', 'month', 'Asia/Manila', '1844-12-30T12:00Z', '1844-12-01T00:00:00-15:56 1845-01-01T00:00:00+08:04'],
    ['leap day', 'day', 'Europe/Berlin', '2024-02-28T12:00Z', '2024-02-28T00:00+01:00 2024-02-29T00:00+01:00 2024-03-01T00:00+01:00'],
    ['leap and common Februaries', 'month', 'UTC', '2024-02-29T23:59:59Z', '2024-02-01T00:00+00:00 2024-03-01T00:00+00:00'],
    ['leap and common Februaries', 'month', 'UTC', '2100-02-28T23:59:59Z', '2100-02-01T00:00+00:00 2100-03-01T00:00+00:00'],
    ['year end', 'month', 'Asia/Kathmandu', '2025-12-31T18:14Z', '2025-12-01T00:00+05:45 2026-01-01T00:00+05:45 2026-02-01T00:00+05:45'],
    ['before the epoch', 'month', 'Europe/Berlin', '1969-12-31T22:59Z', '1969-12-01T00:00+01:00 1970-01-01T00:00+01:00'],
    ['a week over the year end', 'week', 'Europe/Berlin', '2026-01-01T00:00Z', '2025-12-29T00:00+01:00 2026-01-05T00:00+01:00'],
    ['a week with daylight saving in it', 'week', 'Europe/Berlin', '2025-03-30T12:00Z', '2025-03-24T00:00+01:00 2025-03-31T00:00+02:00 2025-04-07T00:00+02:00'],
  ]
  for (const [what, unit, zone, from, expected] of rows) {
    test(`${unit} in ${zone}: ${what}`, () => {
      const wanted = expected.split(' ')
      assert.deepEqual(boundaries(calendar(unit), from, wanted.length, frameOf(zone)), wanted)
    })
  }

  test('a week starts on each of its seven days', () => {
    const starts = ([1, 2, 3, 4, 5, 6, 7] as const).map(
      (day) => boundaries(calendar('week', day), '2026-05-14T12:00Z', 1, frameOf('Europe/Berlin'))[0],
    )
    assert.deepEqual(
      starts.map((start) => start?.slice(0, 10)),
      ['2026-05-11', '2026-05-12', '2026-05-13', '2026-05-14', '2026-05-08', '2026-05-09', '2026-05-10'],
    )
  })
})

/**
 * The same boundaries found by walking: minute by minute, looking only at what the local clock reads. Zones whose offsets are
 * whole minutes since 1970.
 */
describe('a walk past each minute of the local clock', () => {
  // biome-ignore format: a row a line
  const walks: [zone: string, around: string][] = [
    ['Europe/Berlin', '2025-03-30T01:00Z'],
    ['Europe/Berlin', '2025-10-26T01:00Z'],
    ['America/New_York', '2025-03-09T07:00Z'],
    ['America/New_York', '2025-11-02T06:00Z'],
    ['America/Sao_Paulo', '2018-11-04T03:00Z'],
    ['America/Sao_Paulo', '2018-02-18T02:00Z'],
    ['Africa/Cairo', '2024-04-25T22:00Z'],
    ['Africa/Cairo', '2024-10-31T21:00Z'],
    ['Asia/Kathmandu', '1985-12-31T18:30Z'],
    ['Australia/Lord_Howe', '2025-04-05T15:00Z'],
    ['Australia/Lord_Howe', '2025-10-04T15:30Z'],
    ['Pacific/Apia', '2011-12-30T10:00Z'],
    ['Pacific/Kwajalein', '1993-08-21T12:00Z'],
    ['America/St_Johns', '2010-11-07T02:31Z'],
    ['America/St_Johns', '2010-03-14T03:31Z'],
    ['America/Havana', '2024-11-03T05:00Z'],
    ['Asia/Gaza', '2024-10-26T00:00Z'],
    ['Antarctica/Troll', '2025-03-30T01:00Z'],
    ['Africa/Casablanca', '2025-02-23T02:00Z'],
  ]
  const readingAt = (at: Millis, zone: string) =>
    at / MINUTE + Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO(zone).offsetNanoseconds / 6e10

  function walked(unit: 'hour' | 'day', zone: string, fromAt: Millis, toAt: Millis): Millis[] {
    const found: Millis[] = []
    let before = readingAt(fromAt - MINUTE, zone)
    let latest = Math.floor(before / 1440)
    for (let at = fromAt; at < toAt; at += MINUTE) {
      const reading = readingAt(at, zone)
      const hour = reading % 60 === 0 || Math.floor(reading / 60) > Math.floor(before / 60)
      const day = Math.floor(reading / 1440) > latest
      if (unit === 'hour' ? hour : day) found.push(at)
      before = reading
      latest = Math.max(latest, Math.floor(reading / 1440))
    }
    return found
  }

  for (const [zone, around] of walks) {
    test(`${zone} around ${around} has the same hours and days`, () => {
      const fromAt = ms(around) - 30 * HOUR
      const toAt = ms(around) + 54 * HOUR
      for (const unit of ['hour', 'day'] as const) {
        const computed = new Set<Millis>()
        for (let at = fromAt; at < toAt; at += MINUTE) {
          const { startAt } = boundsAt(calendar(unit), at, frameOf(zone))
          if (startAt >= fromAt) computed.add(startAt)
        }
        assert.deepEqual([...computed], walked(unit, zone, fromAt, toAt))
      }
    })
  }
})

describe('account windows', () => {
  // biome-ignore format: a row a line
  const rows: [
    what: string,
    unit: CalendarUnit,
    zone: string,
    anchor: string,
    from: string,
    boundaries: string,
  ][] = [
    ['31 January', 'month', 'Europe/Berlin', '2025-01-31T09:00Z', '2025-01-31T09:00Z', '2025-01-31T10:00+01:00 2025-02-28T10:00+01:00 2025-03-31T10:00+02:00 2025-04-30T10:00+02:00 2025-05-31T10:00+02:00'],
    ['31 January in a leap year', 'month', 'UTC', '2024-01-31T00:00Z', '2024-02-15T00:00Z', '2024-01-31T00:00+00:00 2024-02-29T00:00+00:00 2024-03-31T00:00+00:00'],
    ['before the anchor', 'month', 'UTC', '2024-03-31T00:00Z', '2023-11-15T00:00Z', '2023-10-31T00:00+00:00 2023-11-30T00:00+00:00 2023-12-31T00:00+00:00 2024-01-31T00:00+00:00 2024-02-29T00:00+00:00 2024-03-31T00:00+00:00'],
    ['one millisecond before the anchor', 'day', 'UTC', '2024-03-01T12:00Z', '2024-03-01T11:59:59.999Z', '2024-02-29T12:00+00:00 2024-03-01T12:00+00:00'],
    ['leap day', 'month', 'America/New_York', '2024-02-29T17:00Z', '2025-01-29T17:00Z', '2025-01-29T12:00-05:00 2025-02-28T12:00-05:00 2025-03-29T12:00-04:00'],
    ['the day in the zone, not in UTC', 'month', 'America/New_York', '2025-02-01T04:30Z', '2025-02-01T04:30Z', '2025-01-31T23:30-05:00 2025-02-28T23:30-05:00 2025-03-31T23:30-04:00'],
    ['a time that one day does not have', 'day', 'Europe/Berlin', '2025-01-10T01:15Z', '2025-03-29T12:00Z', '2025-03-29T02:15+01:00 2025-03-30T03:00+02:00 2025-03-31T02:15+02:00'],
    ['a time that one day has twice', 'day', 'Europe/Berlin', '2025-01-10T01:15Z', '2025-10-25T12:00Z', '2025-10-25T02:15+02:00 2025-10-26T02:15+02:00 2025-10-27T02:15+01:00'],
    ['an anchor at the second of them', 'day', 'Europe/Berlin', '2025-10-26T01:15Z', '2025-10-25T12:00Z', '2025-10-25T02:15+02:00 2025-10-26T02:15+01:00 2025-10-27T02:15+01:00'],
    ['a day that does not exist', 'day', 'Pacific/Apia', '2011-12-01T22:00Z', '2011-12-30T00:00Z', '2011-12-29T12:00-10:00 2011-12-31T00:00+14:00 2011-12-31T12:00+14:00'],
    ['weeks keep their local time', 'week', 'Europe/Berlin', '2025-03-19T17:00Z', '2025-03-27T00:00Z', '2025-03-26T18:00+01:00 2025-04-02T18:00+02:00'],
    ['hours are real time', 'hour', 'Australia/Lord_Howe', '2025-01-01T00:10Z', '2025-04-05T14:15Z', '2025-04-06T01:10+11:00 2025-04-06T01:40+10:30 2025-04-06T02:40+10:30'],
    ['year end', 'month', 'UTC', '2025-10-31T00:00Z', '2025-12-31T00:00Z', '2025-12-31T00:00+00:00 2026-01-31T00:00+00:00 2026-02-28T00:00+00:00'],
  ]
  for (const [what, unit, zone, anchor, from, expected] of rows) {
    test(`${unit} in ${zone}: ${what}`, () => {
      const wanted = expected.split(' ')
      assert.deepEqual(boundaries(account(unit), from, wanted.length, frameOf(zone, anchor)), wanted)
    })
  }

  test('a fixed length is counted in real time, before the anchor too', () => {
    const rule: WindowRule = { anchor: 'account', period: { lengthMs: 30 * DAY } }
    const frame = frameOf('Europe/Berlin', '2025-03-01T00:00Z')
    assert.deepEqual(boundsAt(rule, frame.anchorAt, frame), {
      startAt: frame.anchorAt,
      endAt: frame.anchorAt + 30 * DAY,
    })
    assert.deepEqual(boundsAt(rule, frame.anchorAt - 1, frame), {
      startAt: frame.anchorAt - 30 * DAY,
      endAt: frame.anchorAt,
    })
    assert.equal(boundsAt(rule, frame.anchorAt + 61 * DAY, frame).startAt, frame.anchorAt + 60 * DAY)
  })

  test('calendar_or_account follows the anchor only where one was given', () => {
    const rule: WindowRule = { anchor: 'calendar_or_account', unit: 'month', weekStart: 1 }
    const at = ms('2025-03-15T12:00Z')
    const given = frameOf('Europe/Berlin', '2025-01-31T09:00Z')
    assert.deepEqual(boundsAt(rule, at, given), boundsAt(account('month'), at, given))
    const absent = { ...given, anchored: false }
    assert.deepEqual(boundsAt(rule, at, absent), boundsAt(calendar('month'), at, absent))
  })
})

describe('generated windows', () => {
  // biome-ignore format: a list of names
  const zones = [
    'UTC', 'Europe/Berlin', 'America/New_York', 'America/Sao_Paulo', 'Africa/Cairo', 'Asia/Kathmandu',
    'Australia/Lord_Howe', 'Pacific/Apia', 'America/St_Johns', 'America/Havana', 'Pacific/Kwajalein',
    'Africa/Casablanca', 'Antarctica/Troll', 'Europe/Dublin', 'Asia/Tehran', 'Africa/Monrovia',
    'Asia/Pyongyang', 'America/Caracas',
  ]
  const instant = fc.integer({ min: ms('1960-01-01T00:00Z'), max: ms('2045-01-01T00:00Z') })
  const zone = fc.constantFrom(...zones)
  /** Any instant, or one within three hours of a jump of the zone's clock. */
  const place = fc
    .tuple(zone, instant, fc.option(fc.integer({ min: -3 * HOUR, max: 3 * HOUR })))
    .map(([name, at, near]) => {
      const jump = Temporal.Instant.fromEpochMilliseconds(at)
        .toZonedDateTimeISO(name)
        .getTimeZoneTransition('previous')
      return { zone: name, at: near === null || jump === null ? at : jump.epochMilliseconds + near }
    })
  const unit = fc.constantFrom<CalendarUnit>('hour', 'day', 'week', 'month')
  const weekStart = fc.integer({ min: 1, max: 7 }) as fc.Arbitrary<Weekday>
  const rule = fc.oneof<fc.Arbitrary<WindowRule>[]>(
    fc.record({ anchor: fc.constant('calendar' as const), unit, weekStart }),
    fc.record({ anchor: fc.constant('calendar_or_account' as const), unit, weekStart }),
    unit.map(account),
    fc.integer({ min: 1, max: 400 * DAY }).map((lengthMs) => ({ anchor: 'account', period: { lengthMs } })),
  )

  test('tile the time line: each instant lies in one window, which meets the ones before and after it', () => {
    fc.assert(
      fc.property(rule, place, instant, fc.boolean(), (of, { zone, at }, anchorAt, anchored) => {
        const frame = { zone, anchorAt, anchored }
        const bounds = afresh(of, at, frame)
        assert.ok(bounds.startAt <= at && at < bounds.endAt)
        assert.deepEqual(afresh(of, bounds.startAt, frame), bounds)
        assert.deepEqual(afresh(of, bounds.endAt - 1, frame), bounds)
        assert.equal(afresh(of, bounds.endAt, frame).startAt, bounds.endAt)
        assert.equal(afresh(of, bounds.startAt - 1, frame).endAt, bounds.startAt)
        assert.ok(Number.isSafeInteger(bounds.startAt) && Number.isSafeInteger(bounds.endAt))
      }),
      { numRuns: 1000 },
    )
  })

  test('answer the same from memory as computed', () => {
    const asked = fc.array(fc.tuple(rule, place), { minLength: 2, maxLength: 10 })
    fc.assert(
      fc.property(asked, (questions) => {
        const ask = ([of, { zone, at }]: [WindowRule, { zone: string; at: Millis }]) =>
          boundsAt(of, at, { zone, anchorAt: 86_400_000, anchored: true })
        assert.deepEqual(questions.map(ask), questions.toReversed().map(ask).toReversed())
      }),
      { numRuns: 200 },
    )
  })

  test('keep the local time of the anchor, or start at the end of the jump that left it out', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('day' as const, 'month' as const),
        place,
        instant,
        (of, { zone, at }, anchorAt) => {
          const { startAt } = afresh(account(of), at, { zone, anchorAt, anchored: true })
          const anchor = Temporal.Instant.fromEpochMilliseconds(anchorAt).toZonedDateTimeISO(zone)
          const start = Temporal.Instant.fromEpochMilliseconds(startAt).toZonedDateTimeISO(zone)
          if (start.toPlainTime().equals(anchor.toPlainTime())) return
          const before = Temporal.Instant.fromEpochMilliseconds(startAt - 1).toZonedDateTimeISO(zone)
          assert.ok(start.offsetNanoseconds > before.offsetNanoseconds, `${start} for ${anchor}`)
        },
      ),
      { numRuns: 500 },
    )
  })

  test('are remembered only up to a bound, and are right beyond it', () => {
    const at = ms('2025-06-15T12:00Z')
    for (let i = 0; i < 20_100; i += 1)
      boundsAt(account('day'), at, { zone: 'UTC', anchorAt: i, anchored: true })
    const bounds = boundsAt(account('day'), at, { zone: 'UTC', anchorAt: 7, anchored: true })
    assert.deepEqual(bounds, {
      startAt: ms('2025-06-15T00:00:00.007Z'),
      endAt: ms('2025-06-16T00:00:00.007Z'),
    })
  })
})

describe('windowAt', () => {
  const rule: WindowRule = { anchor: 'first_use', lengthMs: 5 * HOUR }
  const frame = frameOf('Europe/Berlin')
  const state = (startAt: Millis, endAt: Millis): WindowState =>
    Object.freeze({ startAt, endAt, used: 7, held: 3 })

  test('a first_use window opens at now and runs its length', () => {
    assert.deepEqual(windowAt(undefined, rule, 1000, frame), {
      startAt: 1000,
      endAt: 1000 + 5 * HOUR,
      used: 0,
      held: 0,
    })
  })

  test('a live window is the very same object up to its last millisecond', () => {
    const live = state(1000, 2000)
    assert.equal(windowAt(live, rule, 1000, frame), live)
    assert.equal(windowAt(live, rule, 1999, frame), live)
  })

  test('at its end a fresh one opens, and the old one is left as it was', () => {
    assert.deepEqual(windowAt(state(1000, 2000), rule, 2000, frame), {
      startAt: 2000,
      endAt: 2000 + 5 * HOUR,
      used: 0,
      held: 0,
    })
  })

  test('a new length, anchor or zone begins when the present window ends', () => {
    const month = state(ms('2025-03-01T00:00Z'), ms('2025-04-01T00:00Z'))
    for (const other of [rule, calendar('day'), account('week')])
      assert.equal(windowAt(month, other, ms('2025-03-20T00:00Z'), frame), month)
  })

  test('after a change a fresh window never reaches back into the one before it', () => {
    const berlinDay = state(ms('2025-06-14T22:00Z'), ms('2025-06-15T22:00Z'))
    const moved = windowAt(berlinDay, calendar('day'), ms('2025-06-15T23:00Z'), frameOf('America/New_York'))
    assert.deepEqual(moved, {
      startAt: ms('2025-06-15T22:00Z'),
      endAt: ms('2025-06-16T04:00Z'),
      used: 0,
      held: 0,
    })
  })

  test('two instances of a window never share their start, so that a hold knows its own', () => {
    const fiveHours = state(ms('2025-06-14T22:00Z'), ms('2025-06-15T03:00Z'))
    const day = windowAt(fiveHours, calendar('day'), ms('2025-06-15T10:00Z'), frame)
    assert.equal(day.startAt, fiveHours.endAt)
    assert.equal(day.endAt, ms('2025-06-15T22:00Z'))
  })

  test('a window that starts after now, from a clock since repaired, is not live', () => {
    assert.deepEqual(windowAt(state(5000, 6000), rule, 1000, frame), {
      startAt: 1000,
      endAt: 1000 + 5 * HOUR,
      used: 0,
      held: 0,
    })
  })
})

describe('isTimeZone', () => {
  const rows: [name: string, spelled: string | undefined][] = [
    ['Europe/Berlin', 'Europe/Berlin'],
    ['europe/berlin', 'Europe/Berlin'],
    ['AMERICA/ARGENTINA/BUENOS_AIRES', 'America/Argentina/Buenos_Aires'],
    ['utc', 'UTC'],
    ['Etc/GMT+5', 'Etc/GMT+5'],
    ['Asia/Kolkata', 'Asia/Kolkata'],
    ['+05:30', undefined],
    ['-03', undefined],
    ['Z', undefined],
    ['UTC+1', undefined],
    ['Europe/Atlantis', undefined],
    ['PST', undefined],
    ['', undefined],
    [' Europe/Berlin', undefined],
    ['2025-01-01T00:00Z[Europe/Berlin]', undefined],
    ['x'.repeat(10_000), undefined],
  ]
  for (const [name, spelled] of rows) {
    test(`${JSON.stringify(name.slice(0, 40))} is ${spelled ?? 'refused'}`, () =>
      assert.equal(isTimeZone(name), spelled))
  }
})
