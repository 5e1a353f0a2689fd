/** A slice of real traffic through the whole engine: the numbers agree with each other, and with the books. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { after, before, describe, test } from 'node:test'
import { ROOT, sluice, temporary } from '../../test/process.ts'
import type { ReplayReport } from './replay/report.ts'

const TRACE = join(ROOT, 'examples/data/azure-llm-code.csv.gz')
const { folder, remove } = temporary()
const path = join(folder, 'replay.db')
const store = ['--store', `sqlite:${path}`]
const base = ['replay', TRACE, '--policy', join(ROOT, 'examples/codex-and-sora.yaml'), '--accounts', '5']
const args = [...base, '--plan', 'free:2,plus:1', '--limit', '200', '--audit', '--json']
after(remove)

async function reported(more: readonly string[]): Promise<ReplayReport> {
  const { code, stdout, stderr } = await sluice([...args, ...more])
  assert.equal(code, 0, stderr)
  return JSON.parse(stdout)
}
const sum = (values: readonly (number | string)[]): number =>
  values.reduce<number>((total, one) => total + Number(one), 0)
const near = (a: number, b: number): boolean => Math.abs(a - b) < 1e-6

describe('a replay', () => {
  let report: ReplayReport
  before(async () => {
    report = await reported([...store, '--report', join(folder, 'report.json')])
  })

  test('every request ends in one outcome, or in an error', () => {
    assert.equal(report.requests, 200)
    assert.equal(
      sum(report.outcomes.map(({ requests }) => requests)) + sum(Object.values(report.errors)),
      200,
    )
    assert.deepEqual(report.errors, {})
  })
  test('every admitted request is settled, and costs add up over sources and over the books', async () => {
    const admitted = sum(
      report.outcomes.filter(({ outcome }) => outcome === 'allow').map(({ requests }) => requests),
    )
    assert.ok(admitted > 100)
    assert.equal(report.estimates.settled, admitted)
    assert.ok(near(sum(report.sources.map(({ charged }) => charged)), Number(report.charged)))
    let booked = 0
    let holds = 0
    const { items } = JSON.parse((await sluice(['account', 'list', '--json', ...store])).stdout)
    for (const { id, open_holds } of items) {
      holds += open_holds
      const found = await sluice(['account', 'usage', id, '--from', '2023-01-01', '--json', ...store])
      booked += sum(JSON.parse(found.stdout).map(({ charged }: { charged: string }) => charged))
    }
    assert.ok(near(booked, Number(report.charged)), `${booked} ${report.charged}`)
    assert.equal(holds, 0)
  })
  test('the books are clean, also for an audit of its own', async () => {
    assert.equal(report.audit?.disagreements, 0)
    const { code, stdout } = await sluice(['audit', ...store])
    assert.deepEqual([code, /^Nothing disagrees: /.test(stdout)], [0, true], stdout)
  })
  test('the report is written as it is printed', () => {
    assert.deepEqual(JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8')), report)
  })
  test('what it says to look at can be explained', async () => {
    const [pointer] = Object.values(report.look_at.refused)
    const { stdout } = await sluice(['explain', pointer?.account ?? '', pointer?.request ?? '', ...store])
    assert.match(stdout, /State +refused/)
  })
  test('the same seed gives the same outcomes and costs, another one others', async () => {
    const told = ({ outcomes, sources, waits }: ReplayReport): unknown => ({ outcomes, sources, waits })
    const again = await reported(['--concurrency', '3'])
    assert.deepEqual(told(again), told(report))
    assert.notDeepEqual(told(await reported(['--seed', '2'])), told(report))
  })
  test('a store that is there already is refused', async () => {
    const { code, stderr } = await sluice([...args, ...store])
    assert.equal(code, 2)
    assert.match(stderr, /begins empty/)
  })
  test('faster than real time everything is settled too', async () => {
    const { stdout, stderr } = await sluice([...base, '--limit', '40', '--speed', '60x', '--json'])
    const fast: ReplayReport = JSON.parse(stdout || `"${stderr}"`)
    assert.equal(sum(fast.outcomes.map(({ requests }) => requests)), 40)
    assert.ok(fast.setup.time.includes('60 times'))
  })
})

describe('an audit from checkpoints', () => {
  const audited = async (...flags: string[]) =>
    JSON.parse((await sluice(['audit', ...store, '--json', ...flags])).stdout)

  test('begins where the last one wrote them, and reads less', async () => {
    const first = await audited('--from-checkpoints', '--write-checkpoints')
    assert.deepEqual([first.clean, first.checkpoints.resumed], [true, 0])
    assert.equal(first.checkpoints.written, first.accounts - 1, 'each account but @system')
    const second = await audited('--from-checkpoints')
    assert.deepEqual([second.clean, second.checkpoints.resumed], [true, first.checkpoints.written])
    assert.ok(second.entries < first.entries / 2, `${second.entries} of ${first.entries}`)
    const { stdout } = await sluice(['audit', ...store, '--from-checkpoints'])
    assert.match(stdout, /^Nothing disagrees: .* accounts, \d of them from a checkpoint on in/m)
  })
  test('a whole audit agrees with them', async () => {
    const whole = await audited()
    assert.deepEqual([whole.clean, whole.checkpoints], [true, { resumed: 0, written: 0 }])
  })
})

describe('an audit of damaged books', () => {
  const heads = join(folder, 'heads.json')

  test('heads are written while all is well, and compared', async () => {
    assert.equal((await sluice(['audit', ...store, '--write-heads', heads])).code, 0)
    assert.equal((await sluice(['audit', ...store, '--heads', heads])).code, 0)
    writeFileSync(join(folder, 'no-heads.json'), '[1]')
    assert.equal((await sluice(['audit', ...store, '--heads', join(folder, 'no-heads.json')])).code, 2)
  })
  test('a changed amount ends with 1, names account and entry, and keeps the heads as they were', async () => {
    const kept = readFileSync(heads, 'utf8')
    const db = new DatabaseSync(path)
    const { id } =
      db.prepare('select id from journal where body like \'%"cost"%\' order by id desc limit 1').get() ?? {}
    db.prepare('update journal set body = replace(body, \'"cost"\', \'"c0st"\') where id = ?').run(
      id as number,
    )
    db.close()
    const { code, stdout, stderr } = await sluice([
      'audit',
      ...store,
      '--heads',
      heads,
      '--write-heads',
      heads,
    ])
    assert.equal(code, 1, stderr)
    assert.match(stdout, /account acct-\d, entry acct-\d\/\d+/)
    assert.match(stderr, /was not written/)
    assert.equal(readFileSync(heads, 'utf8'), kept)
    const told = JSON.parse((await sluice(['audit', ...store, '--json'])).stdout)
    assert.deepEqual([told.clean, told.found.length > 0], [false, true])
  })
})
