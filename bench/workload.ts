/** What every contestant is asked to do: the same accounts, the same requests, the same bodies. */
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Engine } from '../src/engine.ts'
import type { ReserveRequest, SettleRequest } from '../src/wire.ts'

export const POLICY = readFileSync(new URL('./policy.yaml', import.meta.url), 'utf8')
export const PLAN = 'plus'

/** The key that the load sends with every request. */
export const ADMIN_KEY = 'bench-admin-key'

/** How many wait for an answer at any time, and how many accounts they act for. */
export const CALLERS = 256
export const ACCOUNTS = 10_000
/** Users of the one account that all callers act for in the hot contests; elsewhere an account has one user. */
export const HOT_USERS = 100

/** Ids of one length, so that rows are of one size. */
export const accountName = (place: number): string => `account-${String(place).padStart(8, '0')}`
const userName = (place: number): string => `user-${String(place).padStart(4, '0')}`

/** Chooses whom a request is for. */
export interface Crowd {
  readonly accounts: number
  readonly users: number
}
export const crowdOf = (accounts: number): Crowd => ({ accounts, users: accounts === 1 ? HOT_USERS : 1 })

const below = (bound: number): number => Math.floor(Math.random() * bound)

/** A code task of a random account. Request ids are random, as callers' are: for an index that is the dearest case. */
export function reserveRequest(crowd: Crowd): ReserveRequest {
  return {
    request_id: randomUUID(),
    account: accountName(below(crowd.accounts)),
    subject: { user: userName(below(crowd.users)) },
    feature: 'codex.task',
    attributes: { model: 'gpt-5.3-codex', region: 'eu-west-1' },
    estimate: { input_tokens: 4000, cached_input_tokens: 1200, output_tokens: 1000 },
  }
}

/** What the task really used: a little less than was reserved. */
export function settleRequest({ request_id, account }: ReserveRequest): SettleRequest {
  return {
    request_id,
    account,
    usage: { input_tokens: 3800, cached_input_tokens: 1200, output_tokens: 640 + below(300) },
    endpoint: '/v1/responses',
    duration_ms: 2_000 + below(8_000),
  }
}

/** Makes the accounts, many at a time. */
export async function createAccounts(engine: Engine, count: number): Promise<void> {
  let next = 0
  await together(CALLERS, async () => {
    while (next < count) await engine.createAccount({ id: accountName(next++), plan: PLAN })
  })
}

/** Runs as many of the same at once, and waits for all. */
export async function together(count: number, one: (place: number) => Promise<void>): Promise<void> {
  await Promise.all(Array.from({ length: count }, (_, place) => one(place)))
}

/** Counts how often callers get through `once` in a time, a second. */
export async function rateOf(seconds: number, callers: number, once: () => Promise<void>): Promise<number> {
  const startedAt = performance.now()
  const until = startedAt + seconds * 1000
  let done = 0
  await together(callers, async () => {
    while (performance.now() < until) {
      await once()
      done++
    }
  })
  return done / ((performance.now() - startedAt) / 1000)
}
