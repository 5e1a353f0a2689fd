/**
 * Random histories: one account, a few subjects, and operations in any order, with repeats, conflicts and jumps of the
 * clock. A history is plain JSON, so that it can be printed, cut smaller and run again.
 */
import type { PolicyDocument } from '../policy/schema.ts'
import type { Millis } from '../units.ts'
import type * as wire from '../wire.ts'
import { laterPolicy, randomPolicy } from './policies.ts'
import type { Random } from './random.ts'

export const ACCOUNT = 'acme'

export type Step =
  | { readonly op: 'wait'; readonly ms: Millis }
  | { readonly op: 'until'; readonly at: Millis }
  | ({ readonly op: 'reserve' } & Omit<wire.ReserveRequest, 'account'>)
  | ({ readonly op: 'extend' } & Omit<wire.ExtendRequest, 'account'>)
  | ({ readonly op: 'settle' } & Omit<wire.SettleRequest, 'account'>)
  | ({ readonly op: 'record' } & Omit<wire.RecordRequest, 'account'>)
  | ({ readonly op: 'release' } & Omit<wire.ReleaseRequest, 'account'>)
  | ({ readonly op: 'refund'; readonly request_id: string } & wire.RefundRequest)
  | ({ readonly op: 'grant' } & wire.GrantRequest)
  | { readonly op: 'revoke'; readonly id: string }
  | ({ readonly op: 'patch' } & wire.AccountPatch)
  | ({ readonly op: 'override' } & wire.OverridesRequest)
  | { readonly op: 'publish'; readonly policy: PolicyDocument }
  | { readonly op: 'sweep' }

export interface History {
  readonly startAt: Millis
  readonly account: Omit<wire.AccountRequest, 'id'>
  readonly policy: PolicyDocument
  readonly steps: readonly Step[]
}

const ZONES = ['UTC', 'Europe/Berlin', 'America/New_York', 'Africa/Cairo', 'Asia/Kolkata', 'Pacific/Auckland']
/** Before month ends, leap days and the nights in which clocks jump. */
const STARTS = [
  '2028-02-28T22:00:00Z',
  '2026-01-30T12:34:56.789Z',
  '2026-03-28T20:00:00Z',
  '2026-10-24T20:00:00Z',
  '2026-04-23T20:00:00Z',
  '2026-12-31T23:30:00Z',
].map((text) => Date.parse(text))
/** When the clocks of those zones jump, and a while before. */
const JUMPS = [
  '2026-03-29T01:00:00Z',
  '2026-10-25T01:00:00Z',
  '2026-03-08T07:00:00Z',
  '2026-04-23T22:00:00Z',
  '2026-10-29T21:00:00Z',
  '2026-04-04T14:00:00Z',
].map((text) => Date.parse(text))
const WAITS = [1, 999, 1_000, 10_000, 30_000, 60_000, 90_000, 600_000, 3_600_000, 5 * 3_600_000]
const DAY_MS = 86_400_000

const amount = (random: Random, most: number): string => {
  const whole = random.int(0, most)
  return random.once(8) ? `${whole}.${random.pick(['5', '25', '000001', '333333'])}` : String(whole)
}

export function randomHistory(random: Random, length: number): History {
  const policy = randomPolicy(random)
  const startAt = random.pick(STARTS)
  const account = {
    plan: random.pick(['basic', 'basic', 'other']),
    time_zone: random.pick(ZONES),
    ...(random.once(3) ? { anchor_at: startAt - random.int(0, 40) * DAY_MS } : {}),
  }
  let now = startAt
  let current = policy
  const steps: Step[] = []
  while (steps.length < length) {
    const step = nextStep(random, steps, now, current)
    if (step.op === 'wait') now += step.ms
    if (step.op === 'until') now = step.at
    if (step.op === 'publish') current = step.policy
    steps.push(step)
  }
  return { startAt, account, policy, steps }
}

function nextStep(random: Random, before: readonly Step[], now: Millis, policy: PolicyDocument): Step {
  const chance = random.int(1, 100)
  const calls = before.filter((step) => 'request_id' in step || step.op === 'grant')
  if (chance <= 18)
    return wait(
      random,
      now,
      instantsIn(before).filter((at) => at > now),
    )
  if (chance <= 24 && calls.length > 0) return random.pick(calls)
  if (chance <= 44) return reserve(random)
  if (chance <= 52) return extend(random, before)
  if (chance <= 66) return settle(random)
  if (chance <= 71) return release(random)
  if (chance <= 77) return record(random)
  if (chance <= 81) return refund(random)
  if (chance <= 87) return grant(random, now)
  if (chance <= 89) return { op: 'revoke', id: random.pick(['g1', 'g2', 'g3', 'plan:1', 'plan:2']) }
  if (chance <= 92) return override(random, now, policy)
  if (chance <= 95) return patch(random)
  if (chance <= 98) return { op: 'publish', policy: laterPolicy(random, policy, before.length) }
  return { op: 'sweep' }
}

/** What earlier steps have named: ends of exceptions and grants, and of holds that were given a length. */
function instantsIn(steps: readonly Step[]): Millis[] {
  const found: Millis[] = []
  let now = 0
  for (const step of steps) {
    if (step.op === 'wait') now += step.ms
    if (step.op === 'until') now = step.at
    if (step.op === 'reserve' && step.ttl_ms !== undefined && now > 0) found.push(now + step.ttl_ms)
    if (step.op === 'grant') found.push(...[step.starts_at, step.expires_at].filter((at) => at !== undefined))
    if (step.op === 'override')
      found.push(...step.overrides.map((one) => one.until_at).filter((at) => at !== undefined))
  }
  return found
}

function wait(random: Random, now: Millis, instants: readonly Millis[]): Step {
  if (random.once(4) && instants.length > 0)
    return { op: 'until', at: random.pick(instants) + random.pick([-1, 0, 0, 1]) }
  const jumps = JUMPS.filter((at) => at > now && at - now < 60 * DAY_MS)
  if (random.once(6) && jumps.length > 0)
    return { op: 'until', at: random.pick(jumps) + random.pick([-1, 0, 1, 3_599_999]) }
  if (random.once(4)) return { op: 'wait', ms: random.int(1, 40) * DAY_MS }
  return { op: 'wait', ms: random.pick(WAITS) }
}

const requestId = (random: Random): string => `r${random.int(1, 6)}`

function subject(random: Random): wire.Subject {
  if (random.once(25)) return {}
  return { user: `u${random.int(1, 3)}`, team: random.pick(['t1', 't1', 't2']) }
}

const feature = (random: Random): string => random.pick(['a.chat', 'a.chat', 'b.video', 'c', 'c'])

function quantitiesOf(random: Random, name: string, most: number): Record<string, string> {
  if (name === 'b.video') return { seconds: amount(random, most) }
  return random.once(4)
    ? { tokens: amount(random, most), bytes: String(random.int(0, 1_000_000)) }
    : { tokens: amount(random, most) }
}

function reserve(random: Random): Step {
  const name = feature(random)
  const isQuantity = name !== 'c' && random.once(2)
  const ask = isQuantity
    ? { estimate: quantitiesOf(random, name, 24) }
    : name === 'a.chat' && random.once(3)
      ? {}
      : { cost: amount(random, 24) }
  return {
    op: 'reserve',
    request_id: requestId(random),
    subject: subject(random),
    feature: name,
    ...(random.once(4) ? { attributes: { model: random.pick(['big', 'small']) } } : {}),
    ...ask,
    ...leastOf(random, ask),
    ...(random.once(4) ? { ttl_ms: random.pick([1, 1_000, 60_000, 3 * 3_600_000]) } : {}),
    ...(random.once(12) ? { dry_run: true } : {}),
  }
}

/** What is of use of it: an amount, or some of the quantities whole and the others not at all. */
function leastOf(random: Random, ask: Pick<wire.ReserveRequest, 'estimate'>): Partial<wire.ReserveRequest> {
  if (!random.once(3)) return {}
  if (ask.estimate === undefined || random.once(2)) return { min_cost: amount(random, 6) }
  return { min: Object.fromEntries(Object.entries(ask.estimate).filter(() => random.once(2))) }
}

function extend(random: Random, before: readonly Step[]): Step {
  const request_id = requestId(random)
  const done = before.filter((step) => step.op === 'extend' && step.request_id === request_id)
  const reserved = before.findLast((step) => step.op === 'reserve' && step.request_id === request_id)
  const name = reserved !== undefined && reserved.op === 'reserve' ? reserved.feature : 'c'
  const isQuantity = name !== 'c' && random.once(2)
  const ask = isQuantity ? { estimate: quantitiesOf(random, name, 40) } : { cost: amount(random, 40) }
  return {
    op: 'extend',
    request_id,
    step: random.once(8) ? random.int(1, 3) : Math.min(done.length + 1, random.int(1, 3)),
    ...(random.once(4) ? {} : ask),
    ...(random.once(3) ? { ttl_ms: random.pick([1_000, 600_000, 6 * 3_600_000]) } : {}),
    ...(random.once(2) && name !== 'c' ? { used: quantitiesOf(random, name, 20) } : {}),
    ...(random.once(4) ? { min_cost: amount(random, 10) } : {}),
  }
}

function settle(random: Random): Step {
  const name = feature(random)
  return {
    op: 'settle',
    request_id: requestId(random),
    ...(random.once(4) ? { feature: name, subject: subject(random) } : {}),
    ...(random.once(2) ? { cost: amount(random, 30) } : { usage: quantitiesOf(random, name, 30) }),
    ...(random.once(6) ? { attributes: { model: random.pick(['big', 'small']) } } : {}),
    ...(random.once(6) ? { endpoint: '/v1/chat', duration_ms: 12 } : {}),
  }
}

function record(random: Random): Step {
  const name = feature(random)
  return {
    op: 'record',
    request_id: requestId(random),
    feature: name,
    subject: subject(random),
    ...(name === 'c' || random.once(2)
      ? { cost: amount(random, 20) }
      : { usage: quantitiesOf(random, name, 20) }),
  }
}

const release = (random: Random): Step => ({ op: 'release', request_id: requestId(random) })

function refund(random: Random): Step {
  const back = random.int(1, 3)
  return {
    op: 'refund',
    request_id: requestId(random),
    refund_id: `f${random.int(1, 3)}`,
    ...(back === 1
      ? { amount: amount(random, 8) }
      : back === 2
        ? { usage: { tokens: amount(random, 6) } }
        : {}),
    reason: 'because',
  }
}

function grant(random: Random, now: Millis): Step {
  return {
    op: 'grant',
    id: `g${random.int(1, 4)}`,
    kind: random.pick(['purchased', 'purchased', 'free', 'promo', 'adjustment']),
    amount: String(random.int(1, 30)),
    ...(random.once(4) ? { priority: random.int(0, 120) } : {}),
    ...(random.once(5) ? { starts_at: now + random.int(1, 50) * 3_600_000 } : {}),
    ...(random.once(3) ? { expires_at: now + random.int(51, 400) * 3_600_000 } : {}),
    ...(random.once(6) ? { features: [random.pick(['a.*', 'b.video'])] } : {}),
    ...(random.once(6) ? { subjects: { user: ['u1', 'u2'] } } : {}),
  }
}

function override(random: Random, now: Millis, policy: PolicyDocument): Step {
  const names = Object.values(policy.plans).flatMap((plan) => [
    ...(plan.guards ?? []).map((one) => one.name),
    ...plan.waterfall.flatMap((one) =>
      'allowance' in one ? one.windows.map((window) => `${one.allowance}/${window.name}`) : [],
    ),
    ...plan.waterfall.flatMap((one) => ('overage' in one ? ['overage'] : [])),
  ])
  const limit = random.once(5) ? null : String(random.int(0, 40))
  return {
    op: 'override',
    ...(random.once(3) ? { subject: { user: `u${random.int(1, 3)}` } } : {}),
    overrides: [
      {
        name: names.length === 0 ? 'overage' : random.pick(names),
        limit,
        ...(random.once(3) ? { until_at: now + random.int(1, 72) * 3_600_000 } : {}),
      },
    ],
    reason: 'asked for',
  }
}

function patch(random: Random): Step {
  const what = random.int(1, 4)
  if (what === 1) return { op: 'patch', plan: random.pick(['basic', 'other']) }
  if (what === 2) return { op: 'patch', time_zone: random.pick(ZONES) }
  if (what === 3) return { op: 'patch', status: random.pick(['suspended', 'closed', 'active']) }
  return { op: 'patch', status: 'active' }
}
