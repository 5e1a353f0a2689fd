/** The parts of a replay: reading a trace, giving requests to accounts, guessing, and keeping time. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { temporary } from '../../../test/process.ts'
import { createRandom, createZipf } from './assign.ts'
import { mappingOf } from './columns.ts'
import { createEstimator } from './estimate.ts'
import { createAgenda, fullSpeed, type Happening } from './schedule.ts'
import { percentile } from './tally.ts'
import { openTrace, type TraceRow } from './trace.ts'

const { folder, remove } = temporary()
after(remove)
const START = Date.UTC(2026, 0, 5)
let files = 0

async function read(content: string | Buffer, options: object = {}): Promise<TraceRow[]> {
  files += 1
  const path = join(folder, `trace-${files}.csv`)
  writeFileSync(path, content)
  const trace = await openTrace(path, { startAt: START, limit: 1e9, ...options })
  const rows: TraceRow[] = []
  for (let next = await trace.rows.next(); !next.done; next = await trace.rows.next()) rows.push(next.value)
  trace.close()
  return rows
}

describe('a trace', () => {
  test('columns are known from the headers of published traces', () => {
    const named = (header: string) => mappingOf(header.split(','), {})
    assert.equal(named('TIMESTAMP,ContextTokens,GeneratedTokens').name, 'azure-llm')
    assert.equal(named('t_seconds,client,input_tokens,output_tokens,reason_ratio').client, 'client')
    const images = named('t_seconds,client,text_tokens,image_tokens,image_count,output_tokens')
    assert.deepEqual(images.quantities.input_tokens, ['text_tokens', 'image_tokens'])
  })
  test('columns that nobody knows are refused with what there is', () => {
    assert.throws(() => mappingOf(['a', 'b'], {}), /none that is known/)
    assert.throws(() => mappingOf(['a', 'b'], { time: 'a', quantity: { output_tokens: 'c' } }), /no column c/)
  })

  const instants: readonly [text: string, at: string][] = [
    ['2023-11-16 18:17:03.9799600', '2023-11-16T18:17:03.979Z'],
    ['2024-05-10 00:00:00.009930+00:00', '2024-05-10T00:00:00.009Z'],
    ['2024-05-10T02:00:00+02:00', '2024-05-10T00:00:00.000Z'],
    ['1700000000', '2023-11-14T22:13:20.000Z'],
    ['1700000000123', '2023-11-14T22:13:20.123Z'],
    ['1.5', '2026-01-05T00:00:01.500Z'],
  ]
  for (const [text, at] of instants) {
    test(`${text} is ${at}`, async () => {
      const [row] = await read(`TIMESTAMP,ContextTokens,GeneratedTokens\n${text},1,2\n`)
      assert.equal(new Date(row?.at ?? 0).toISOString(), at)
    })
  }

  test('plain and gzip are the same, quotes and line ends too', async () => {
    const text = 't,who,in,out\r\n"0.5",ada,3,4\r\n\r\n1,"bo",5,6\r\n'
    const options = { time: 't', client: 'who', quantity: { input_tokens: 'in+out' } }
    const rows = await read(text, options)
    assert.deepEqual(
      rows.map(({ at, client, quantities }) => [at - START, client, quantities]),
      [
        [500, 'ada', { input_tokens: 7 }],
        [1000, 'bo', { input_tokens: 11 }],
      ],
    )
    assert.deepEqual(await read(gzipSync(text), options), rows)
  })
  test('a row that comes too early is taken at the instant of the one before it', async () => {
    const rows = await read('t_seconds,client,input_tokens,output_tokens\n5,a,1,1\n3,a,1,1\n')
    assert.deepEqual(
      rows.map(({ at }) => at - START),
      [5000, 5000],
    )
  })
  for (const [row, says] of [
    ['x,a,1,1', /:2: t_seconds is "x"/],
    ['1,a,-1,1', /input_tokens is "-1"/],
    ['1,a,1', /output_tokens is ""/],
    ['1,a,NaN,1', /"NaN"/],
    ['1,"a b",1,1', /client is "a b"/],
  ] as const) {
    test(`the row ${row} is refused with its line`, () =>
      assert.rejects(read(`t_seconds,client,input_tokens,output_tokens\n${row}\n`), says))
  }
  test('a file that is not there is an error', () =>
    assert.rejects(openTrace(join(folder, 'none.csv'), { startAt: START, limit: 1 }), { code: 'ENOENT' }))
  test('a damaged archive is an error, and not the end of the trace', async () => {
    const whole = gzipSync(`t_seconds,client,input_tokens,output_tokens\n${'1,a,1,1\n'.repeat(20_000)}`)
    await assert.rejects(read(whole.subarray(0, whole.length - 20)))
  })
})

describe('who asks', () => {
  test('the same seed draws the same numbers, another one others, all in [0, 1)', () => {
    const draw = (seed: number) => Array.from({ length: 1000 }, createRandom(seed))
    assert.deepEqual(draw(7), draw(7))
    assert.notDeepEqual(draw(7), draw(8))
    assert.ok(draw(7).every((value) => value >= 0 && value < 1))
  })
  test('account k is drawn in proportion to 1/k', () => {
    const pick = createZipf(4, createRandom(1))
    const counts = [0, 0, 0, 0]
    for (let n = 0; n < 25_000; n += 1) counts[pick()]! += 1
    // 12 : 6 : 4 : 3 of 25; three standard deviations are at most 240.
    for (const [rank, wanted] of [12_000, 6000, 4000, 3000].entries()) {
      assert.ok(Math.abs((counts[rank] ?? 0) - wanted) < 240, `${counts}`)
    }
  })
})

describe('estimates', () => {
  test('a running percentile is that of the last thousand', () => {
    const seen: number[] = []
    const estimator = createEstimator('p90', 500)
    const random = createRandom(3)
    for (let n = 0; n < 3000; n += 1) {
      const last = seen.slice(-1000).sort((a, b) => a - b)
      assert.equal(estimator.guess(0), last.length < 20 ? 500 : last[Math.floor(0.9 * last.length)])
      const value = Math.floor(random() * 50)
      seen.push(value)
      estimator.learn(value)
    }
  })
  test('an oracle and a fixed number are what they say, and nothing else is a rule', () => {
    assert.equal(createEstimator('exact').guess(42), 42)
    assert.equal(createEstimator('800').guess(42), 800)
    assert.throws(() => createEstimator('average'), /no rule/)
  })
  test('percentiles are values that are there', () => {
    assert.deepEqual(
      [0.5, 0.99, 1].map((part) => percentile([4, 1, 3, 2], part)),
      [2, 4, 4],
    )
    assert.equal(percentile([], 0.5), undefined)
  })
})

describe('time', () => {
  test('an agenda gives what is earliest, and at one instant keeps to the order', () => {
    const agenda = createAgenda()
    const random = createRandom(5)
    const all = Array.from({ length: 500 }, (_, order) => ({
      at: Math.floor(random() * 20),
      order,
      run: async () => {},
    }))
    for (const one of all) agenda.add(one)
    const taken = Array.from({ length: 500 }, () => agenda.take() as Happening)
    assert.deepEqual(
      taken,
      all.toSorted((a, b) => a.at - b.at || a.order - b.order),
    )
    assert.equal(agenda.take(), undefined)
  })
  test('at full speed everything happens within one step of its instant, in order, also what is added meanwhile', async () => {
    const timeline = fullSpeed({ startAt: 0, concurrency: 8, stepMs: 100 })
    const agenda = createAgenda()
    const seen: [number, number][] = []
    const at = (instant: number, order: number): Happening => ({
      at: instant,
      order,
      run: async () => {
        seen.push([instant, timeline.now() - instant])
        if (instant < 1000) agenda.add(at(instant + 330, order + 10))
      },
    })
    const arrivals = [5, 90, 500].map(at)
    await timeline.run(agenda, async () => arrivals.shift())
    assert.equal(seen.length, 5 + 4 + 3)
    assert.ok(
      seen.every(([, late]) => late >= 0 && late < 100),
      JSON.stringify(seen),
    )
  })
})
