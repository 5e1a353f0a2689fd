import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ALL_CREDITS, cu, during, MINUTE, type Scene, scene } from '../../test/scene.ts'
import { SluiceError } from '../errors.ts'
import type { PlanDocument } from '../policy/schema.ts'
import type { ChargeAnswer, DecisionAnswer, ReleaseAnswer, RequestState } from '../wire.ts'

// The life of a request, on one id. What is not in the table: a call that has been answered is answered again with the
// same value, whatever came between; a request that was reserved ends as `settled`, one that never was as `recorded`.
// biome-ignore format: a row a line
const TABLE = [
  ['state    →', 'none',     'open',      'settled',     'released',    'expired_released', 'expired_charged', 'recorded'],
  ['reserve   ', 'decide',   'first',     'first',       'released',    'first',            'first',           'conflict'],
  ['extend    ', 'unknown',  'decide',    'hold_closed', 'hold_closed', 'hold_closed',      'hold_closed',     'conflict'],
  ['settle    ', 'charge',   'charge',    'conflict',    'charge',      'charge',           'difference',      'conflict'],
  ['release   ', 'remember', 'give back', 'its state',   'its state',   'its state',        'its state',       'its state'],
  ['record    ', 'charge',   'charge',    'conflict',    'charge',      'charge',           'difference',      'conflict'],
] as const

const CALLS = ['reserve', 'extend', 'settle', 'release', 'record'] as const
type Call = (typeof CALLS)[number]
/** `expire` is no call: time passes beyond the hold's end. */
type Step = Call | 'expire'
type Answer = DecisionAnswer | ChargeAnswer | ReleaseAnswer

function effectOf(call: Call, state: RequestState): string {
  const row = TABLE.find(([name]) => name.trim() === call)
  return row?.[TABLE[0].indexOf(state)] ?? assert.fail(`${call} on ${state}`)
}

const INCLUDED = 12
const CREDITS = 100
const RESERVED = 10
const EXTENDED = 15
const REPORTED = 6
const RECORDED = 7

const plan = (on_expiry: 'release' | 'charge'): PlanDocument => ({
  guards: [
    { name: 'requests', rate: { meter: 'requests', limit: 1000, per: '30d', algorithm: 'fixed' } },
    { name: 'cost', rate: { meter: 'cost', limit: 1000, per: '30d', algorithm: 'fixed' } },
    { name: 'units', rate: { meter: 'units', limit: 1000, per: '30d', algorithm: 'fixed' } },
    { name: 'in-flight', concurrency: 5 },
    { name: 'budget', budget: 1000, per: 'month' },
  ],
  waterfall: [{ allowance: 'included', windows: [{ name: '7d', limit: INCLUDED, per: '7d' }] }, ALL_CREDITS],
  hold: { ttl: '10m', on_expiry },
})

/** What is expected, with books of its own: one request, so that sums say everything. */
class Model {
  state: RequestState = 'none'
  held = 0
  charged = 0
  admitted = 0
  reported: number | undefined
  readonly first = new Map<Call, Answer>()
  closedBy: Call | undefined
  readonly onExpiry: 'release' | 'charge'
  readonly settled: number

  constructor(onExpiry: 'release' | 'charge', settled: number) {
    this.onExpiry = onExpiry
    this.settled = settled
  }

  amountOf(call: Call): number {
    return { reserve: RESERVED, extend: EXTENDED, settle: this.settled, record: RECORDED, release: 0 }[call]
  }

  /** The cover of one request is always the allowance first, and then the grant. */
  split(amount: number): { source: string; amount: string }[] {
    const included = Math.min(INCLUDED, amount)
    return [
      ...(included > 0 ? [{ source: 'allowance:included', amount: cu(included) }] : []),
      ...(amount > included ? [{ source: 'grant:g', amount: cu(amount - included) }] : []),
    ]
  }

  expire(): void {
    if (this.state !== 'open') return
    this.charged = this.onExpiry === 'charge' ? (this.reported ?? this.held) : 0
    this.state = this.onExpiry === 'charge' ? 'expired_charged' : 'expired_released'
    this.held = 0
  }

  /** Takes in a call with this effect, and answers what it must say. */
  take(call: Call, effect: string): Record<string, unknown> {
    const amount = this.amountOf(call)
    const returned = cu(Math.max(0, this.held - amount))
    const before = this.charged
    if (effect === 'decide') {
      this.held = amount
      this.state = 'open'
      if (call === 'extend') this.reported = REPORTED
      else this.admitted += 1
      return {
        outcome: 'allow',
        reason: 'granted',
        cost: cu(amount),
        granted: cu(amount),
        from: this.split(amount),
        state: 'open',
      }
    }
    if (effect === 'remember' || effect === 'give back') {
      this.state = 'released'
      this.held = 0
      return { state: 'released', returned }
    }
    const reserved = this.first.has('reserve')
    this.state = reserved ? 'settled' : 'recorded'
    this.admitted = 1
    this.held = 0
    this.charged = amount
    this.closedBy = call
    const from = effect === 'difference' ? {} : { from: this.split(amount) }
    return {
      state: this.state,
      charged: cu(amount),
      absorbed: '0',
      debt: '0',
      returned: effect === 'difference' || before > 0 ? '0' : returned,
      ...from,
    }
  }

  reading(): Record<string, string> {
    const told = (used: number, held: number): string => (held === 0 ? cu(used) : `${cu(used)}+${cu(held)}`)
    const included = (amount: number): number => Math.min(INCLUDED, amount)
    const beyond = (amount: number): number => amount - included(amount)
    const all = {
      '7d': told(included(this.charged), included(this.held)),
      requests: cu(this.admitted),
      cost: cu(this.charged + this.held),
      units: cu(this.charged + this.held),
      'in-flight': told(0, this.state === 'open' ? 1 : 0),
      budget: told(this.charged, this.held),
    }
    const credits = { g: told(CREDITS - beyond(this.charged), beyond(this.held)) }
    return { ...credits, ...Object.fromEntries(Object.entries(all).filter(([, amount]) => amount !== '0')) }
  }
}

type Account = Awaited<ReturnType<Scene['beside']>>

function send(on: Account, model: Model, call: Call, amount = model.amountOf(call)): Promise<Answer> {
  const units = { units: amount }
  switch (call) {
    case 'reserve':
      return on.reserve('r', { feature: 'task', estimate: units })
    case 'extend':
      return on.extend('r', 1, { estimate: units, used: { units: REPORTED } })
    case 'settle':
      return on.settle('r', { feature: 'task', usage: units })
    case 'release':
      return on.release('r')
    case 'record':
      return on.record('r', { feature: 'task', usage: units })
  }
}

/** One call, and what the table says of it. */
async function prove(on: Account, model: Model, call: Call): Promise<void> {
  const earlier = model.first.get(call)
  const effect = effectOf(call, model.state)
  if (earlier !== undefined) {
    assert.deepEqual(await send(on, model, call), { ...earlier, state: model.state, replayed: true })
    return
  }
  if (effect === 'unknown') return fails(on, model, call, 'request_unknown')
  if (effect === 'conflict') {
    const first = model.first.get(model.closedBy ?? 'settle')
    return fails(on, model, call, 'conflict', { ...first, state: model.state, replayed: true })
  }
  const answer = await send(on, model, call)
  if (effect === 'its state') {
    assert.equal(answer.state, model.state)
  } else if (effect === 'hold_closed' || effect === 'released') {
    const { outcome, reason, state, granted } = answer as DecisionAnswer
    assert.deepEqual(
      { outcome, reason, state, granted },
      { outcome: 'deny', reason: effect, state: model.state, granted: '0' },
    )
  } else {
    assert.partialDeepStrictEqual(answer, { request_id: 'r', replayed: false, ...model.take(call, effect) })
    if (effect === 'difference') {
      const cover = (answer as ChargeAnswer).from.reduce((all, { amount }) => all + Number(amount), 0)
      assert.equal(cu(cover), cu(model.charged), 'all that is charged is covered')
    }
    model.first.set(call, answer)
  }
}

async function fails(on: Account, model: Model, call: Call, code: string, first?: unknown): Promise<void> {
  await assert.rejects(send(on, model, call), (error) => {
    assert.ok(error instanceof SluiceError)
    assert.equal(error.code, code)
    assert.notEqual(error.detail.remedy ?? '', '')
    if (first !== undefined) assert.deepEqual(error.detail.first, first)
    return true
  })
}

function sequences(steps: readonly Step[], longest: number): Step[][] {
  const found: Step[][] = steps.map((step) => [step])
  for (const sequence of found) {
    if (sequence.length === longest) break
    for (const step of steps) found.push([...sequence, step])
  }
  return found
}

/** Plays the steps on an account of its own, then every call again; the books are compared after each. */
async function live(shared: Scene, name: string, model: Model, steps: readonly Step[]): Promise<void> {
  const on = await shared.beside(name)
  await on.grant('g', CREDITS)
  for (const step of steps) {
    if (step === 'expire') {
      shared.after(11 * MINUTE)
      await shared.engine.sweep()
      model.expire()
    } else await prove(on, model, step)
    assert.deepEqual(await on.reading(), model.reading(), `after ${step}`)
  }
  const before = await on.kept()
  for (const call of CALLS) if (model.first.has(call)) await prove(on, model, call)
  assert.deepEqual(await on.kept(), before, 'repeating changes nothing')
  for (const call of ['reserve', 'extend', 'settle', 'record'] as const) {
    const first = model.first.get(call)
    if (first !== undefined) await conflicts(on, model, call, first)
  }
  assert.deepEqual(await on.kept(), before, 'conflicts change nothing')
  await on.agree()
}

/** The same call with another meaning is a conflict that carries the first answer. */
async function conflicts(on: Account, model: Model, call: Call, first: Answer): Promise<void> {
  await assert.rejects(send(on, model, call, model.amountOf(call) + 1), (error) => {
    assert.ok(error instanceof SluiceError)
    assert.equal(error.code, 'conflict')
    assert.deepEqual(error.detail.first, { ...first, state: model.state, replayed: true })
    return true
  })
}

const SETTLED = [8, 20, REPORTED]
const steps = [...CALLS, 'expire'] as const

for (const onExpiry of ['release', 'charge'] as const) {
  describe(`a request whose hold would ${onExpiry} at its end`, () => {
    for (const settled of SETTLED) {
      test(`follows the table through all pairs and triples of calls, settling ${settled}`, async () => {
        const shared = await scene(plan(onExpiry), { account: null })
        for (const [n, sequence] of sequences(steps, 3).entries()) {
          const model = new Model(onExpiry, settled)
          await during(sequence.join(' → '), () => live(shared, `a${n}`, model, sequence))
        }
      })

      test(`follows the table through all triples of calls after its hold has ended, settling ${settled}`, async () => {
        const shared = await scene(plan(onExpiry), { account: null })
        const starts: Step[][] = [
          ['reserve', 'expire'],
          ['reserve', 'extend', 'expire'],
        ]
        for (const [at, start] of starts.entries()) {
          for (const [n, rest] of sequences(CALLS, 3).entries()) {
            if (rest.length < 3) continue
            const sequence = [...start, ...rest]
            const model = new Model(onExpiry, settled)
            await during(sequence.join(' → '), () => live(shared, `a${at}-${n}`, model, sequence))
          }
        }
      })
    }
  })
}
