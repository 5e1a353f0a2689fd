/** Callers who reserve, settle, release and record through several nodes, and keep what they were told. */
import assert from 'node:assert/strict'
import { setTimeout as pause } from 'node:timers/promises'
import { SluiceError } from '../../src/errors.ts'
import type { Random } from '../../src/sim/random.ts'
import type * as wire from '../../src/wire.ts'
import { type Node, NodeGone } from './nodes.ts'

const CALLERS = 240
/** What a caller rests between two requests, at most. */
const THINK_MS = 200
/** Nobody waits for longer than this for what is bound to happen; it only ends a failing test. */
const IN_VAIN_MS = 60_000
/** Requests that are left open in each account, at most: they take places from the others. */
const LEFT_OPEN = 4

/** One request, with every answer that a caller has had about it. */
export interface Told {
  readonly account: string
  readonly requestId: string
  /** What is reserved or recorded, and what is settled; never more than reserved. In CU. */
  readonly cost: string
  readonly used: string
  reserved?: wire.DecisionAnswer
  settled?: wire.ChargeAnswer
  released?: wire.ReleaseAnswer
  recorded?: wire.ChargeAnswer
}

export const reserve = (node: Node, { account, requestId, cost }: Told): Promise<wire.DecisionAnswer> =>
  node.reserve({ account, request_id: requestId, feature: 'job', cost })
export const settle = (node: Node, { account, requestId, used }: Told): Promise<wire.ChargeAnswer> =>
  node.settle({ account, request_id: requestId, cost: used })
export const release = (node: Node, { account, requestId }: Told): Promise<wire.ReleaseAnswer> =>
  node.release({ account, request_id: requestId })
export const record = (node: Node, { account, requestId, cost }: Told): Promise<wire.ChargeAnswer> =>
  node.record({ account, request_id: requestId, feature: 'job', cost })

export interface Load {
  readonly told: readonly Told[]
  /** Calls that ended in an error; each was made again until it was answered. */
  readonly failures: readonly (SluiceError | NodeGone)[]
  /** Reasons that requests were refused for. */
  readonly refused: ReadonlySet<string>
  /** How long the longest call took to its answer or error. */
  readonly longestMs: number
  /** Waits until so many more requests have been charged, and answers how long that took. */
  more(requests: number): Promise<number>
  /** Waits until every caller has had an answer to everything. */
  stop(): Promise<void>
}

export interface Accounts {
  /** Half of all the load is on this one, and it has credits without end: only its allowance and places are scarce. */
  readonly hot: string
  /** These run into their last limit. */
  readonly others: readonly string[]
}

/** Some are rich and hot, others run into their last limit. */
export async function newAccounts(node: Node, round: number): Promise<Accounts> {
  const [hot = '', ...others] = ['hot', 'b', 'c', 'd'].map((name) => `${name}-${round}`)
  for (const id of [hot, ...others]) await node.createAccount({ id, plan: 'load' })
  await node.grant(hot, { id: 'g', kind: 'purchased', amount: '1000000' })
  return { hot, others }
}

/** `nodes` is asked for each call, since a node may be replaced. */
export function startLoad({ hot, others }: Accounts, nodes: () => readonly Node[], random: Random): Load {
  const told: Told[] = []
  const failures: (SluiceError | NodeGone)[] = []
  const refused = new Set<string>()
  const open = new Map<string, number>()
  let longestMs = 0
  let requests = 0
  let charged = 0
  let stopping = false

  /** Calls one node and then any other, as often as it takes. */
  async function insist<T>(call: (node: Node) => Promise<T>): Promise<T> {
    const begun = performance.now()
    for (;;) {
      const at = performance.now()
      try {
        return await call(random.pick(nodes()))
      } catch (error) {
        if (!(error instanceof NodeGone)) expectAccident(error)
        failures.push(error)
        assert.ok(performance.now() - begun < IN_VAIN_MS, `a call was never answered: ${error}`)
      } finally {
        longestMs = Math.max(longestMs, performance.now() - at)
      }
      await pause(random.int(20, 200))
    }
  }

  function nextRequest(): Told {
    const cost = random.int(1, 12)
    return {
      account: random.once(2) ? hot : random.pick(others),
      requestId: `r${requests++}`,
      cost: String(cost / 4),
      used: String(random.int(1, cost) / 4),
    }
  }

  async function request(): Promise<void> {
    const one = nextRequest()
    if (one.account === hot && random.once(10)) {
      one.recorded = await insist((node) => record(node, one))
      told.push(one)
      charged++
      return
    }
    const reserved = await insist((node) => reserve(node, one))
    if (reserved.outcome !== 'allow') {
      refused.add(reserved.reason)
      return
    }
    one.reserved = reserved
    told.push(one)
    const left = open.get(one.account) ?? 0
    if (left < LEFT_OPEN && random.once(8)) {
      open.set(one.account, left + 1)
    } else if (random.once(8)) one.released = await insist((node) => release(node, one))
    else {
      one.settled = await insist((node) => settle(node, one))
      charged++
    }
  }

  const callers = Array.from({ length: CALLERS }, async () => {
    while (!stopping) {
      await request()
      await pause(random.int(0, THINK_MS))
    }
  })
  // Where a caller fails, whoever waits next is told.
  let failed: { readonly error: unknown } | undefined
  const all = Promise.all(callers).catch((error: unknown) => {
    failed = { error }
    stopping = true
  })

  return {
    told,
    failures,
    refused,
    get longestMs() {
      return longestMs
    },
    async more(wanted) {
      const begun = performance.now()
      for (const until = charged + wanted; charged < until; await pause(2)) {
        if (failed !== undefined) throw failed.error
        assert.ok(performance.now() - begun < IN_VAIN_MS, 'nothing is charged any more')
      }
      return performance.now() - begun
    },
    async stop() {
      stopping = true
      await all
      if (failed !== undefined) throw failed.error
    },
  }
}

/** The only errors that trouble with a database may end in; each says what to do, and when. */
function expectAccident(error: unknown): asserts error is SluiceError {
  assert.ok(error instanceof SluiceError, error as Error)
  assert.match(error.code, /^(unavailable|overloaded)$/, error)
  assert.ok(error.detail.remedy, error.message)
  assert.ok((error.detail.retryAfterMs ?? 0) > 0, error.message)
}
