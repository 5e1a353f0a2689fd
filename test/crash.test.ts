import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import type { AccountView, ChargeAnswer, DecisionAnswer, Explanation } from '../src/wire.ts'
import { ADMIN_KEY, type RunningServer, startServer, tempFolder } from './server.ts'

const ROUNDS = Number(process.env.SLUICE_TIMES ?? (process.env.SLUICE_LONG === '1' ? 100 : 10))
const CALLERS = 24
const ACCOUNTS = 4
const MAIN = new URL('../src/cli/main.ts', import.meta.url).pathname
const POLICY = new URL('./crash-policy.yaml', import.meta.url).pathname
const SEED = Number(process.env.SLUICE_SEED ?? Date.now() % 100_000)

/** What callers were told, and so must be there after any crash. */
interface Told {
  readonly account: string
  readonly requestId: string
  reserved?: DecisionAnswer
  settled?: ChargeAnswer
}

test(`a server killed ${ROUNDS} times under load keeps all it has answered, and its books (seed ${SEED})`, async (t) => {
  const folder = tempFolder()
  t.after(() => folder.remove())
  const store = `sqlite:${join(folder.path, 'sluice.db')}`
  const args = ['--store', store, '--policy', POLICY]
  const told: Told[] = []
  const random = generator(SEED)
  let next = 0

  for (let round = 0; round < ROUNDS; round++) {
    const server = await startServer(args)
    t.after(() => server.kill('SIGKILL'))
    if (round === 0) await prepare(server)
    // Everything told before the last crash is there again, and asking again changes nothing.
    await Promise.all(sample(told, 40, random).map((one) => stillThere(server, one)))
    const stop = new AbortController()
    const load = Array.from({ length: CALLERS }, () => caller(server, told, stop.signal, () => next++))
    await new Promise((resolve) => setTimeout(resolve, 50 + random() * 300))
    await server.kill('SIGKILL')
    stop.abort()
    await Promise.all(load)
  }
  assert.ok(
    told.filter((one) => one.settled !== undefined).length > ROUNDS,
    'the load got through between the crashes',
  )

  const audit = await promisify(execFile)(process.execPath, [MAIN, 'audit', '--store', store, '--json'])
  assert.equal(JSON.parse(audit.stdout).disagreements, 0, audit.stdout)

  const last = await startServer(args)
  t.after(() => last.kill('SIGKILL'))
  for (const one of told) await stillThere(last, one)
  await holdsRunOff(last)
  await last.kill('SIGTERM')
  const after = await promisify(execFile)(process.execPath, [MAIN, 'audit', '--store', store, '--json'])
  assert.equal(JSON.parse(after.stdout).disagreements, 0, after.stdout)
})

async function prepare(server: RunningServer): Promise<void> {
  for (let number = 0; number < ACCOUNTS; number++) {
    await server.call('POST', '/v1/accounts', { id: `a${number}`, plan: 'load' })
    await server.call('POST', `/v1/accounts/a${number}/grants`, {
      id: 'g1',
      kind: 'purchased',
      amount: '100000',
    })
  }
}

/** Reserves and settles until the server is gone; a call that was cut off has told nothing. */
async function caller(
  server: RunningServer,
  told: Told[],
  signal: AbortSignal,
  number: () => number,
): Promise<void> {
  while (!signal.aborted) {
    const place = number()
    const one: Told = { account: `a${place % ACCOUNTS}`, requestId: `r${place}` }
    try {
      const reserved = await server.call('POST', '/v1/reserve', reserveOf(one))
      assert.equal(reserved.status, 200)
      one.reserved = reserved.body as DecisionAnswer
      told.push(one)
      // Some holds are left open on purpose: they must run off by themselves.
      if (place % 5 === 0) continue
      const settled = await server.call('POST', '/v1/settle', settleOf(one, place))
      assert.equal(settled.status, 200)
      one.settled = settled.body as ChargeAnswer
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error
      return
    }
  }
}

const reserveOf = ({ account, requestId }: Told) => ({
  request_id: requestId,
  account,
  subject: { user: `u${requestId.at(-1)}` },
  feature: 'work',
  estimate: { tokens: 3 },
})
const settleOf = ({ account, requestId }: Told, place: number) => ({
  request_id: requestId,
  account,
  usage: { tokens: (place % 7) + 1 },
})

/** The same call gets the same answer, but for what tells of now. */
async function stillThere(server: RunningServer, one: Told): Promise<void> {
  const again = (await server.call('POST', '/v1/reserve', reserveOf(one))).body as DecisionAnswer
  const { state: _, replayed, ...answer } = again
  const { state: __, replayed: ___, ...first } = one.reserved as DecisionAnswer
  assert.equal(replayed, true, `reserve ${one.requestId} was forgotten`)
  assert.deepEqual(answer, first)
  if (one.settled === undefined) return
  const settled = (await server.call('POST', '/v1/settle', settleOf(one, Number(one.requestId.slice(1)))))
    .body as ChargeAnswer
  assert.deepEqual(settled, { ...one.settled, replayed: true })
  const story = (await server.call('GET', `/v1/accounts/${one.account}/requests/${one.requestId}`))
    .body as Explanation
  assert.equal(story.charged, one.settled.charged)
}

async function holdsRunOff(server: RunningServer): Promise<void> {
  // Holds live three seconds in this policy; the sweep closes each within one more. The bound only ends a failing test.
  for (let tries = 0; tries < 200; tries++) {
    const accounts = await Promise.all(
      Array.from({ length: ACCOUNTS }, (_, number) => server.call('GET', `/v1/accounts/a${number}`)),
    )
    const views = accounts.map(({ body }) => body as AccountView)
    const closed = views.every((view) => view.open_holds === 0 && view.credits.held === '0')
    // What is read has been brought to now; that the store has no open hold any more is the sweep's work alone.
    if (closed && (await openHolds(server)) === 0) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  assert.fail('some holds did not run off')
}

async function openHolds(server: RunningServer): Promise<number> {
  const response = await fetch(`${server.url}/metrics`, { headers: { authorization: `Bearer ${ADMIN_KEY}` } })
  const [, count] = /^sluice_open_holds (\d+)$/m.exec(await response.text()) ?? []
  assert.ok(count !== undefined, 'the metrics tell of open holds')
  return Number(count)
}

/** Mulberry32, public domain, by Tommy Ettinger: enough to vary when the server dies. */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

function sample<T>(items: readonly T[], count: number, random: () => number): T[] {
  return Array.from(
    { length: Math.min(count, items.length) },
    () => items[Math.floor(random() * items.length)] as T,
  )
}
